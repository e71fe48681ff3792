"""Results of a trained model: embeddings, cell types, proteins, explanations, scores."""

import math
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from scfusionttt.cli.common import check_model, check_out, load_cells, load_model, open_input, print_table, write_json
from scfusionttt.cli.options import (
    Compute,
    Devices,
    Input,
    InputFile,
    InputOptions,
    Json,
    Labels,
    Model,
    Nodes,
    OptionalLabels,
    OutFile,
    OutTable,
    reads_counts,
)
from scfusionttt.cli.processes import is_first, start
from scfusionttt.keys import PROTEIN_IMPUTED

if TYPE_CHECKING:
    from scfusionttt.evaluation import Evaluation


@reads_counts
def embed(
    input: Input, model: Model, out: OutFile, device: Compute = "auto", devices: Devices = 1, nodes: Nodes = 1,
    *, options: InputOptions,
) -> None:  # fmt: skip
    """Write the embedding of each cell.

    The file name's extension sets the format: .npy, .csv, or .h5ad, .h5mu, .zarr with obsm["X_fusionttt"].

    Example: scfusionttt embed pbmc.h5mu --model pbmc-model --out fused.h5mu
    """
    start(devices, nodes)
    check_model(model, input)
    from scfusionttt.data.write import EMBEDDING_ENDINGS, write_embedding

    check_out(input, out, EMBEDDING_ENDINGS)
    trained = load_model(model, input, device=device, devices=devices, nodes=nodes)
    cite, source = load_cells(input, out, EMBEDDING_ENDINGS, options)
    z = trained.embed(cite)
    if is_first():
        protocol = trained.protocol(cite.rna.obs_names)
        write_embedding(out, z, cite.rna.obs_names, source, rna_modality=options.get("rna_modality"), protocol=protocol)
    typer.echo(f"{out}: {z.shape[0]} cells, {z.shape[1]} dimensions", err=True)


@reads_counts
def impute(
    input: Input, model: Model, out: OutFile,
    intervals: Annotated[
        bool, typer.Option("--intervals", help="also write standard deviations and 90 % intervals")
    ] = False,
    units: Annotated[
        Literal["log_ratio", "counts"], typer.Option(help="log-ratios, or counts at the depth of the training cells")
    ] = "log_ratio",
    transform_batch: Annotated[
        str | None, typer.Option(metavar="NAME", help="impute as measured in this batch of the model")
    ] = None,
    device: Compute = "auto", devices: Devices = 1, nodes: Nodes = 1, *, options: InputOptions,
) -> None:  # fmt: skip
    """Impute the proteins of each cell from its RNA.

    Values are log-ratios: log(1 + count / geometric mean of the training cells). With --intervals there are columns
    NAME_sd, NAME_low and NAME_high, too. The file name's extension sets the format: .csv, .tsv, or .h5ad, .h5mu, .zarr
    with obsm["protein_imputed"].

    Example: scfusionttt impute rna.h5ad --model pbmc-model --out proteins.csv
    """
    start(devices, nodes)
    check_model(model, input)
    from scfusionttt.data.write import PROTEIN_ENDINGS, write_proteins

    check_out(input, out, PROTEIN_ENDINGS)
    trained = load_model(model, input, device=device, devices=devices, nodes=nodes)
    cite, source = load_cells(input, out, PROTEIN_ENDINGS, options)
    from scfusionttt.model.imputation import obsm_tables

    tables = obsm_tables(trained.impute(cite, units=units, intervals=intervals, transform_batch=transform_batch))
    if is_first():
        write_proteins(out, tables, source, rna_modality=options.get("rna_modality"))
    n_cells, n_proteins = tables[PROTEIN_IMPUTED].shape
    typer.echo(f"{out}: {n_cells} cells, {n_proteins} proteins", err=True)


@reads_counts
def denoise(
    input: Input, model: Model, out: OutFile,
    units: Annotated[
        Literal["log", "counts"],
        typer.Option(help="genes as log1p of counts per 10,000 and proteins as log-ratios, or both as counts"),
    ] = "log",
    device: Compute = "auto", devices: Devices = 1, nodes: Nodes = 1, *, options: InputOptions,
) -> None:  # fmt: skip
    """Write the genes and proteins of each cell as the model reconstructs them; needs a pretrained model.

    The .h5ad has the genes in X and the proteins in obsm["protein_denoised"]. Denoised values suit figures, not tests.

    Example: scfusionttt denoise pbmc.h5mu --model pbmc-model --out denoised.h5ad
    """
    start(devices, nodes)
    check_model(model, input)
    from scfusionttt.data.write import write_cells

    check_out(input, out, (".h5ad",))
    trained = load_model(model, input, device=device, devices=devices, nodes=nodes)
    denoised = trained.denoise(open_input(input), units=units, **options)
    if is_first():
        write_cells(out, denoised)
    typer.echo(f"{out}: {denoised.n_obs} cells, {denoised.n_vars} genes", err=True)


