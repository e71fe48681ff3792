"""What is here: a demo, what is in a file, names, the machine."""

from pathlib import Path
from typing import Annotated

import typer

from scfusionttt.cli.common import command_line, load, print_table, write_json
from scfusionttt.cli.options import (
    Cells,
    Compute,
    Device,
    DropEmpty,
    InputFile,
    Json,
    Layer,
    OutFile,
    Protein,
    Rna,
    WhichCells,
)


def demo(out: Annotated[Path, typer.Option("--out", metavar="DIR", help="folder to write")] = Path("demo")) -> None:
    """Simulated CITE-seq through all three stages: metrics, figures and one HTML page.

    Example: scfusionttt demo --out demo
    """
    from scfusionttt.demo import run_demo

    page = run_demo(out, show=print_table)
    typer.echo(f"open {page} in a browser")


def validate(
    input: InputFile, rna: Rna = None, protein: Protein = None, layer: Layer = None, cells: WhichCells = Cells.same,
    json_file: Json = None,
) -> None:  # fmt: skip
    """Say what is in a file, what is odd about it and whether it can be used.

    Example: scfusionttt validate pbmc.h5mu --json report.json
    """
    from scfusionttt.data.validate import require_usable
    from scfusionttt.data.validate import validate as check_input

    report = check_input(input, rna_modality=rna, protein_modality=protein, layer=layer, cells=cells.value)
    for line in report.lines():
        typer.echo(line)
    write_json(json_file, report.to_dict())
    require_usable(report)


def report(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="model folder")], input: InputFile, out: OutFile,
    labels: Annotated[str | None, typer.Option(metavar="KEY", help="obs column with cell types, to score by")] = None,
    gene: Annotated[list[str] | None, typer.Option(metavar="NAME", help="colour the map by it too; repeatable")] = None,
    title: Annotated[str | None, typer.Option(help="heading; the input's name if not given")] = None,
    device: Compute = Device.auto, drop_empty: DropEmpty = False,
    rna: Rna = None, protein: Protein = None, layer: Layer = None, cells: WhichCells = Cells.same,
) -> None:  # fmt: skip
    """Write one HTML file to look at: cells on an interactive map, clusters, types, scores, genome, settings.

    Example: scfusionttt report typed pbmc.h5mu --labels cell_type --out report.html
    """
    from scfusionttt.io.tables import PAGE_ENDINGS, check_file_path
    from scfusionttt.model.fusionttt import FusionTTT
    from scfusionttt.report import write_report

    check_file_path(out, PAGE_ENDINGS)
    trained = FusionTTT.load(model, device=device.value)
    _, cite = load(input, rna, protein, layer, cells, drop_empty, stream=False)
    name = title or f"scFusionTTT: {input.name}"
    write_report(trained, cite, out, labels=labels, genes=gene or (), title=name, command=command_line())
    typer.echo(f"{out}: {cite.rna.n_obs} cells, {out.stat().st_size / 1e6:.1f} MB; open it in a browser", err=True)


def genes(
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="genes or antibodies")],
    species: Annotated[str | None, typer.Option(help="human or mouse; by the names if not given")] = None,
) -> None:
    """Show how names of genes and antibodies resolve, and where they lie in the genome.

    Example: scfusionttt genes CD3E ENSG00000167286 CD16_TotalSeqB
    """
    from scfusionttt.genome import describe

    table = describe(names, species=species)
    print_table("", table.set_index("name").astype(object).where(table.set_index("name").notna(), "-"))


def doctor(json_file: Json = None) -> None:
    """Show versions, devices and kernels: parity of each with the definition, and its speed.

    Example: scfusionttt doctor --json doctor.json
    """
    from scfusionttt.doctor import examine

    result = examine()
    for name, value in {**result["versions"], **result["devices"]}.items():
        typer.echo(f"{name:14} {value}")
    import pandas as pd

    print_table("TTT kernels", pd.DataFrame(result["kernels"]).set_index("kernel"))
    write_json(json_file, result)
