"""Our model against its peers, and against itself with one thing changed."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scfusionttt.cli.common import as_settings, load, print_table
from scfusionttt.cli.options import Cells, Compute, Device, Labels, Layer, Protein, Rna, Settings, WhichCells
from scfusionttt.errors import LabelError, SettingError

if TYPE_CHECKING:
    from scfusionttt.comparison import cells as data
    from scfusionttt.comparison.methods import Method
    from scfusionttt.comparison.tasks import Task

Seeds = Annotated[int, typer.Option("--seeds", metavar="N", min=1, help="runs of each method, with seeds 0 to N - 1")]
OutFolder = Annotated[Path, typer.Option("--out", metavar="DIR", help="folder for rows, models and results")]
Shares = Annotated[str, typer.Option("--shares", metavar="F,...", help="shares of the labels to learn types from")]
Protocols = Annotated[str | None, typer.Option("--protocols", metavar="NAME,...", help="unsupervised, held-out, paper")]


def benchmark(
    inputs: Annotated[list[Path], typer.Argument(metavar="INPUT...", help="CITE-seq data sets with labels")],
    labels: Labels,
    out: OutFolder = Path("benchmark"),
    methods: Annotated[
        str | None, typer.Option("--methods", metavar="NAME,...", help="methods to compare; all but slow presets")
    ] = None,
    seeds: Seeds = 5, protocols: Protocols = None, shares: Shares = "0.75,0.05",
    settings: Settings = None, device: Compute = Device.auto,
    rna: Rna = None, protein: Protein = None, layer: Layer = None, cells: WhichCells = Cells.same,
) -> None:  # fmt: skip
    """Compare our model with its peers: same cells, same clustering, same metrics; three protocols, never mixed.

    A row that is in the folder already is not computed again: a stopped run goes on where it was. What changes with
    --set is our model alone; another version of it wants another folder.

    Example: scfusionttt benchmark pbmc.h5mu --labels cell_type --methods fusionttt,concat,wnn --seeds 5 --out results
    """
    from scfusionttt.comparison.methods import DEFAULT, choose
    from scfusionttt.comparison.tasks import PROTOCOLS, tasks

    names = list(DEFAULT) if methods is None else _listed(methods)
    chosen = choose(names, models=out / "models", settings=as_settings(settings), device=device.value)
    todo = tasks(list(PROTOCOLS) if protocols is None else _listed(protocols), _numbers(shares))
    _compare(_datasets(inputs, labels, rna, protein, layer, cells), chosen, todo, seeds, out, interval=False)


def ablate(
    what: Annotated[
        list[str], typer.Argument(metavar="[order|mixer|fusion|stages|length] INPUT...", help="study, and data sets")
    ],
    labels: Labels,
    vary: Annotated[
        list[str] | None, typer.Option("--vary", metavar="SECTION.KEY=V1,V2,...", help="vary a setting; repeatable")
    ] = None,
    out: OutFolder = Path("ablation"),
    preset: Annotated[str, typer.Option(help="where the variants start from")] = "default",
    seeds: Seeds = 5, protocols: Protocols = None, shares: Shares = "0.75,0.05",
    settings: Settings = None, device: Compute = Device.auto,
    rna: Rna = None, protein: Protein = None, layer: Layer = None, cells: WhichCells = Cells.same,
) -> None:  # fmt: skip
    """Change one thing of our model at a time: means with 95 % intervals over seeds.

    Example: scfusionttt ablate order pbmc.h5mu --labels cell_type --seeds 5
    Example: scfusionttt ablate pbmc.h5mu --labels cell_type --vary pretrain.mask_ratio=0.15,0.5,0.75
    """
    from scfusionttt.comparison.ablations import STUDY_NAMES, Variants, protocol_of
    from scfusionttt.comparison.tasks import tasks
    from scfusionttt.config import preset as named_preset

    study = what[0] if what[0] in STUDY_NAMES or not vary else None
    inputs = [Path(text) for text in (what[1:] if study else what)]
    base = Variants(named_preset(preset).with_settings(as_settings(settings)), out / "models", device.value)
    variants = base.of_study(study) if study else []
    variants += [method for text in vary or [] for method in base.of_setting(text)]
    if not inputs:
        raise SettingError(f"no input is given; write scfusionttt ablate {study} INPUT --labels KEY")
    told = [protocol_of(study, vary or [])] if protocols is None else _listed(protocols)
    todo = tasks(told, _numbers(shares))
    _compare(_datasets(inputs, labels, rna, protein, layer, cells), variants, todo, seeds, out, interval=True)


def _datasets(
    inputs: list[Path], labels: str, rna: str | None, protein: str | None, layer: str | None, cells: Cells
) -> "list[data.Cells]":
    from scfusionttt.comparison import cells as data

    names = [path.stem for path in inputs]
    for name in names:
        if names.count(name) > 1:
            raise SettingError(f"two inputs are called {name}; rename one, for the tables tell them by that name")
    found = []
    for name, path in zip(names, inputs):
        _, cite = load(path, rna, protein, layer, cells, drop_empty=True, stream=False)
        found.append(data.Cells(name, cite, labels))
        try:
            found[-1].codes.max()  # labels that cannot be used are told of before the first row, not in it
        except LabelError as error:
            raise LabelError(f"{path}: {error}") from error
    return found


def _compare(
    datasets: "list[data.Cells]", methods: "list[Method]", todo: "list[Task]", seeds: int, out: Path, *, interval: bool
) -> None:
    from scfusionttt.comparison import results, rows
    from scfusionttt.errors import OutputError

    jobs = rows.jobs(datasets, methods, todo, range(seeds))
    if not jobs:
        raise SettingError("none of the methods can be scored by these protocols; see scfusionttt benchmark --help")
    try:
        (out / "rows").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{out}: cannot be made ({error.strerror}); choose another folder") from error
    rows.run_all(jobs, out / "rows", show=typer.echo)
    scored = rows.read_rows(out / "rows")
    for table in results.tables(scored, interval=interval):
        print_table(f"{table.protocol}: {table.caption}", table.rows)
    for path in results.write(scored, out, interval=interval):
        typer.echo(f"{path}: written", err=True)


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _numbers(text: str) -> list[float]:
    try:
        return [float(part) for part in _listed(text)]
    except ValueError as error:
        raise SettingError(f"--shares {text!r} is not a list of numbers, such as 0.75,0.05") from error
