"""The command line: one short function per verb; files in, files out, no prompts.

Exit codes: 0 done, 1 internal error, 2 the input or the call is at fault (one line on stderr), 130 interrupted,
143 terminated.
"""

import json
import logging
import signal
import sys
import warnings
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scfusionttt.errors import SettingError, UserError

if TYPE_CHECKING:
    import pandas as pd

    from scfusionttt.data.citeseq import CiteSeq

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode="rich", pretty_exceptions_enable=False)
INTERRUPTED, TERMINATED = 130, 143


class Terminated(BaseException):
    """SIGTERM came: a cluster's time limit, or a shutdown."""


class Device(StrEnum):
    """Where to compute."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"
    mps = "mps"


class Space(StrEnum):
    """Where the geometric metrics are computed."""

    rep = "rep"
    umap = "umap"


class Cells(StrEnum):
    """What to do where RNA and proteins are of different cells."""

    same = "same"
    overlap = "overlap"
    rna = "rna"


Input = Annotated[Path, typer.Argument(metavar="INPUT", help=".h5mu, .h5ad, .zarr, 10x .h5 or 10x matrix folder")]
Model = Annotated[Path, typer.Option("--model", metavar="MODEL", help="model folder")]
OutModel = Annotated[Path, typer.Option("--out", metavar="MODEL", help="model folder to write")]
OutFile = Annotated[Path, typer.Option("--out", metavar="FILE", help="file to write")]
Json = Annotated[Path | None, typer.Option("--json", metavar="FILE", help="also write the result as JSON")]
Labels = Annotated[str, typer.Option("--labels", metavar="KEY", help="obs column with cell types")]
Fraction = Annotated[
    float | None,
    typer.Option("--train-fraction", metavar="F", help="train on this share of each class, score the rest"),
]
Split = Annotated[str | None, typer.Option("--split", metavar="KEY", help="obs column that says train or test")]
Settings = Annotated[
    list[str] | None, typer.Option("--set", metavar="SECTION.KEY=VALUE", help="change a setting; may be repeated")
]
Compute = Annotated[Device, typer.Option("--device", help="where to compute")]
Memory = Annotated[
    str | None,
    typer.Option("--memory", metavar="SIZE", help="most memory to take: 6GiB, 4GB; 80 % of what is free if not given"),
]
Resume = Annotated[bool, typer.Option("--resume", help="go on with a run that was stopped")]
Rna = Annotated[str | None, typer.Option("--rna-modality", metavar="NAME", help="modality that holds the RNA")]
Protein = Annotated[
    str | None,
    typer.Option("--protein-modality", metavar="NAME", help="modality (or obsm key) that holds the proteins"),
]
Layer = Annotated[str | None, typer.Option("--layer", metavar="NAME", help="layer that holds the raw counts")]
WhichCells = Annotated[Cells, typer.Option("--cells", help="which cells, where RNA and proteins differ")]
DropEmpty = Annotated[bool, typer.Option("--drop-empty", help="leave out cells without RNA counts, naming them")]


def main() -> None:
    """Run the command line."""
    notes = logging.getLogger("scfusionttt")
    notes.handlers, notes.propagate = [logging.StreamHandler()], False
    notes.setLevel(logging.INFO)
    warnings.simplefilter("ignore")
    warnings.filterwarnings("default", category=UserWarning, module=r"scfusionttt\.|__main__")
    warnings.showwarning = _show_warning
    signal.signal(signal.SIGTERM, _terminate)
    try:
        code = app(standalone_mode=False, prog_name="scfusionttt") or 0
        if code == INTERRUPTED:  # how the argument parser tells of Ctrl+C
            raise KeyboardInterrupt
        sys.exit(code)
    except UserError as error:
        _fail(str(error), 2)
    except (KeyboardInterrupt, typer.Abort):
        _fail("interrupted; a training run goes on with --resume", INTERRUPTED)
    except Terminated:
        _fail("terminated; a training run goes on with --resume", TERMINATED)
    except Exception as error:
        # Usage errors of the argument parser: they have a message of their own.
        if not hasattr(error, "format_message"):
            raise
        told, context = error.format_message(), getattr(error, "ctx", None)
        verb = context.command_path if context else "scfusionttt"
        _fail(f"{told.splitlines()[0].rstrip('.')}; see {verb} --help", 2) if told else sys.exit(2)


@app.command()
def demo(out: Annotated[Path, typer.Option("--out", metavar="DIR", help="folder to write")] = Path("demo")) -> None:
    """Simulated CITE-seq through all three stages: metrics, figures and one HTML page.

    Example: scfusionttt demo --out demo
    """
    from scfusionttt.demo import run_demo

    page = run_demo(out, show=_print_table)
    typer.echo(f"open {page} in a browser")


@app.command()
def validate(
    input: Input, rna: Rna = None, protein: Protein = None, layer: Layer = None, cells: WhichCells = Cells.same,
    json_file: Json = None,
) -> None:  # fmt: skip
    """Say what is in a file, what is odd about it and whether it can be used.

    Example: scfusionttt validate pbmc.h5mu --json report.json
    """
    from scfusionttt.data.validate import require_usable
    from scfusionttt.data.validate import validate as check_input

    report = check_input(input, rna_modality=rna, protein_modality=protein, layer=layer, cells=cells.value)
    for line in report.lines():
        typer.echo(line)
    _write_json(json_file, report.to_dict())
    require_usable(report)


@app.command()
def pretrain(
    input: Input, out: OutModel,
    preset: Annotated[str, typer.Option(help="default, paper, whole or fast")] = "default",
    settings: Settings = None,
    config: Annotated[Path | None, typer.Option("--config", metavar="FILE", help="settings as TOML")] = None,
    epochs: Annotated[int | None, typer.Option(help="short for --set pretrain.epochs=N")] = None,
    seed: Annotated[int | None, typer.Option(help="short for --set seed=N")] = None,
    species: Annotated[str | None, typer.Option(help="human or mouse; by the gene names if not given")] = None,
    device: Compute = Device.auto, memory: Memory = None, resume: Resume = False, drop_empty: DropEmpty = False,
    rna: Rna = None, protein: Protein = None, layer: Layer = None, cells: WhichCells = Cells.same,
) -> None:  # fmt: skip
    """Stage 1: learn the fused representation from CITE-seq (or RNA alone), without labels.

    Example: scfusionttt pretrain pbmc.h5mu --out pbmc-model --seed 1
    """
    from scfusionttt.config import read_toml
    from scfusionttt.model import FusionTTT

    given = read_toml(config) if config else {}
    short = {"pretrain.epochs": epochs, "seed": seed}
    changed = _settings(settings) | {name: value for name, value in short.items() if value is not None}
    model = FusionTTT(preset, device=device.value, memory=memory)
    model.config = model.config.with_settings({**given, **changed})
    checkpoints = _checkpoints(out, resume)
    _, cite = _load(input, rna, protein, layer, cells, drop_empty)
    model.pretrain(cite, species=species, checkpoints=checkpoints, resume=resume)
    _save(model, out, checkpoints)


@app.command()
def finetune(
    input: Input, model: Model, labels: Labels, out: OutModel, train_fraction: Fraction = None, split: Split = None,
    settings: Settings = None, device: Compute = Device.auto, memory: Memory = None, resume: Resume = False,
    drop_empty: DropEmpty = False, rna: Rna = None, protein: Protein = None, layer: Layer = None,
    cells: WhichCells = Cells.same, json_file: Json = None,
) -> None:  # fmt: skip
    """Stage 2: learn cell types from labelled CITE-seq, starting from a pretrained model.

    Example: scfusionttt finetune pbmc.h5mu --model pbmc-model --labels cell_type --train-fraction 0.75 --out typed
    """
    from scfusionttt.model import FusionTTT

    trained = FusionTTT.load(model, device=device.value, memory=memory)
    _set_training(trained, settings)
    checkpoints = _checkpoints(out, resume)
    _, cite = _load(input, rna, protein, layer, cells, drop_empty)
    trained.finetune(
        cite, labels=labels, train_fraction=train_fraction, split=split, checkpoints=checkpoints, resume=resume
    )
    _save(trained, out, checkpoints)
    _report_held_out(trained.metrics.get("finetune"), json_file)


@app.command()
def transfer(
    input: Input, model: Model, out: OutModel,
    labels: Annotated[str | None, typer.Option("--labels", metavar="KEY", help="cell types; none: zero-shot")] = None,
    train_fraction: Fraction = None, split: Split = None,
    settings: Settings = None, device: Compute = Device.auto, memory: Memory = None, resume: Resume = False,
    drop_empty: DropEmpty = False, rna: Rna = None, layer: Layer = None, json_file: Json = None,
) -> None:  # fmt: skip
    """Stage 3: carry a fine-tuned model over to RNA-only data, with some labels or with none (zero-shot).

    Example: scfusionttt transfer rna.h5ad --model typed --labels cell_type --train-fraction 0.3 --out student
    """
    from scfusionttt.model import FusionTTT

    trained = FusionTTT.load(model, device=device.value, memory=memory)
    _set_training(trained, settings)
    checkpoints = _checkpoints(out, resume)
    _, cite = _load(input, rna, None, layer, Cells.rna, drop_empty)
    student = trained.transfer(
        cite, labels=labels, train_fraction=train_fraction, split=split, checkpoints=checkpoints, resume=resume
    )
    _save(student, out, checkpoints)
    if labels is not None:
        _report_held_out(student.metrics.get("transfer"), json_file)


@app.command()
def embed(
    input: Input, model: Model, out: OutFile, device: Compute = Device.auto, drop_empty: DropEmpty = False,
    rna: Rna = None, protein: Protein = None, layer: Layer = None, cells: WhichCells = Cells.same,
) -> None:  # fmt: skip
    """Write the fused representation: .npy, .csv, or .h5ad, .h5mu, .zarr with obsm["X_fusionttt"], by the ending.

    Example: scfusionttt embed pbmc.h5mu --model pbmc-model --out fused.h5mu
    """
    from scfusionttt.data.write import check_embedding_path, write_embedding
    from scfusionttt.model import FusionTTT

    check_embedding_path(out)
    trained = FusionTTT.load(model, device=device.value)
    source, cite = _load(input, rna, protein, layer, cells, drop_empty)
    check_embedding_path(out, source)
    z = trained.embed(cite)
    write_embedding(out, z, cite.rna.obs_names, source, rna_modality=rna)
    typer.echo(f"{out}: {z.shape[0]} cells, {z.shape[1]} dimensions", err=True)


@app.command()
def predict(
    input: Input, model: Model, out: OutFile, device: Compute = Device.auto, drop_empty: DropEmpty = False,
    rna: Rna = None, protein: Protein = None, layer: Layer = None, cells: WhichCells = Cells.same,
) -> None:  # fmt: skip
    """Name the cells: a table with cell, label, probability and one column per class.

    Example: scfusionttt predict rna.h5ad --model typed --out types.csv
    """
    from scfusionttt.data.write import check_table_path, write_table
    from scfusionttt.model import FusionTTT

    check_table_path(out)
    trained = FusionTTT.load(model, device=device.value)
    _, cite = _load(input, rna, protein, layer, cells, drop_empty)
    table = trained.predict(cite)
    write_table(out, table)
    typer.echo(f"{out}: {len(table)} cells, {len(trained.classes)} classes", err=True)
    counts = table["label"].value_counts()
    for name, count in counts[counts > 0].items():
        typer.echo(f"{count:8d}  {name}")


@app.command()
def evaluate(
    input: Input, labels: Labels,
    rep: Annotated[str | None, typer.Option(metavar="KEY", help="obsm key; X_fusionttt if neither is given")] = None,
    clusters: Annotated[str | None, typer.Option(metavar="KEY", help="obs column with clusters to score")] = None,
    space: Annotated[Space, typer.Option(help="space of ASW, SC, CHI and DBI; umap is the paper's way")] = Space.rep,
    json_file: Json = None,
) -> None:  # fmt: skip
    """Score a representation or clusters against labels by the ten metrics.

    Example: scfusionttt evaluate fused.h5mu --labels cell_type --rep X_fusionttt
    """
    from scfusionttt.data.read import read
    from scfusionttt.evaluation.slots import evaluate_slots

    result = evaluate_slots(read(input), labels=labels, rep=rep, clusters=clusters, space=space.value)
    note = f", {result.n_unlabelled} unlabelled left out" if result.n_unlabelled else ""
    title = f"{result.protocol} protocol: {result.n_cells} cells, {result.n_classes} classes{note}"
    _print_table(title, result.summary())
    _write_json(json_file, result.to_dict())


@app.command()
def genes(
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="genes or antibodies")],
    species: Annotated[str | None, typer.Option(help="human or mouse; by the names if not given")] = None,
) -> None:
    """Show how names of genes and antibodies resolve, and where they lie in the genome.

    Example: scfusionttt genes CD3E ENSG00000167286 CD16_TotalSeqB
    """
    from scfusionttt.genome import describe

    table = describe(names, species=species)
    _print_table("", table.set_index("name").astype(object).where(table.set_index("name").notna(), "-"))


@app.command()
def doctor(json_file: Json = None) -> None:
    """Show versions, devices and kernels: parity of each with the definition, and its speed.

    Example: scfusionttt doctor --json doctor.json
    """
    from scfusionttt.doctor import examine

    result = examine()
    for name, value in {**result["versions"], **result["devices"]}.items():
        typer.echo(f"{name:14} {value}")
    import pandas as pd

    _print_table("TTT kernels", pd.DataFrame(result["kernels"]).set_index("kernel"))
    _write_json(json_file, result)


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[bool, typer.Option("--version", help="show the version and leave")] = False,
) -> None:
    """Fuse RNA and surface proteins of CITE-seq cells, name the cells, and carry that over to RNA-only data."""
    if version:
        from scfusionttt import __version__

        typer.echo(__version__)
        raise typer.Exit


def _load(
    path: Path, rna: str | None, protein: str | None, layer: str | None, cells: Cells, drop_empty: bool
) -> tuple[Any, "CiteSeq"]:
    """Return what the file holds, and its checked cells."""
    from scfusionttt.data.citeseq import as_citeseq
    from scfusionttt.data.read import read
    from scfusionttt.data.validate import drop_empty as without_empty

    source = read(path)
    cite = as_citeseq(source, rna_modality=rna, protein_modality=protein, layer=layer, cells=cells.value)
    if drop_empty:
        cite, dropped = without_empty(cite)
        if dropped:
            typer.echo(f"{len(dropped)} empty cells left out: {', '.join(dropped)}", err=True)
    return source, cite


def _settings(pairs: list[str] | None) -> dict[str, str]:
    for pair in pairs or []:
        if "=" not in pair:
            raise SettingError(f"--set {pair!r} has no value; write --set section.key=value")
    return dict(pair.split("=", 1) for pair in pairs or [])


def _set_training(model: Any, pairs: list[str] | None) -> None:
    """Change the settings of a trained model that are still open: not its features, nor its network."""
    config = model.config.with_settings(_settings(pairs))
    if (config.data, config.network) != (model.config.data, model.config.network):
        raise SettingError("--set data.* and network.* are settled by pretraining; give them to scfusionttt pretrain")
    model.config = config


def _checkpoints(out: Path, resume: bool) -> Path:
    """Return the folder beside `out` that holds a run's state until the model is written."""
    from scfusionttt.data.atomic import check_target

    check_target(out, folder=True)
    folder = out.with_name(f"{out.name}.training")
    if folder.exists() and not resume:
        raise SettingError(f"{folder} holds a run that was stopped: go on with --resume, or remove that folder")
    return folder


