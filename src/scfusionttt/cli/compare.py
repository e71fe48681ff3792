"""Compare scFusionTTT with baselines, and with variants of itself."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from scfusionttt.cli.common import as_settings, check_input, open_input, print_table
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
    from scfusionttt.comparison.methods import Method
    from scfusionttt.comparison.rows import Job
    from scfusionttt.comparison.tasks import Task
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
    inputs: Annotated[list[Path], typer.Argument(metavar="INPUT...", help="CITE-seq data sets with labels")],
    labels_key: OptionalLabels = None,
    task: Annotated[
        BenchmarkTask, typer.Option(help="embeddings and cell types; proteins from RNA; cell types of a query")
    ] = "embed",
    out: OutFolder = Path("benchmark"),
    methods: Annotated[
        str | None, typer.Option("--methods", metavar="NAME,...", help="methods; default: all but the slow ones")
    ] = None,
    batch_key: Annotated[
        str | None,
        typer.Option(
            "--batch-key", metavar="KEY",
            help="obs column with batches, which some methods remove; with --task impute, each is held out",
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
    """Compare scFusionTTT with other methods: same cells, same clustering, same metrics; no table for two protocols.

    By default these are unsupervised (no labels) and held-out (cell types of cells whose labels were not used).
    Count-splitting scores without labels: methods see one half of the counts of each cell, and the other half shows
    how well the neighbours that they find agree. It compares settings, too (with ablate). Paper scores as published,
    which only shows something with presets that train on labels, such as paper and scmmae.

    With --batch-key, fusionttt, totalvi, midas and concat_harmony remove the effects of the batches, and the
    unsupervised protocol also scores how batches mix and cell types are kept (scIB).

    With --task impute, proteins are predicted from RNA in cells that were not trained on: each batch of an input
    (--batch-key), or every input but the first. With --task transfer, cell types of every input but the first are
    predicted from those of the first, without labels and with the fractions --train-fractions of the query's labels.

    Scores that are in the folder already are not computed again, so an interrupted run continues where it stopped.
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
    if task != "embed":
        _compare_queries(
            task, inputs, out, options, labels_key=labels_key, batch_key=batch_key, label_map=label_map,
            methods=None if methods is None else _listed(methods), seeds=seeds, settings=changed,
            shares=_fractions(train_fractions or "0.01,0.05,0.3"), device=device,
        )  # fmt: skip
        return
    assert labels_key is not None
    from scfusionttt.comparison.methods import DEFAULT, OF_BATCHES, choose
    from scfusionttt.comparison.tasks import BENCHMARK_PROTOCOLS, tasks

    names = [*DEFAULT, *(OF_BATCHES if batch_key else ())] if methods is None else _listed(methods)
    chosen = choose(names, models=out / "models", settings=changed, device=device)
    shares = _fractions(train_fractions or "0.75,0.05")
    todo = tasks(list(BENCHMARK_PROTOCOLS) if protocols is None else _listed(protocols), shares)
    _compare(_datasets(inputs, labels_key, options, batch_key), chosen, todo, seeds, out)


def _refuse(task: BenchmarkTask, option: str, value: object, *, used_by: Sequence[BenchmarkTask]) -> None:
    """Raise SettingError if an option is given to a task that does not use it."""
    if value is not None and task not in used_by:
        raise SettingError(f"{option} has no effect with --task {task}; leave it out")


def _compare_queries(
    task: BenchmarkTask,
    inputs: list[Path],
    out: Path,
    options: CountOptions,
    *,
    labels_key: str | None,
    batch_key: str | None,
    label_map: Path | None,
    methods: list[str] | None,
    seeds: int,
    shares: list[float],
    settings: dict[str, str],
    device: str,
) -> None:
    """Compare methods on cells of batches or data sets that they do not learn from."""
    from scfusionttt.comparison import imputation, queries, transfers
    from scfusionttt.config import preset
    from scfusionttt.data.store.write import input_names
    from scfusionttt.io.tables import read_map

    mapping = {} if label_map is None else read_map(label_map, ("label", "class"))
    config = preset("default").with_settings(settings)
    if batch_key is None and len(inputs) < 2:
        raise SettingError(f"benchmark --task {task} needs a data set to learn from and a query, or --batch-key")
    first, *others = inputs
    to_itself = batch_key is None and first in others  # which shows how well a method fits
    names = [first.stem, *input_names(others)] if to_itself else input_names(inputs)
    parts = [(name, _read(path, options)) for name, path in zip(names, inputs)]
    if batch_key is not None:
        pairs = [pair for name, cite in parts for pair in queries.by_batch(name, cite, batch_key, config, device)]
    else:
        (name, train), *rest = parts
        pairs = [queries.Query(f"{name} to {other}", train, cite, config, device) for other, cite in rest]
    if task == "impute":
        _run(imputation.jobs(pairs, methods or list(imputation.DEFAULT), range(seeds)), out)
    else:
        assert labels_key is not None
        todo = transfers.jobs(
            pairs, methods or list(transfers.DEFAULT), range(seeds), labels_key=labels_key,
            mapping=mapping, shares=shares,
        )  # fmt: skip
        _run(todo, out)


