"""Data larger than memory: write a store, and say beforehand what a run will take."""

from pathlib import Path
from typing import Annotated

import typer

from scfusionttt.cli.common import as_settings, write_json
from scfusionttt.cli.options import (
    Cells,
    Compute,
    Device,
    DropEmpty,
    Input,
    Json,
    Layer,
    Protein,
    Rna,
    Settings,
    WhichCells,
)


def store(
    inputs: Annotated[list[Path], typer.Argument(metavar="INPUT...", help=".h5mu, .h5ad, .zarr, 10x .h5 or folder")],
    out: Annotated[Path, typer.Option("--out", metavar="STORE", help="store to write, such as cells.zarr")],
    seed: Annotated[int, typer.Option(min=0, help="of the order of the cells on disk")] = 0,
    species: Annotated[str | None, typer.Option(help="human or mouse; by the gene names if not given")] = None,
    drop_empty: DropEmpty = False,
    rna: Rna = None, protein: Protein = None, layer: Layer = None, cells: WhichCells = Cells.same,
) -> None:  # fmt: skip
    """Write one store of all cells of some inputs, which the three stages, embed, predict, explain and plan stream.

    Example: scfusionttt store donor1.h5mu donor2.h5mu --out donors.zarr
    """
    from scfusionttt.data.store.sources import open_source
    from scfusionttt.data.store.write import check_store_path, write_store

    check_store_path(out)
    options = {"rna_modality": rna, "protein_modality": protein, "layer": layer, "cells": cells.value}
    sources = [open_source(path, **options) for path in inputs]  # type: ignore[arg-type]
    n_cells = write_store(sources, out, seed=seed, drop_empty=drop_empty, species=species)
    typer.echo(f"{out}: {n_cells} cells of {len(inputs)} input{'' if len(inputs) == 1 else 's'}", err=True)


def plan(
    input: Input,
    preset: Annotated[str, typer.Option(help="default, paper, whole or fast")] = "default",
    settings: Settings = None, species: Annotated[str | None, typer.Option(help="human or mouse")] = None,
    device: Compute = Device.auto, rna: Rna = None, protein: Protein = None, layer: Layer = None,
    cells: WhichCells = Cells.same, json_file: Json = None,
) -> None:  # fmt: skip
    """Say what pretraining and embedding an input would take: memory, disk and time, measured on some of its cells.

    Example: scfusionttt plan donors.zarr --preset default
    """
    from scfusionttt.config import preset as named_preset
    from scfusionttt.data.store.sources import open_source
    from scfusionttt.data.store.stored import open_store
    from scfusionttt.io.integrity import is_store
    from scfusionttt.model.estimate import estimate

    config = named_preset(preset).with_settings(as_settings(settings))
    options = {"rna_modality": rna, "protein_modality": protein, "layer": layer, "cells": cells.value}
    source = open_store(input) if is_store(input) else open_source(input, **options)  # type: ignore[arg-type]
    found = estimate(source, config, device=device.value, species=species)
    for line in found.lines():
        typer.echo(line)
    write_json(json_file, found.to_dict())
