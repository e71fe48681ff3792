"""Data larger than memory: write a store, and estimate what a run needs."""

from pathlib import Path
from typing import Annotated

import typer

from scfusionttt.cli.common import as_settings, check_input, write_json
from scfusionttt.cli.options import (
    Compute,
    CountOptions,
    DropEmpty,
    Input,
    Json,
    Preset,
    Settings,
    Species,
    reads_counts,
)


@reads_counts
def store(
    inputs: Annotated[list[Path], typer.Argument(metavar="INPUT...", help=".h5mu, .h5ad, .zarr, 10x .h5 or folder")],
    out: Annotated[Path, typer.Option("--out", metavar="STORE", help="store to write, such as cells.zarr")],
    seed: Annotated[int, typer.Option(min=0, metavar="N", help="seed of the order of the cells on disk")] = 0,
    species: Species = None, *, options: CountOptions, drop_empty: DropEmpty = False,
) -> None:  # fmt: skip
    """Write the cells of one or more inputs to a store, which is streamed from disk, not loaded into memory.

    Stores are accepted by pretrain, finetune, transfer, embed, map, predict, impute, denoise, annotate, explain and
    plan.

    Example: scfusionttt store donor1.h5mu donor2.h5mu --out donors.zarr
    """
    from scfusionttt.data.store.sources import open_source
    from scfusionttt.data.store.write import check_store_path, write_store

    check_store_path(out)
    sources = [open_source(path, **options) for path in inputs]
    n_cells = write_store(sources, out, seed=seed, drop_empty=drop_empty, species=species)
    typer.echo(f"{out}: {n_cells} cells of {len(inputs)} input{'' if len(inputs) == 1 else 's'}", err=True)


@reads_counts
def plan(
    input: Input, preset: Preset = "default", settings: Settings = None, species: Species = None,
    device: Compute = "auto", *, options: CountOptions, json_file: Json = None,
) -> None:  # fmt: skip
    """Estimate the memory, disk space and time that pretraining and embedding need, measured on some of the cells.

    Example: scfusionttt plan donors.zarr --preset default
    """
    from scfusionttt.config import preset as named_preset
    from scfusionttt.data.store.sources import open_source
    from scfusionttt.data.store.stored import open_store
    from scfusionttt.io.integrity import is_store

    check_input(input)
    config = named_preset(preset).with_settings(as_settings(settings))
    from scfusionttt.model.estimate import estimate  # loads torch
    from scfusionttt.model.inputs import require_no_options

    if is_store(input):
        require_no_options(options, "a store")
    source = open_store(input) if is_store(input) else open_source(input, **options)
    result = estimate(source, config, device=device, species=species)
    for line in result.lines():
        typer.echo(line)
    write_json(json_file, result.to_dict())
