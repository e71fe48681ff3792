"""Verbs for a first look: demo, validate, report, genes, doctor."""

from pathlib import Path
from typing import Annotated

import typer

from scfusionttt.cli.common import command_line, listed, load_model, open_input, print_table, write_json
from scfusionttt.cli.flags import with_flags
from scfusionttt.cli.options import (
    Compute,
    CountOptions,
    InputFile,
    InputOptions,
    Json,
    Model,
    OptionalLabels,
    OutFile,
    Species,
    reads_counts,
)
from scfusionttt.errors import SettingError


def demo(out: Annotated[Path, typer.Option("--out", metavar="DIR", help="folder to write")] = Path("demo")) -> None:
    """Run all three stages on simulated CITE-seq: metrics, figures and an HTML report.

    Example: scfusionttt demo --out demo
    """
    typer.echo("simulating CITE-seq, then training all three stages on it: about three minutes", err=True)
    from scfusionttt.demo import run_demo  # loads torch

    page = run_demo(out, show=print_table)
    typer.echo(f"open {page} in a browser")


@reads_counts
def validate(
    input: InputFile, species: Species = None, *, options: CountOptions, json_file: Json = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help=".csv or .tsv file with the quality of each cell")
    ] = None,
    batch_key: Annotated[
        str | None,
        typer.Option("--batch-key", metavar="KEY", help="obs column with runs, in which --out compares cells"),
    ] = None,
) -> None:  # fmt: skip
    """Summarise an input and report problems.

    With --out, also write the counts of each cell, a doublet score from its genes and proteins together, and whether
    it may be a doublet or of low quality.

    Example: scfusionttt validate pbmc.h5mu --json report.json
    """
    from scfusionttt.io.tables import TABLE_ENDINGS, check_file_path, write_table

    if out is not None:
        check_file_path(out, TABLE_ENDINGS)
    elif batch_key is not None:
        raise SettingError("--batch-key has no effect without --out; add that, or leave it out")
    from scfusionttt.data.findings import require_usable
    from scfusionttt.data.validate import validate as summarise

    report = summarise(input, species=species, **options)
    for line in report.lines():
        typer.echo(with_flags(line))
    write_json(json_file, report.to_dict())
    require_usable(report.findings)
    if out is not None:
        from scfusionttt.analysis.quality import quality, summary

        table = quality(open_input(input, stream=False), batch_key=batch_key, species=species, **options)
        write_table(out, table.rename_axis("cell"))
        typer.echo(f"{out}: {len(table)} cells", err=True)
        print_table("quality of cells", summary(table))


@reads_counts
def report(
    input: InputFile, model: Model, out: OutFile, labels_key: OptionalLabels = None,
    label_map: Annotated[
        Path | None,
        typer.Option("--label-map", metavar="FILE", help=".csv or .tsv with the columns label and class"),
    ] = None,
    batch_key: Annotated[
        list[str] | None,
        typer.Option("--batch-key", metavar="KEY", help="show how these batches mix; repeatable; default: the model's"),
    ] = None,
    genes: Annotated[
        list[str] | None,
        typer.Option("--genes", "--gene", metavar="NAMES", help="genes to colour the map by: CD3E,CD4; repeatable"),
    ] = None,
    color: Annotated[
        list[str] | None, typer.Option(metavar="KEY", help="obs column of numbers to colour the map by; repeatable")
    ] = None,
    basis: Annotated[
        str | None, typer.Option(metavar="KEY", help="obsm key of the map, such as X_umap; default: a new UMAP")
    ] = None,
    resolution: Annotated[
        list[float] | None, typer.Option(metavar="R", help="resolution of clusters; repeatable, the first is described")
    ] = None,
    title: Annotated[str | None, typer.Option(metavar="TEXT", help="title; default: the name of the input")] = None,
    device: Compute = "auto", *, options: InputOptions,
) -> None:  # fmt: skip
    """Write an HTML report: interactive map of the cells, clusters, cell types, scores, genome, settings.

    With --labels-key, the results are scored. The map can always be coloured by obs columns of text.

    Example: scfusionttt report pbmc.h5mu --model typed --labels-key cell_type --out report.html
    """
    from scfusionttt.io.tables import PAGE_ENDINGS, check_file_path, read_map

    check_file_path(out, PAGE_ENDINGS)
    translation = None if label_map is None else read_map(label_map, ("label", "class"))
    trained = load_model(model, input, device=device)
    from scfusionttt.evaluation.slots import find_coordinates
    from scfusionttt.model.inputs import check_cells
    from scfusionttt.report import write_report
    from scfusionttt.report.analysis import RESOLUTIONS

    data = open_input(input, stream=False)
    cite = check_cells(data, **options)
    write_report(
        trained, cite, out, labels_key=labels_key, label_map=translation, batch_key=batch_key,
        genes=[name for names in genes or () for name in listed(names)], color=color or (),
        coords=None if basis is None else find_coordinates(data, basis, cite.rna.obs_names),
        resolutions=resolution or RESOLUTIONS, title=title or f"scFusionTTT: {input.name}", command=command_line(),
    )  # fmt: skip
    typer.echo(f"{out}: {cite.rna.n_obs} cells, {out.stat().st_size / 1e6:.1f} MB; open it in a browser", err=True)


def genes(
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="genes or antibodies")],
    species: Species = None,
) -> None:
    """Show what names of genes and antibodies resolve to, and their positions in the genome.

    Example: scfusionttt genes CD3E ENSG00000167286 CD16_TotalSeqB
    """
    from scfusionttt.genome import describe

    table = describe(names, species=species)
    print_table("", table.set_index("name").astype(object).where(table.set_index("name").notna(), "-"))


def doctor(json_file: Json = None) -> None:
    """Show versions and devices, and the accuracy and speed of each TTT kernel.

    Example: scfusionttt doctor --json doctor.json
    """
    from scfusionttt.doctor import TOLERANCE, examine, kernel_table

    result = examine()
    write_json(json_file, result)
    for name, value in {**result["versions"], **result["devices"]}.items():
        typer.echo(f"{name:14} {value}")
    typer.echo(
        f"\nTTT kernels: relative error against the definition (at most {TOLERANCE:.0e}), and tokens of one head per "
        "second in a forward and a backward pass (on a CPU: per second of one core)"
    )
    print_table("", kernel_table(result["kernels"]))
