"""Steps that several verbs share: read input and settings, save, print."""

import json
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from scfusionttt.cli.interrupts import has_checkpoint, stoppable
from scfusionttt.cli.options import InputOptions
from scfusionttt.cli.processes import is_first
from scfusionttt.errors import InputFileError, OutputError, SettingError

if TYPE_CHECKING:
    import pandas as pd

    from scfusionttt.config import Config
    from scfusionttt.data.cells import CiteSeq


def open_input(path: Path, *, stream: bool = True) -> Any:
    """Return what a file holds as AnnData or MuData; with `stream`, it may also be a store."""
    from scfusionttt.data.store.stored import open_store
    from scfusionttt.io.integrity import is_store
    from scfusionttt.io.read import read

    return open_store(path) if stream and is_store(path) else read(path)


def as_settings(pairs: list[str] | None) -> dict[str, str]:
    """Return the pairs of ``--set section.key=value``."""
    for pair in pairs or []:
        if "=" not in pair:
            raise SettingError(f"--set {pair!r} has no value; write --set section.key=value")
    return dict(pair.split("=", 1) for pair in pairs or [])


def listed(text: str) -> list[str]:
    """Return the parts of a text between commas."""
    return [part.strip() for part in text.split(",") if part.strip()]


def check_input(path: Path) -> None:
    """Report a missing input before torch is loaded."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputFileError(f"{path}: no such file; check the path") from error
    except OSError:  # reading gives the reason
        return


def check_model(folder: Path, input: Path) -> None:
    """Report a missing model or input before anything heavy is loaded."""
    from scfusionttt.model.folder import read_manifest

    check_input(input)
    read_manifest(folder)


def load_model(folder: Path, input: Path, **options: Any) -> Any:
    """Return a model; a missing model or input is reported before torch is loaded."""
    check_model(folder, input)
    from scfusionttt.model.fusionttt import FusionTTT

    return FusionTTT.load(folder, **options)


def check_out(input: Path, out: Path, endings: tuple[str, ...]) -> None:
    """Check, before any work is done, that a result can be written to `out` and is not the input."""
    from scfusionttt.data.write import check_result_path

    if out.resolve() == input.resolve():
        raise OutputError(f"{out} is the input; choose another name for --out")
    check_result_path(out, endings)


def load_cells(input: Path, out: Path, endings: tuple[str, ...], options: InputOptions) -> tuple["CiteSeq", Any]:
    """Return the checked cells of an input, and the AnnData or MuData that results are written into."""
    from anndata import AnnData
    from mudata import MuData

    from scfusionttt.data.cells import has_rna
    from scfusionttt.data.store.stored import StoredCiteSeq
    from scfusionttt.data.write import check_result_path
    from scfusionttt.model.inputs import check_cells

    data = open_input(input)
    source = AnnData(obs=data.obs) if isinstance(data, StoredCiteSeq) else data
    ending = check_result_path(out, endings, source, rna_modality=options.get("rna_modality"))
    cite = check_cells(data, **options)
    if ending == ".h5ad" and isinstance(source, MuData) and not has_rna(cite.rna).all():
        raise OutputError(f"{out}: an .h5ad file has the cells of the RNA alone; use .h5mu, .zarr or .csv")
    return cite, source


def training_config(folder: Path, pairs: list[str] | None) -> "Config":
    """Return the settings of a model folder, with changes to those that pretraining did not use."""
    from scfusionttt.config.rules import refuse_other_training
    from scfusionttt.model.folder import read_config

    before = read_config(folder)
    after = before.with_settings(as_settings(pairs))
    refuse_other_training(before, after)
    return after


@contextmanager
def run_folder(out: Path, *, resume: bool, overwrite: bool, start: Path | None = None) -> Iterator[Path]:
    """Yield the folder for the state of a run until its model is written to `out`, locked against a second run.

    `start` is the model that the run begins with. A resumed run replaces an earlier model if the interrupted run would
    have done so.
    """
    from scfusionttt.cli.lock import locked
    from scfusionttt.model.folder import check_model_path

    if start is not None and out.resolve() == start.resolve():
        raise SettingError(f"{out} is the model to start from; choose another name for --out")
    out = out if out.name else out.resolve()  # "." has no name
    folder = out.with_name(f"{out.name}.training")
    check_model_path(out, overwrite=overwrite or (resume and folder.is_dir()))
    if not is_first():
        yield folder
        return
    with locked(folder), stoppable(folder):
        if has_checkpoint(folder) and not resume:
            raise SettingError(f"{folder} is from an interrupted run: continue it with --resume, or remove the folder")
        yield folder


def save(model: Any, out: Path, checkpoints: Path, *, overwrite: bool) -> None:
    """Write the model folder with the command that made it, and remove the state of the run."""
    import shutil

    if not is_first():
        return
    save_model(model, out, overwrite=overwrite)
    shutil.rmtree(checkpoints, ignore_errors=True)


def save_model(model: Any, out: Path, *, overwrite: bool) -> None:
    """Write the model folder with the command that made it."""
    model.save(out, overwrite=overwrite, command=command_line())
    typer.echo(f"{out}: written", err=True)


def command_line() -> str:
    """Return the command line of this process."""
    return shlex.join(["scfusionttt", *sys.argv[1:]])


def report_held_out(scores: dict[str, Any] | None, json_file: Path | None) -> None:
    """Print the scores on held-out cells, with those of logistic regression if they were computed."""
    import pandas as pd

    if scores is None:
        not_written = f", and {json_file} is not written" if json_file else ""
        typer.echo(f"no cells were held out: no scores{not_written}; use --train-fraction or --split", err=True)
        return
    write_json(json_file, scores)
    rows = {"scFusionTTT": scores["metrics"]}
    if "logistic_regression" in scores:
        rows["logistic regression"] = scores["logistic_regression"]["metrics"]
    metrics = pd.DataFrame.from_dict(rows, orient="index").drop(columns="ece")
    print_table(f"held-out protocol: {scores['n_cells']} labelled cells not used for training", metrics)
    print_table("held-out protocol, by class", pd.DataFrame.from_dict(scores["per_class"], orient="index"))


def print_table(title: str, table: "pd.DataFrame") -> None:
    """Print a table without cutting names or numbers."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    if title:
        typer.echo(title)
    shown = Table(box=box.SIMPLE, collapse_padding=True, pad_edge=False)
    shown.add_column(str(table.index.name or ""))
    for column in table.columns:
        shown.add_column(str(column), justify="right")
    for name, row in zip(table.index, table.itertuples(index=False), strict=True):
        shown.add_row(str(name), *(f"{value:.3f}" if isinstance(value, float) else str(value) for value in row))
    console = Console(width=1000, markup=False, emoji=False)  # names such as "T [activated]" are no markup
    console.width = console.measure(shown).maximum
    console.print(shown)


def write_json(path: Path | None, value: Any) -> None:
    """Write plain values as JSON, if a file was given."""
    if path is None or not is_first():
        return
    from scfusionttt.io.atomic import replacing

    with replacing(path) as temporary:
        temporary.write_text(json.dumps(value, indent=1), encoding="utf-8")