@reads_counts
def ablate(
    what: Annotated[
        list[str], typer.Argument(metavar="[order|ttt|length|stages] INPUT...", help="study; labelled cells")
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

    Each variant is pretrained on three quarters of the cells. The others score how well it reconstructs hidden genes
    and proteins, predicts proteins from RNA and learns cell types from few labels; clusters are those of all cells.
    Variants that read other genes, such as those of the study length, are scored on their own genes: compare them by
    the other scores.

    The study ttt has TTT everywhere, in the encoders alone, in the fusion alone, nowhere, and attention everywhere.

    Example: scfusionttt ablate order pbmc.h5mu --labels-key cell_type --seeds 5
    Example: scfusionttt ablate pbmc.h5mu --labels-key cell_type --vary pretrain.mask_ratio=0.15,0.5,0.75
    """
    from scfusionttt.config import preset as named_preset

    config = named_preset(preset).with_settings(as_settings(settings))
    from scfusionttt.comparison.ablations import STUDY_NAMES, Variants, protocol_of
    from scfusionttt.comparison.tasks import tasks

    study = what[0] if what[0] in STUDY_NAMES or not vary else None
    inputs = [Path(text) for text in (what[1:] if study else what)]
    base = Variants(config, out / "models", device)
    variants = base.of_study(study) if study else []
    variants += [method for text in vary or [] for method in base.of_setting(text)]
    if not inputs:
        raise SettingError(f"no input given; use scfusionttt ablate {study} INPUT --labels-key KEY")
    _check(inputs, out)
    names = [protocol_of(study, vary or [])] if protocols is None else _listed(protocols)
    todo = tasks(names, _fractions(train_fractions))
    _compare(_datasets(inputs, labels_key, options), variants, todo, seeds, out, reference=variants[0].name)


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
    """Return the checked cells of an input, all of which have RNA; those without counts of it are left out."""
    from scfusionttt.data.cells import require_rna
    from scfusionttt.model.inputs import check_cells

    cite = check_cells(open_input(path, stream=False), drop_empty=True, **options)
    require_rna(cite, "comparing methods")
    return cite


def _datasets(
    inputs: list[Path], labels_key: str, options: CountOptions, batch_key: str | None = None
) -> "list[data.Cells]":
    from scfusionttt.comparison import cells as data
    from scfusionttt.data.store.write import input_names

    datasets = []
    for name, path in zip(input_names(inputs), inputs):
        dataset = data.Cells(name, _read(path, options), labels_key, batch_key)
        try:
            dataset.codes.max()  # invalid labels are reported before the first run, and so are batches
            dataset.batches.max()
        except LabelError as error:
            raise LabelError(f"{path}: {error}") from error
        datasets.append(dataset)
    return datasets


def _compare(
    datasets: "list[data.Cells]", methods: "list[Method]", todo: "list[Task]", seeds: int, out: Path,
    *, reference: str | None = None,
) -> None:  # fmt: skip
    """Run and score all methods; with a reference, also show how the others differ from it."""
    from scfusionttt.comparison.tasks import jobs

    _run(jobs(datasets, methods, todo, range(seeds)), out, reference=reference)


def _run(jobs: "Sequence[Job]", out: Path, *, reference: str | None = None) -> None:
    """Compute the rows, print the tables and write the results."""
    from scfusionttt.comparison import results, rows

    try:
        (out / "rows").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{out}: cannot be created ({error.strerror}); choose another folder") from error
    rows.run_all(jobs, out / "rows", show=typer.echo)
    scored = rows.comparable(rows.read_rows(out / "rows"), jobs)
    written = results.write(scored, out, reference=reference)
    for table in results.tables(scored, reference=reference):
        print_table(f"{table.protocol}: {table.caption}", table.rows)
    for path in written:
        typer.echo(f"{path}: written", err=True)


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _fractions(text: str) -> list[float]:
    try:
        fractions = [float(part) for part in _listed(text)]
    except ValueError as error:
        raise SettingError(f"--train-fractions must be numbers like 0.75,0.05 (got {text!r})") from error
    if not fractions or not all(0 < fraction < 1 for fraction in fractions):
        raise SettingError(f"--train-fractions must be between 0 and 1, like 0.75,0.05 (got {text!r})")
    return fractions