def _save(model: Any, out: Path, checkpoints: Path) -> None:
    import shutil

    model.save(out)
    shutil.rmtree(checkpoints, ignore_errors=True)
    typer.echo(f"{out}: written", err=True)


def _report_held_out(scores: dict[str, Any] | None, json_file: Path | None) -> None:
    import pandas as pd

    if scores is None:
        typer.echo("no cells were held out, so nothing is scored; use --train-fraction or --split", err=True)
        return
    rows = {"scFusionTTT": scores["metrics"], "logistic regression": scores["logistic_regression"]["metrics"]}
    metrics = pd.DataFrame.from_dict(rows, orient="index").drop(columns="ece")
    _print_table(f"held-out: {scores['n_cells']} cells never trained on; the same split for both", metrics)
    _print_table("held-out, by class", pd.DataFrame.from_dict(scores["per_class"], orient="index"))
    _write_json(json_file, scores)


def _print_table(title: str, table: "pd.DataFrame") -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    shown = Table(title=title or None, title_justify="left", box=box.SIMPLE, collapse_padding=True, pad_edge=False)
    shown.add_column(str(table.index.name or ""))
    for column in table.columns:
        shown.add_column(str(column), justify="right")
    for name, row in zip(table.index, table.itertuples(index=False), strict=True):
        shown.add_row(str(name), *(f"{value:.3f}" if isinstance(value, float) else str(value) for value in row))
    needed = Console(width=1000).measure(shown).maximum  # a name or a number is never cut off
    Console(width=max(needed, len(title))).print(shown)


def _write_json(path: Path | None, value: Any) -> None:
    if path is None:
        return
    from scfusionttt.data.atomic import replacing

    with replacing(path) as temporary:
        temporary.write_text(json.dumps(value, indent=1), encoding="utf-8")


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    typer.echo(f"warning: {message}", err=True)


def _terminate(*_: Any) -> None:
    raise Terminated


def _fail(message: str, code: int) -> None:
    typer.echo(f"scfusionttt: {' '.join(message.split())}", err=True)
    sys.exit(code)


if __name__ == "__main__":
    main()
