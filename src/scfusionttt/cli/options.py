"""Arguments and options that several verbs share."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from scfusionttt.errors import OutputError


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


def _json_path(path: Path | None) -> Path | None:
    """Check before the work where the result goes to."""
    if path is not None:
        from scfusionttt.io.tables import JSON_ENDINGS, check_file_path
        from scfusionttt.model.folder import is_model

        check_file_path(path, JSON_ENDINGS)
        if is_model(path.parent):
            raise OutputError(f"{path}: {path.parent} is a model, and nothing else is written there; choose another")
    return path


def _device(device: Device) -> Device:
    """Check before the work that the device is there."""
    if device is not Device.auto:
        from scfusionttt.training.machine import choose_device

        choose_device(device.value)
    return device


_KINDS = ".h5mu, .h5ad, .zarr, 10x .h5, 10x matrix folder"
Input = Annotated[Path, typer.Argument(metavar="INPUT", help=f"{_KINDS}, or a store")]
InputFile = Annotated[Path, typer.Argument(metavar="INPUT", help=_KINDS)]
Model = Annotated[Path, typer.Option("--model", metavar="MODEL", help="model folder")]
OutModel = Annotated[Path, typer.Option("--out", metavar="MODEL", help="model folder to write")]
OutFile = Annotated[Path, typer.Option("--out", metavar="FILE", help="file to write")]
Json = Annotated[
    Path | None, typer.Option("--json", metavar="FILE", help="also write the result as .json", callback=_json_path)
]
Labels = Annotated[str, typer.Option("--labels", metavar="KEY", help="obs column with cell types")]
Fraction = Annotated[
    float | None,
    typer.Option("--train-fraction", metavar="F", help="train on this share of each class, score the rest"),
]
Baseline = Annotated[
    bool,
    typer.Option("--baseline", help="also score logistic regression on the held-out cells; needs all cells in memory"),
]
Split = Annotated[str | None, typer.Option("--split", metavar="KEY", help="obs column that says train or test")]
Settings = Annotated[
    list[str] | None, typer.Option("--set", metavar="SECTION.KEY=VALUE", help="change a setting; may be repeated")
]
Compute = Annotated[Device, typer.Option("--device", help="where to compute", callback=_device)]
Memory = Annotated[
    str | None,
    typer.Option("--memory", metavar="SIZE", help="most memory to take: 6GiB, 4GB; 80 % of what is free if not given"),
]
Devices = Annotated[
    int, typer.Option("--devices", min=1, help="processes on each machine, each with a device or cores")
]
Nodes = Annotated[int, typer.Option("--nodes", min=1, help="machines; start the processes with torchrun or srun")]
Resume = Annotated[bool, typer.Option("--resume", help="go on with a run that was stopped")]
Rna = Annotated[str | None, typer.Option("--rna-modality", metavar="NAME", help="modality that holds the RNA")]
Protein = Annotated[
    str | None,
    typer.Option("--protein-modality", metavar="NAME", help="modality (or obsm key) that holds the proteins"),
]
Layer = Annotated[str | None, typer.Option("--layer", metavar="NAME", help="layer that holds the raw counts")]
WhichCells = Annotated[Cells, typer.Option("--cells", help="which cells, where RNA and proteins differ")]
DropEmpty = Annotated[bool, typer.Option("--drop-empty", help="leave out cells without RNA counts, naming them")]
