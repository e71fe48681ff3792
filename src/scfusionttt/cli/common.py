"""What several verbs do: read cells, read settings, save, print."""

import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from scfusionttt.cli.options import Cells
from scfusionttt.cli.processes import is_first
from scfusionttt.errors import SettingError

if TYPE_CHECKING:
    import pandas as pd

    from scfusionttt.data.cells import CiteSeq


def load(
    path: Path,
    rna: str | None,
    protein: str | None,
    layer: str | None,
    cells: Cells,
    drop_empty: bool,
    *,
    stream: bool = True,
) -> tuple[Any, "CiteSeq"]:
    """Return what the file holds, and its checked cells; with `stream`, it may be a store."""
    from scfusionttt.data.assemble import as_citeseq
    from scfusionttt.data.validate import drop_empty as without_empty
    from scfusionttt.io.integrity import is_store
    from scfusionttt.io.read import read

    if stream and is_store(path):
        return _load_store(path, settled=any((rna, protein, layer, cells is Cells.overlap)))
    source = read(path)
    cite = as_citeseq(source, rna_modality=rna, protein_modality=protein, layer=layer, cells=cells.value)
    if drop_empty:
        cite, dropped = without_empty(cite)
        if dropped:
            typer.echo(f"{len(dropped)} empty cells left out: {', '.join(dropped)}", err=True)
    return source, cite


def _load_store(path: Path, *, settled: bool) -> tuple[Any, "CiteSeq"]:
    """Return what is known of a store's cells, and the store, which is streamed."""
    from anndata import AnnData

    from scfusionttt.data.store.stored import open_store

    if settled:
        raise SettingError(
            f"{path} is a store, in which modalities, layer and cells are settled; give these options to "
            "scfusionttt store"
        )
    cite = open_store(path)
    return AnnData(obs=cite.obs), cite


def as_settings(pairs: list[str] | None) -> dict[str, str]:
    """Return the pairs of ``--set section.key=value``."""
    for pair in pairs or []:
        if "=" not in pair:
            raise SettingError(f"--set {pair!r} has no value; write --set section.key=value")
    return dict(pair.split("=", 1) for pair in pairs or [])


def set_training(model: Any, pairs: list[str] | None) -> None:
    """Change the settings of a trained model that are still open: not its features, nor its network."""
    config = model.config.with_settings(as_settings(pairs))
    if (config.data, config.network) != (model.config.data, model.config.network):
        raise SettingError("--set data.* and network.* are settled by pretraining; give them to scfusionttt pretrain")
    model.config = config


def checkpoint_folder(out: Path, resume: bool, *, start: Path | None = None) -> Path:
    """Return the folder beside `out` that holds a run's state until the model is written; `start` is the one before."""
    from scfusionttt.io.atomic import check_target
    from scfusionttt.model.folder import is_model

    if start is not None and out.resolve() == start.resolve():
        raise SettingError(f"{out} is the model to start from; give --out another name")
    check_target(out, folder=True, ours=is_model)
    out = out if out.name else out.resolve()  # "." has no name
    folder = out.with_name(f"{out.name}.training")
    if folder.exists() and not resume and is_first():
        raise SettingError(f"{folder} holds a run that was stopped: go on with --resume, or remove that folder")
    return folder


def save(model: Any, out: Path, checkpoints: Path) -> None:
    """Write the model folder with the command that made it; the state of its run is no longer needed."""
    import shutil

    if not is_first():
        return
    model.save(out, command=command_line())
    shutil.rmtree(checkpoints, ignore_errors=True)
    typer.echo(f"{out}: written", err=True)


def command_line() -> str:
    """Return this call as a shell would take it again."""
    return shlex.join(["scfusionttt", *sys.argv[1:]])


def report_held_out(scores: dict[str, Any] | None, json_file: Path | None) -> None:
    """Print the scores on held-out cells beside those of logistic regression."""
    import pandas as pd

    if scores is None:
        scored = f"nothing is scored and {json_file} is not written" if json_file else "nothing is scored"
        typer.echo(f"no cells were held out, so {scored}; use --train-fraction or --split", err=True)
        return
    rows = {"scFusionTTT": scores["metrics"]}
    if "logistic_regression" in scores:
        rows["logistic regression"] = scores["logistic_regression"]["metrics"]
    metrics = pd.DataFrame.from_dict(rows, orient="index").drop(columns="ece")
    print_table(f"held-out: {scores['n_cells']} cells whose labels were not learned; the same split for both", metrics)
    print_table("held-out, by class", pd.DataFrame.from_dict(scores["per_class"], orient="index"))
    write_json(json_file, scores)


def print_table(title: str, table: "pd.DataFrame") -> None:
    """Print a table as wide as it needs."""
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


def write_json(path: Path | None, value: Any) -> None:
    """Write plain values as JSON, if a file was named."""
    if path is None or not is_first():
        return
    from scfusionttt.io.atomic import replacing

    with replacing(path) as temporary:
        temporary.write_text(json.dumps(value, indent=1), encoding="utf-8")
