"""Verbs that need counts and no model: background, differential."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from scfusionttt.cli.common import check_input, check_out, open_input, print_table
from scfusionttt.cli.options import CountOptions, InputFile, Layer, OutFile, OutTable, Protein, Round, reads_counts


def background(
    input: InputFile, out: OutFile,
    empty: Annotated[
        Path | None,
        typer.Option("--empty", metavar="INPUT", help="empty droplets, or the raw matrix of all barcodes"),
    ] = None,
    threshold: Annotated[
        float, typer.Option(metavar="P", help="least probability of a positive cell")
    ] = 0.9,
    protein_modality: Protein = None, layer: Layer = None, round: Round = False,
) -> None:  # fmt: skip
    """Find which cells have a protein, and which only its background; needs no model.

    For each protein and cell, writes whether it is positive, and the probability. The file name's extension sets the
    format: .csv, .tsv with the columns NAME and NAME_probability, or .h5ad, .h5mu, .zarr with obsm["protein_positive"]
    and obsm["protein_positive_probability"].

    Example: scfusionttt background pbmc.h5mu --empty raw_feature_bc_matrix.h5 --out calls.h5mu
    """
    inputs = [input, *([empty] if empty else [])]
    for path in inputs:
        check_input(path)
    from scfusionttt.analysis.background import background as call
    from scfusionttt.data.write import PROTEIN_ENDINGS, check_result_path, write_proteins

    for path in inputs:
        check_out(path, out, PROTEIN_ENDINGS)
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


@reads_counts
def differential(
    input: InputFile,
    groupby: Annotated[str, typer.Option("--groupby", metavar="KEY", help="obs column with the groups of cells")],
    out: OutTable,
    modality: Annotated[Literal["rna", "protein"], typer.Option(help="genes or proteins")] = "rna",
    group: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="group to test; repeatable; default: all")
    ] = None,
    reference: Annotated[
        str, typer.Option(metavar="NAME", help="group to compare with; default: all other cells")
    ] = "rest",
    donor_key: Annotated[
        str | None,
        typer.Option("--donor-key", metavar="KEY", help="obs column with donors: compare donors, not cells, by DESeq2"),
    ] = None,
    *, options: CountOptions,
) -> None:  # fmt: skip
    """Rank the genes or proteins that differ between groups of cells; needs no model.

    With --donor-key, DESeq2 tests the sums of each donor (needs pydeseq2). Without it, the Wilcoxon test compares
    cells; its p-values only rank features.

    Example: scfusionttt differential pbmc.h5mu --groupby cell_type --donor-key donor --out genes.csv
    """
    check_input(input)
    from scfusionttt.analysis.differential import differential as compare
    from scfusionttt.io.tables import TABLE_ENDINGS, check_file_path, write_table

    check_file_path(out, TABLE_ENDINGS)
    table = compare(
        open_input(input, stream=False), groupby, modality=modality, groups=group, reference=reference,
        donor_key=donor_key, **options,
    )  # fmt: skip
    write_table(out, table.set_index("group"))
    typer.echo(f"{out}: {table['group'].nunique()} groups, {table['names'].nunique()} features", err=True)
    first = table.groupby("group", sort=False).head(3).set_index("group")
    first["pvals_adj"] = first["pvals_adj"].map("{:.2g}".format)
    print_table("highest in each group", first[["names", "logfoldchanges", "pvals_adj"]])