@reads_counts
def predict(
    input: Input, model: Model, out: OutTable,
    unknown: Annotated[
        float | None,
        typer.Option(metavar="P", help='label a cell "unknown" if its p-value is at most P (e.g. 0.01)'),
    ] = None,
    refine: Annotated[
        bool, typer.Option("--refine", help="let cells with similar RNA vote on one another's class; for RNA alone")
    ] = False,
    rna_only: Annotated[
        bool, typer.Option("--rna-only", help="ignore the proteins of cells with RNA, e.g. those of another study")
    ] = False,
    device: Compute = "auto", devices: Devices = 1, nodes: Nodes = 1, *, options: InputOptions,
) -> None:  # fmt: skip
    """Predict cell types: a table with cell, label, probability and one column per class.

    Example: scfusionttt predict rna.h5ad --model typed --out types.csv
    """
    start(devices, nodes)
    from scfusionttt.io.tables import TABLE_ENDINGS, check_file_path, write_table

    check_file_path(out, TABLE_ENDINGS)
    trained = load_model(model, input, device=device, devices=devices, nodes=nodes)
    table = trained.predict(open_input(input), unknown=unknown, refine=refine, rna_only=rna_only, **options)
    if is_first():
        write_table(out, table)
    typer.echo(f"{out}: {len(table)} cells, {len(trained.classes)} classes", err=True)
    counts = table["label"].value_counts()
    for name, count in counts[counts > 0].items():
        typer.echo(f"{count:8d}  {name}")


@reads_counts
def explain(
    input: Input, model: Model,
    target: Annotated[str, typer.Option(metavar="NAME", help="a protein (pretrained model) or a class")],
    out: OutTable, labels_key: OptionalLabels = None,
    rna_only: Annotated[
        bool, typer.Option("--rna-only", help="explain by genes alone, with all proteins hidden")
    ] = False,
    n_cells: Annotated[int, typer.Option("--n-cells", metavar="N", min=2, help="number of cells to sample")] = 500,
    level: Annotated[
        float, typer.Option(metavar="P", min=0, max=1, help="family-wise error rate; 1 lists all features")
    ] = 0.05,
    device: Compute = "auto", *, options: InputOptions,
) -> None:  # fmt: skip
    """List the genes and proteins that contribute to a protein or a class more than expected by chance.

    With --labels-key, contributions are also averaged per cell type.

    Example: scfusionttt explain pbmc.h5mu --model pbmc-model --target CD3 --labels-key cell_type --out cd3.csv
    """
    from scfusionttt.io.tables import TABLE_ENDINGS, check_file_path, write_table

    check_file_path(out, TABLE_ENDINGS)
    trained = load_model(model, input, device=device)
    table = trained.explain(
        open_input(input), target, labels_key=labels_key, rna_only=rna_only, n_cells=n_cells, level=level, **options
    ).set_index("name")  # fmt: skip
    write_table(out, table)
    what = "features" if level == 1 else f"features that contribute more than expected by chance (level {level:g})"
    typer.echo(f"{out}: {len(table)} {what}", err=True)
    if not math.isnan(table.attrs["panel_r2"]):
        typer.echo(
            "a regression on the 10 features of the highest share explains {panel_r2:.2f} of the variance in other "
            "cells; on 10 random features {random_r2:.2f} ± {random_r2_sd:.2f}".format(**table.attrs),
            err=True,
        )
    if len(table):
        columns = ["modality", "chromosome", "share", "score", "share_by_masking"]
        print_table(f"features that contribute most to {target}", table[columns].head(15))


def evaluate(
    input: InputFile, labels_key: Labels,
    rep: Annotated[
        str | None, typer.Option(metavar="KEY", help="obsm key; X_fusionttt unless --clusters is given")
    ] = None,
    clusters: Annotated[str | None, typer.Option(metavar="KEY", help="obs column with clusters to score")] = None,
    batch_key: Annotated[
        str | None,
        typer.Option("--batch-key", metavar="KEY", help="obs column with batches: also score how they mix (scIB)"),
    ] = None,
    space: Annotated[
        Literal["rep", "umap"],
        typer.Option(help="space of ASW, SC, CHI and DBI: the representation, or its UMAP as in the paper"),
    ] = "rep",
    json_file: Json = None,
) -> None:  # fmt: skip
    """Score a representation or clusters against labels with ten metrics, and the mixing of batches.

    Example: scfusionttt evaluate fused.h5mu --labels-key cell_type --rep X_fusionttt
    """
    from scfusionttt.evaluation.slots import evaluate_slots

    result = evaluate_slots(
        open_input(input, stream=False), labels_key=labels_key, rep=rep, clusters=clusters, space=space,
        batch_key=batch_key,
    )  # fmt: skip
    lacking = "without label or cluster" if clusters else "unlabelled"
    note = f", {result.n_unlabelled} {lacking} left out" if result.n_unlabelled else ""
    title = f"{result.protocol} protocol: {result.n_cells} cells, {result.n_classes} classes{note}"
    write_json(json_file, result.to_dict())
    print_table(f"{title}\n{_clustering(result, given=clusters, rep=rep)}", result.summary())


def _clustering(result: "Evaluation", *, given: str | None, rep: str | None) -> str:
    """Say which clusters were scored, and what the standard deviation is over."""
    numbers = sorted(set(result.n_clusters))
    n = f"{numbers[0]} to {numbers[-1]}" if len(numbers) > 1 else str(numbers[0])
    if given:
        lacking = "" if rep else "; ASW, SC, CHI and DBI need a representation: give --rep KEY, too"
        return f"obs['{given}']: {n} clusters{lacking}"
    seeds = len(result.n_clusters)
    return f"Leiden, the number of classes given: {n} clusters; mean and std over {seeds} clustering seeds"
