"""Verbs that need counts and no model: background."""

from pathlib import Path
from typing import Annotated

import typer

from scfusionttt.cli.common import check_input, open_input, print_table
from scfusionttt.cli.options import InputFile, Layer, OutFile, Protein, Round


def background(
    input: InputFile, out: OutFile,
    empty: Annotated[
        Path | None,
        typer.Option("--empty", metavar="INPUT", help="empty droplets, or the raw matrix of all barcodes"),
    ] = None,
    threshold: Annotated[
        float, typer.Option(metavar="P", help="probability from which a cell is positive")
    ] = 0.9,
    protein_modality: Protein = None, layer: Layer = None, round: Round = False,
) -> None:  # fmt: skip
    """Tell the cells that have a protein from those with only its background; needs no model.

    For each protein and cell, writes whether it is positive, and the probability. The file name's extension sets the
    format: .csv, .tsv with the columns NAME and NAME_probability, or .h5ad, .h5mu, .zarr with obsm["protein_positive"]
    and obsm["protein_positive_probability"].

    Example: scfusionttt background pbmc.h5mu --empty raw_feature_bc_matrix.h5 --out calls.h5mu
    """
    for path in [input, *([empty] if empty else [])]:
        check_input(path)
    from scfusionttt.analysis.background import background as call
    from scfusionttt.cli.results import check_target
    from scfusionttt.data.write import PROTEIN_ENDINGS, check_result_path, write_proteins

    check_target(input, out, PROTEIN_ENDINGS)
    data = open_input(input, stream=False)
    check_result_path(out, PROTEIN_ENDINGS, data)
    calls = call(
        data, empty=None if empty is None else open_input(empty, stream=False), threshold=threshold,
        protein_modality=protein_modality, layer=layer, round=round,
    )  # fmt: skip
    write_proteins(out, calls.obsm(), data)
    n_cells, n_proteins = calls.positive.shape
    typer.echo(f"{out}: {n_cells} cells, {n_proteins} proteins", err=True)
    print_table("mean background (counts) and fraction of positive cells", calls.proteins)
