"""Compare scFusionTTT with baselines, and with variants of itself."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scfusionttt.cli.common import as_settings, check_input, open_input, print_table
from scfusionttt.cli.options import (
    Compute,
    Device,
    Labels,
    Layer,
    Preset,
    Protein,
    Rna,
    Round,
    Settings,
    WhichCells,
    input_options,
)
from scfusionttt.errors import LabelError, OutputError, SettingError

if TYPE_CHECKING:
    from scfusionttt.comparison import cells as data
    from scfusionttt.comparison.methods import Method
    from scfusionttt.comparison.tasks import Task

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
    typer.Option("--protocols", metavar="NAME,...", help="any of unsupervised, held-out, paper, ablation"),
]


def benchmark(
    inputs: Annotated[list[Path], typer.Argument(metavar="INPUT...", help="CITE-seq data sets with labels")],
    labels_key: Labels,
    out: OutFolder = Path("benchmark"),
    methods: Annotated[
        str | None, typer.Option("--methods", metavar="NAME,...", help="methods; default: all but the slow ones")
    ] = None,
    batch_key: Annotated[
        str | None,
        typer.Option("--batch-key", metavar="KEY", help="obs column with batches, which some methods remove"),
    ] = None,
    seeds: Seeds = 5, protocols: Protocols = None, train_fractions: Fractions = "0.75,0.05",
    settings: Settings = None, device: Compute = Device.auto,
    layer: Layer = None, rna_modality: Rna = None, protein_modality: Protein = None, cells: WhichCells = None,
    round: Round = False,
) -> None:  # fmt: skip
    """Compare scFusionTTT with other methods: same cells, same clustering, same metrics; no table for two protocols.

    By default these are unsupervised (no labels) and held-out (cell types of cells whose labels were not used); paper
    scores as published, which only shows something with presets that train on labels, such as paper and scmmae.

    With --batch-key, fusionttt, totalvi and concat_harmony remove the effects of the batches, and the unsupervised
    protocol also scores how batches mix and cell types are kept (scIB).

    Scores that are in the folder already are not computed again, so an interrupted run continues where it stopped.
    --set changes the settings of scFusionTTT; use another folder for other settings.

    Example: scfusionttt benchmark pbmc.h5mu --labels-key cell_type --methods fusionttt,concat,wnn --out results
    """
    _check(inputs, out)
    changed = as_settings(settings)
    from scfusionttt.comparison.methods import DEFAULT, OF_BATCHES, choose
    from scfusionttt.comparison.tasks import BENCHMARK_PROTOCOLS, tasks

    names = [*DEFAULT, *(OF_BATCHES if batch_key else ())] if methods is None else _listed(methods)
    chosen = choose(names, models=out / "models", settings=changed, device=device.value)
    todo = tasks(list(BENCHMARK_PROTOCOLS) if protocols is None else _listed(protocols), _numbers(train_fractions))
    options = input_options(layer, rna_modality, protein_modality, cells, drop_empty=True, round=round)
    _compare(_datasets(inputs, labels_key, options, batch_key), chosen, todo, seeds, out)


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
    settings: Settings = None, device: Compute = Device.auto,
    layer: Layer = None, rna_modality: Rna = None, protein_modality: Protein = None, cells: WhichCells = None,
    round: Round = False,
) -> None:  # fmt: skip
    """Compare variants of scFusionTTT: means over seeds, and differences from the first variant, paired by seed.

    Each variant is pretrained on three quarters of the cells. The others score how well it reconstructs hidden genes
    and proteins, predicts proteins from RNA and learns cell types from few labels; clusters are those of all cells.

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
    base = Variants(config, out / "models", device.value)
    variants = base.of_study(study) if study else []
    variants += [method for text in vary or [] for method in base.of_setting(text)]
    if not inputs:
        raise SettingError(f"no input given; use scfusionttt ablate {study} INPUT --labels-key KEY")
    _check(inputs, out)
    names = [protocol_of(study, vary or [])] if protocols is None else _listed(protocols)
    todo = tasks(names, _numbers(train_fractions))
    options = input_options(layer, rna_modality, protein_modality, cells, drop_empty=True, round=round)
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


def _datasets(
    inputs: list[Path], labels_key: str, options: dict[str, Any], batch_key: str | None = None
) -> "list[data.Cells]":
    from scfusionttt.comparison import cells as data
    from scfusionttt.model.pipeline import check_cells

    names = [path.stem for path in inputs]
    for name in names:
        if names.count(name) > 1:
            raise SettingError(f"two inputs are named {name}; rename one, as the result tables identify them by name")
    datasets = []
    for name, path in zip(names, inputs):
        dataset = data.Cells(name, check_cells(open_input(path, stream=False), **options), labels_key, batch_key)
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
    from scfusionttt.comparison import results, rows

    jobs = rows.jobs(datasets, methods, todo, range(seeds))
    if not jobs:
        raise SettingError("none of the methods works with these protocols; see scfusionttt benchmark --help")
    try:
        (out / "rows").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{out}: cannot be created ({error.strerror}); choose another folder") from error
    rows.run_all(jobs, out / "rows", show=typer.echo)
    scored = rows.read_rows(out / "rows")
    for table in results.tables(scored, reference=reference):
        print_table(f"{table.protocol}: {table.caption}", table.rows)
    for path in results.write(scored, out, reference=reference):
        typer.echo(f"{path}: written", err=True)


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _numbers(text: str) -> list[float]:
    try:
        return [float(part) for part in _listed(text)]
    except ValueError as error:
        raise SettingError(f"--train-fractions must be numbers like 0.75,0.05 (got {text!r})") from error
