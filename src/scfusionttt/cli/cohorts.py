"""Cells of new batches in the embedding of a reference."""

from pathlib import Path
from typing import Annotated

import typer

from scfusionttt.cli.common import check_model, check_out, load_cells, load_model, print_table, save_model, write_json
from scfusionttt.cli.options import (
    Compute,
    Devices,
    Input,
    InputOptions,
    Json,
    Model,
    Nodes,
    OutFile,
    Overwrite,
    reads_counts,
)
from scfusionttt.cli.processes import is_first, start


@reads_counts
def map(
    input: Input, model: Model, out: OutFile,
    batch_key: Annotated[
        str | None,
        typer.Option("--batch-key", metavar="KEY", help="obs column with the batches; default: the model's"),
    ] = None,
    out_model: Annotated[
        Path | None,
        typer.Option("--out-model", metavar="MODEL", help="also write the model with the batches of the query"),
    ] = None,
    rna_only: Annotated[
        bool, typer.Option("--rna-only", help="ignore proteins, e.g. if few of the model's were measured")
    ] = False,
    device: Compute = "auto", devices: Devices = 1, nodes: Nodes = 1, overwrite: Overwrite = False,
    *, options: InputOptions, json_file: Json = None,
) -> None:  # fmt: skip
    """Embed cells of new batches with a model of one batch or several, without training; the reference stays as it is.

    The file is like that of embed; .csv, .h5ad, .h5mu and .zarr also have the p-value of each cell (low: no counterpart
    in the reference) and, if the model has classes, its label and probability.

    Example: scfusionttt map new_donor.h5mu --model cohort-model --out mapped.h5mu
    """
    start(devices, nodes)
    check_model(model, input)
    from scfusionttt.data.write import EMBEDDING_ENDINGS, write_embedding
    from scfusionttt.model.folder import check_model_path

    check_out(input, out, EMBEDDING_ENDINGS)
    if out_model is not None:
        check_model_path(out_model, overwrite=overwrite)
    trained = load_model(model, input, device=device, devices=devices, nodes=nodes)
    cite, source = load_cells(input, out, EMBEDDING_ENDINGS, options)
    mapped = trained.map(cite, batch_key=batch_key, rna_only=rna_only)
    if is_first():
        write_embedding(
            out, mapped.embedding, cite.rna.obs_names, source, rna_modality=options.get("rna_modality"),
            columns=mapped.columns, protocol=trained.protocol(cite.rna.obs_names),
        )  # fmt: skip
        if out_model is not None:
            save_model(mapped.model, out_model, overwrite=overwrite)
    typer.echo(f"{out}: {mapped.embedding.shape[0]} cells, {mapped.embedding.shape[1]} dimensions", err=True)
    write_json(json_file, mapped.batches.reset_index().to_dict(orient="records"))
    print_table("batches of the query", mapped.batches)
