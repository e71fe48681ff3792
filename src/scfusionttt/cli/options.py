"""Arguments and options that several verbs share."""

import inspect
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, Literal, TypedDict, get_type_hints

import typer

from scfusionttt.errors import OutputError, SettingError

Device = Literal["auto", "cpu", "cuda", "mps"]
Cells = Literal["same", "overlap", "rna", "all"]


def _json_path(path: Path | None) -> Path | None:
    """Check that the file can be written, before any work is done."""
    if path is not None:
        from scfusionttt.io.tables import JSON_ENDINGS, check_file_path
        from scfusionttt.model.folder import is_model

        check_file_path(path, JSON_ENDINGS)
        if is_model(path.parent):
            raise OutputError(f"{path}: {path.parent} is a model folder; write to another folder")
    return path


def _device(device: Device) -> Device:
    """Check that the device is available, before any work is done; one of another system, before torch is loaded."""
    if device == ("cuda" if sys.platform == "darwin" else "mps"):
        raise SettingError(f"the device {device!r} is not available on this machine; choose auto or cpu")
    if device != "auto":
        from scfusionttt.training.machine import choose_device

        choose_device(device)
    return device


def _memory(size: str | None) -> str | None:
    """Check that the size can be read."""
    if size is not None:
        from scfusionttt.config.parse import parse_size

        parse_size(size)
    return size


_KINDS = ".h5mu, .h5ad, .zarr, 10x .h5 or 10x matrix folder"
Input = Annotated[Path, typer.Argument(metavar="INPUT", help=f"{_KINDS}, or a store")]
InputFile = Annotated[Path, typer.Argument(metavar="INPUT", help=_KINDS)]
Model = Annotated[Path, typer.Option("--model", metavar="MODEL", help="model folder")]
OutModel = Annotated[Path, typer.Option("--out", metavar="MODEL", help="model folder to write")]
OutFile = Annotated[Path, typer.Option("--out", metavar="FILE", help="file to write")]
OutTable = Annotated[Path, typer.Option("--out", metavar="FILE", help=".csv or .tsv file to write")]
Json = Annotated[
    Path | None,
    typer.Option("--json", metavar="FILE", help="also write the results to this .json file", callback=_json_path),
]
Labels = Annotated[str, typer.Option("--labels-key", "--labels", metavar="KEY", help="obs column with cell types")]
OptionalLabels = Annotated[
    str | None, typer.Option("--labels-key", "--labels", metavar="KEY", help="obs column with cell types")
]
Fraction = Annotated[
    float | None,
    typer.Option("--train-fraction", metavar="F", help="train on this fraction of each class, score on the rest"),
]
Split = Annotated[str | None, typer.Option("--split", metavar="KEY", help="obs column whose values are train and test")]
Baseline = Annotated[
    bool,
    typer.Option("--baseline", help="also score logistic regression on the held-out cells; needs all cells in memory"),
]
Preset = Annotated[str, typer.Option("--preset", metavar="NAME", help="default, paper, scmmae, whole or fast")]
Species = Annotated[
    str | None,
    typer.Option("--species", metavar="NAME", help="human or mouse; default: inferred from the names"),
]
Settings = Annotated[
    list[str] | None, typer.Option("--set", metavar="SECTION.KEY=VALUE", help="change a setting; repeatable")
]
Compute = Annotated[Device, typer.Option("--device", help="device to compute on", callback=_device)]
Memory = Annotated[
    str | None,
    typer.Option(
        "--memory",
        metavar="SIZE",
        help="memory limit, such as 6GiB or 4GB; default: 80 % of free memory",
        callback=_memory,
    ),
]
Devices = Annotated[
    int, typer.Option("--devices", min=1, help="processes per machine, each with its own GPU or CPU cores")
]
Nodes = Annotated[
    int, typer.Option("--nodes", min=1, help="number of machines; start the command on each with torchrun or srun")
]
Batches = Annotated[
    list[str] | None,
    typer.Option(
        "--batch-key",
        metavar="KEY",
        help="obs column with donors, lanes or runs, whose effects are removed; repeatable; none: remove no effects; "
        "default: the inputs of a store",
    ),
]
Resume = Annotated[bool, typer.Option("--resume", help="continue an interrupted run")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="replace an earlier model of that name")]
Rna = Annotated[str | None, typer.Option("--rna-modality", metavar="NAME", help="modality with the RNA counts")]
Protein = Annotated[
    str | None,
    typer.Option("--protein-modality", metavar="NAME", help="modality (or obsm key) with the protein counts"),
]
Layer = Annotated[
    str | None,
    typer.Option("--layer", metavar="NAME", help='layer with the raw counts, or X; default: "counts", else X'),
]
Round = Annotated[bool, typer.Option("--round", help="round counts with fractions, as from EM or ambient correction")]
WhichCells = Annotated[
    Cells,
    typer.Option(
        "--cells",
        help="if RNA and proteins have different cells: refuse (same, the default), use cells with both (overlap), "
        "all cells with RNA (rna), or also those with proteins alone (all)",
    ),
]
DropEmpty = Annotated[bool, typer.Option("--drop-empty", help="leave out cells without RNA counts")]


def batch_keys(keys: list[str] | None) -> list[str] | None:
    """Return the columns of ``--batch-key``; ``none`` stands for no column."""
    return [] if keys == ["none"] else keys


class CountOptions(TypedDict, total=False):
    """Where the counts are in an input; the keyword arguments of :func:`~scfusionttt.data.assemble.as_citeseq`."""

    layer: Layer
    rna_modality: Rna
    protein_modality: Protein
    cells: WhichCells
    round: Round


class InputOptions(CountOptions, total=False):
    """How an input is read; the keyword arguments of each method of FusionTTT that takes data."""

    drop_empty: DropEmpty


def reads_counts(verb: Callable[..., None]) -> Callable[..., None]:
    """Decorate a verb whose parameter `options` is a TypedDict: its keys become flags in the place of the parameter.

    The verb gets a dictionary of those that were given.
    """
    signature = inspect.signature(verb)
    flags = get_type_hints(signature.parameters["options"].annotation, include_extras=True)

    @wraps(verb)
    def with_options(**values: Any) -> None:
        options = {name: values.pop(name) for name in flags}
        verb(**values, options={name: value for name, value in options.items() if value not in (None, False)})

    parameters = []
    for parameter in signature.parameters.values():
        of_flags = [parameter.replace(name=name, default=None, annotation=flag) for name, flag in flags.items()]
        parameters += of_flags if parameter.name == "options" else [parameter]
    with_options.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return with_options
