"""What a model gives: representations, cell types, scores."""

from pathlib import Path
from typing import Annotated

import typer

from scfusionttt.cli.common import load, print_table, write_json
from scfusionttt.cli.options import (
    Cells,
    Compute,
    Device,
    Devices,
    DropEmpty,
    Input,
    InputFile,
    Json,
    Labels,
    Layer,
    Model,
    Nodes,
    OutFile,
    Protein,
    Rna,
    Space,
    WhichCells,
)
from scfusionttt.cli.processes import is_first, start
from scfusionttt.errors import OutputError


def embed(
    input: Input, model: Model, out: OutFile, device: Compute = Device.auto,
    devices: Devices = 1, nodes: Nodes = 1, drop_empty: DropEmpty = False,
    rna: Rna = None, protein: Protein = None, layer: Layer = None, cells: WhichCells = Cells.same,
) -> None:  # fmt: skip
    """Write the fused representation: .npy, .csv, or .h5ad, .h5mu, .zarr with obsm["X_fusionttt"], by the ending.

    Example: scfusionttt embed pbmc.h5mu --model pbmc-model --out fused.h5mu
    """
    start(devices, nodes)
    from scfusionttt.data.write import check_embedding_path, write_embedding
    from scfusionttt.model.fusionttt import FusionTTT

    if out.resolve() == input.resolve():
        raise OutputError(f"{out} is the input, which is left alone: choose another name for the result")
    check_embedding_path(out)
    trained = FusionTTT.load(model, device=device.value, devices=devices, nodes=nodes)
    source, cite = load(input, rna, protein, layer, cells, drop_empty)
    check_embedding_path(out, source)
    z = trained.embed(cite)
    if is_first():
        write_embedding(out, z, cite.rna.obs_names, source, rna_modality=rna)
    typer.echo(f"{out}: {z.shape[0]} cells, {z.shape[1]} dimensions", err=True)


def predict(
    input: Input, model: Model, out: OutFile,
    unknown: Annotated[
        float | None,
        typer.Option(metavar="SHARE", help="name a cell unknown where so few of the known are as unusual: 0.01"),
    ] = None,
    device: Compute = Device.auto, devices: Devices = 1, nodes: Nodes = 1, drop_empty: DropEmpty = False,
    rna: Rna = None, protein: Protein = None, layer: Layer = None, cells: WhichCells = Cells.same,
) -> None:  # fmt: skip
    """Name the cells: a table with cell, label, probability and one column per class.

    Example: scfusionttt predict rna.h5ad --model typed --out types.csv
    """
    start(devices, nodes)
    from scfusionttt.io.tables import TABLE_ENDINGS, check_file_path, write_table
    from scfusionttt.model.fusionttt import FusionTTT

    check_file_path(out, TABLE_ENDINGS)
    trained = FusionTTT.load(model, device=device.value, devices=devices, nodes=nodes)
    _, cite = load(input, rna, protein, layer, cells, drop_empty)
    table = trained.predict(cite, unknown=unknown)
    if is_first():
        write_table(out, table)
    typer.echo(f"{out}: {len(table)} cells, {len(trained.classes)} classes", err=True)
    counts = table["label"].value_counts()
    for name, count in counts[counts > 0].items():
        typer.echo(f"{count:8d}  {name}")


def explain(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="model folder")],
    input: Input,
    target: Annotated[str, typer.Option(metavar="PROTEIN|CLASS", help="a pretrained model's protein, or a class")],
    out: OutFile,
    labels: Annotated[str | None, typer.Option(metavar="KEY", help="obs column with types to average over")] = None,
    n_cells: Annotated[int, typer.Option("--n-cells", metavar="N", min=2, help="cells to look at, at random")] = 500,
    level: Annotated[
        float, typer.Option(min=0, max=1, help="chance that any feature is listed wrongly; 1 lists all")
    ] = 0.05,
    device: Compute = Device.auto, drop_empty: DropEmpty = False,
    rna: Rna = None, protein: Protein = None, layer: Layer = None, cells: WhichCells = Cells.same,
) -> None:  # fmt: skip
    """List the genes and proteins that a protein or a class rests on, beyond chance: .csv or .tsv.

    Example: scfusionttt explain pbmc-model pbmc.h5mu --target CD3 --labels cell_type --out cd3.csv
    """
    from scfusionttt.io.tables import TABLE_ENDINGS, check_file_path, write_table
    from scfusionttt.model.fusionttt import FusionTTT

    check_file_path(out, TABLE_ENDINGS)
    trained = FusionTTT.load(model, device=device.value)
    _, cite = load(input, rna, protein, layer, cells, drop_empty)
    table = trained.explain(cite, target, labels_key=labels, n_cells=n_cells, level=level).set_index("name")
    write_table(out, table)
    typer.echo(f"{out}: {len(table)} features exceed chance", err=True)
    if len(table):
        print_table(f"{target} rests on", table[["modality", "chromosome", "share", "share_by_masking"]].head(15))


def evaluate(
    input: InputFile, labels: Labels,
    rep: Annotated[str | None, typer.Option(metavar="KEY", help="obsm key; X_fusionttt if neither is given")] = None,
    clusters: Annotated[str | None, typer.Option(metavar="KEY", help="obs column with clusters to score")] = None,
    space: Annotated[Space, typer.Option(help="space of ASW, SC, CHI and DBI; umap is the paper's way")] = Space.rep,
    json_file: Json = None,
) -> None:  # fmt: skip
    """Score a representation or clusters against labels by the ten metrics.

    Example: scfusionttt evaluate fused.h5mu --labels cell_type --rep X_fusionttt
    """
    from scfusionttt.evaluation.slots import evaluate_slots
    from scfusionttt.io.read import read

    result = evaluate_slots(read(input), labels_key=labels, rep=rep, clusters=clusters, space=space.value)
    note = f", {result.n_unlabelled} unlabelled left out" if result.n_unlabelled else ""
    title = f"{result.protocol} protocol: {result.n_cells} cells, {result.n_classes} classes{note}"
    print_table(title, result.summary())
    write_json(json_file, result.to_dict())
