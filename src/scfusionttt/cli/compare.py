"""Compare scFusionTTT with baselines, and with variants of itself."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from scfusionttt.cli.common import as_settings, check_input, listed, open_input, print_table
from scfusionttt.cli.options import (
    Compute,
    CountOptions,
    Labels,
    OptionalLabels,
    Preset,
    Settings,
    reads_counts,
)
from scfusionttt.errors import LabelError, OutputError, SettingError

if TYPE_CHECKING:
    from scfusionttt.comparison import cells as data
    from scfusionttt.comparison.queries import Query
    from scfusionttt.comparison.rows import Job
    from scfusionttt.data.cells import CiteSeq

Seeds = Annotated[
    int, typer.Option("--seeds", metavar="N", min=1, help="number of runs of each method, with seeds 0 to N - 1")
]
OutFolder = Annotated[Path, typer.Option("--out", metavar="DIR", help="folder for scores, models and result tables")]
Fractions = Annotated[
    str,
    typer.Option("--train-fractions", "--shares", metavar="F,...", help="fractions of the labelled cells to train on"),
]
Protocols = Annotated[
    str | None,
    typer.Option(
        "--protocols", metavar="NAME,...", help="any of unsupervised, held-out, count-splitting, paper, ablation"
    ),
]


#: What methods are compared on.
BenchmarkTask = Literal["embed", "impute", "transfer"]


@reads_counts
def benchmark(
    inputs: Annotated[list[Path], typer.Argument(metavar="INPUT...", help="CITE-seq data sets, or RNA to transfer to")],
    labels_key: OptionalLabels = None,
    task: Annotated[
        BenchmarkTask, typer.Option(help="embeddings and cell types, proteins from RNA, or cell types of a query")
    ] = "embed",
    out: OutFolder = Path("benchmark"),
    methods: Annotated[
        str | None,
        typer.Option(
            "--methods", metavar="NAME,...",
            help="methods; default: fusionttt and the baselines that need neither an environment of their own nor, to "
            "impute or transfer, scvi-tools",
        ),
    ] = None,
    batch_key: Annotated[
        str | None,
        typer.Option(
            "--batch-key", metavar="KEY",
            help="obs column with batches, whose effects some methods remove; with --task impute, each is held out",
        ),
    ] = None,
    label_map: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="transfer: .csv or .tsv with columns label (query) and class (reference)"),
    ] = None,
    seeds: Seeds = 5, protocols: Protocols = None,
    train_fractions: Annotated[
        str | None,
        typer.Option(
            "--train-fractions", "--shares", metavar="F,...",
            help="fractions of the labelled cells to train on; default: 0.75,0.05, with --task transfer 0.01,0.05,0.3",
        ),
    ] = None,
    settings: Settings = None, device: Compute = "auto", *, options: CountOptions,
) -> None:  # fmt: skip
    """Compare scFusionTTT with other methods on the same cells, with the same clustering and metrics.

    The protocols, each with tables of its own, are by default unsupervised (no labels) and held-out (cell types of
    cells whose labels were not used). Count-splitting scores without labels: methods see one half of the counts of
    each cell, and the other half shows how well the neighbours that they find agree; ablate can compare settings by
    it, too. Paper scores as published, which is informative only for presets that train the network on labels, such
    as paper and scmmae.

    With --batch-key, fusionttt, totalvi, midas and concat_harmony remove the effects of the batches, and the
    unsupervised protocol also scores how batches mix and cell types are kept (scIB). Cells that lack proteins
    (--cells rna) are read by fusionttt, totalvi, midas and methods of RNA alone, cells that lack RNA (--cells all) by
    fusionttt and midas; rows of the other methods say what the cells lack.

    With --task impute, proteins are predicted from RNA in cells that were not trained on: each batch of an input
    (--batch-key), or every input but the first. With --task transfer, the cell types of such cells are predicted
    by RNA alone, without labels of these cells and with the fractions --train-fractions of them.

    Scores that are already in the folder are not computed again, so an interrupted run continues where it stopped.
    --set changes the settings of scFusionTTT; use another folder for other settings.

    Example: scfusionttt benchmark pbmc.h5mu --labels-key cell_type --methods fusionttt,concat,wnn --out results
    Example: scfusionttt benchmark donors.h5mu --task impute --batch-key donor --out results
    Example: scfusionttt benchmark pbmc.h5mu rna.h5ad --task transfer --labels-key cell_type --out results
    """
    _check(inputs, out)
    changed = as_settings(settings)
    if task != "impute" and labels_key is None:
        raise SettingError(f"benchmark --task {task} needs --labels-key KEY")
    _refuse(task, "--labels-key", labels_key, used_by=["embed", "transfer"])
    _refuse(task, "--label-map", label_map, used_by=["transfer"])
    _refuse(task, "--train-fractions", train_fractions, used_by=["embed", "transfer"])
    _refuse(task, "--protocols", protocols, used_by=["embed"])
    names = None if methods is None else listed(methods)
    if task == "embed":
        from scfusionttt.comparison.methods import DEFAULT, OF_BATCHES, choose
        from scfusionttt.comparison.tasks import BENCHMARK_PROTOCOLS, jobs, tasks

        names = [*DEFAULT, *(OF_BATCHES if batch_key else ())] if names is None else names
        chosen = choose(names, models=out / "models", settings=changed, device=device)
        shares = _fractions(train_fractions or "0.75,0.05")
        todo = tasks(list(BENCHMARK_PROTOCOLS) if protocols is None else listed(protocols), shares)
        assert labels_key is not None
        _run(jobs(_datasets(inputs, labels_key, options, batch_key), chosen, todo, range(seeds)), out)
        return
    from scfusionttt.comparison import imputation, transfers
    from scfusionttt.io.tables import read_map

    shares = _fractions(train_fractions or "0.01,0.05,0.3")
    mapping = {} if label_map is None else read_map(label_map, ("label", "class"))
    queries = _queries(task, inputs, options, batch_key, changed, device)
    if task == "impute":
        _run(imputation.jobs(queries, names or imputation.DEFAULT, range(seeds)), out)
        return
    assert labels_key is not None
    names = names or list(transfers.DEFAULT)
    _run(transfers.jobs(queries, names, range(seeds), labels_key=labels_key, mapping=mapping, shares=shares), out)


def _refuse(task: BenchmarkTask, option: str, value: object, *, used_by: Sequence[BenchmarkTask]) -> None:
    """Raise SettingError if an option is given to a task that does not use it."""
    if value is not None and task not in used_by:
        raise SettingError(f"{option} has no effect with --task {task}; leave it out")


@reads_counts
def ablate(
    what: Annotated[
        list[str], typer.Argument(metavar="[order|ttt|length|stages] INPUT...", help="a study, and labelled data sets")
    ],
    labels_key: Labels,
    vary: Annotated[
        list[str] | None,
        typer.Option("--vary", metavar="SECTION.KEY=V1,V2,...", help="compare values of a setting; repeatable"),
    ] = None,
    out: OutFolder = Path("ablation"),
    preset: Preset = "default",
    seeds: Seeds = 5, protocols: Protocols = None, train_fractions: Fractions = "0.75,0.05",
    settings: Settings = None, device: Compute = "auto", *, options: CountOptions,
) -> None:  # fmt: skip
    """Compare variants of scFusionTTT: means over seeds, and differences from the first variant, paired by seed.

    Each variant is pretrained on three quarters of the cells. The other quarter shows how well it reconstructs hidden
    genes and proteins, predicts proteins from RNA and learns cell types from few labels; clusters are those of all
    cells. Variants that read other genes, such as those of the study length, are scored on their own genes: compare
    them by the other scores. If only later stages differ (the study stages, or settings of finetune), the protocol is
    held-out, as in benchmark.

    The study ttt compares TTT everywhere, in the encoders alone, in the fusion alone and nowhere, and attention.

    Example: scfusionttt ablate order pbmc.h5mu --labels-key cell_type --seeds 5
    Example: scfusionttt ablate pbmc.h5mu --labels-key cell_type --vary pretrain.mask_ratio=0.15,0.5,0.75
    """
    from scfusionttt.config import preset as named_preset

    config = named_preset(preset).with_settings(as_settings(settings))
    from scfusionttt.comparison.ablations import STUDY_NAMES, Variants, protocol_of
    from scfusionttt.comparison.tasks import jobs, tasks

    study = what[0] if what[0] in STUDY_NAMES or not vary else None
    inputs = [Path(text) for text in (what[1:] if study else what)]
    base = Variants(config, out / "models", device)
    variants = base.of_study(study) if study else []
    variants += [method for text in vary or [] for method in base.of_setting(text)]
    if not inputs:
        raise SettingError(f"no input given; use scfusionttt ablate {study} INPUT --labels-key KEY")
    _check(inputs, out)
    names = [protocol_of(study, vary or [])] if protocols is None else listed(protocols)
    todo = tasks(names, _fractions(train_fractions))
    compared = jobs(_datasets(inputs, labels_key, options), variants, todo, range(seeds))
    _run(compared, out, reference=variants[0].name)


def _check(inputs: list[Path], out: Path) -> None:
    """Report a missing input, or a folder that cannot be written, before the work."""
    from scfusionttt.io.atomic import check_target

    for path in inputs:
        check_input(path)
    try:
        above = next(folder for folder in (out, *out.absolute().parents) if folder.exists())
    except OSError as error:  # a name that is too long
        raise OutputError(f"{out}: cannot be created ({error.strerror}); choose another folder") from error
    if not above.is_dir():
        raise OutputError(f"{out}: cannot be created, as {above} is a file; choose another folder")
    check_target(above / "results.json", folder=False)


def _read(path: Path, options: CountOptions) -> "CiteSeq":
    """Return the checked cells of an input; those without counts of RNA are left out, unless it was not measured."""
    from scfusionttt.model.inputs import check_cells

    return check_cells(open_input(path, stream=False), drop_empty=True, **options)


def _datasets(
    inputs: list[Path], labels_key: str, options: CountOptions, batch_key: str | None = None
) -> "list[data.Cells]":
    """Return labelled cells; invalid labels and batches are reported before the first run."""
    from scfusionttt.comparison import cells as data
    from scfusionttt.data.store.write import input_names

    datasets = []
    for name, path in zip(input_names(inputs), inputs):
        dataset = data.Cells(name, _read(path, options), labels_key, batch_key)
        try:
            _ = dataset.labels, dataset.batches
        except LabelError as error:
            raise LabelError(f"{path}: {error}") from error
        datasets.append(dataset)
    return datasets


def _queries(
    task: str, inputs: list[Path], options: CountOptions, batch_key: str | None, settings: dict[str, str], device: str
) -> "list[Query]":
    """Return what methods do not learn from: batches, or the inputs after the first, which may be the first again."""
    from scfusionttt.comparison.queries import make_queries
    from scfusionttt.config import preset
    from scfusionttt.data.store.write import input_names

    config = preset("default").with_settings(settings)
    if batch_key is None and len(inputs) < 2:
        raise SettingError(f"benchmark --task {task} needs a data set to learn from and a query, or --batch-key")
    first, *others = inputs
    to_itself = batch_key is None and first in others  # which shows how well a method fits
    names = [first.stem, *input_names(others)] if to_itself else input_names(inputs)
    datasets = [(name, _read(path, options)) for name, path in zip(names, inputs)]
    return make_queries(datasets, config, device, batch_key=batch_key)


def _run(jobs: "Sequence[Job]", out: Path, *, reference: str | None = None) -> None:
    """Compute the rows, write the results and print the tables; the others are also compared with a reference."""
    from scfusionttt.comparison.run import run

    tables, written = run(jobs, out, reference=reference, show=typer.echo)
    for table in tables:
        print_table(f"{table.protocol}: {table.caption}", table.rows)
    for path in written:
        typer.echo(f"{path}: written", err=True)


def _fractions(text: str) -> list[float]:
    try:
        fractions = [float(part) for part in listed(text)]
    except ValueError as error:
        raise SettingError(f"--train-fractions must be numbers like 0.75,0.05 (got {text!r})") from error
    if not fractions or not all(0 < fraction < 1 for fraction in fractions):
        raise SettingError(f"--train-fractions must be between 0 and 1, like 0.75,0.05 (got {text!r})")
    return fractions
