"""Annotation with a reference, and the references themselves."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from scfusionttt.cli.common import (
    as_settings,
    check_input,
    check_out,
    command_line,
    load_cells,
    open_input,
    print_table,
)
from scfusionttt.cli.options import (
    Compute,
    Input,
    InputOptions,
    OptionalLabels,
    Preset,
    Settings,
    reads_counts,
)
from scfusionttt.errors import SettingError


@reads_counts
def annotate(
    input: Input,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="file to write; default: the input's name with .annotated.csv"),
    ] = None,
    reference: Annotated[
        str, typer.Option(metavar="NAME", help="reference: a name, a model folder, or hf://owner/name@revision")
    ] = "pbmc",
    unknown: Annotated[
        float, typer.Option(metavar="P", help='label a cell "unknown" if its p-value is at most P; 0: label none')
    ] = 0.005,
    device: Compute = "auto", *, options: InputOptions,
) -> None:  # fmt: skip
    """Predict cell types and impute proteins with a reference, without training.

    Writes label, probability, Cell Ontology id, and each protein as a log-ratio with standard deviation and 90 %
    interval. The file name's extension sets the format: .csv, .tsv, or .h5ad, .h5mu, .zarr with obs and obsm.

    Example: scfusionttt annotate rna.h5ad --out annotated.h5ad
    """
    check_input(input)
    from scfusionttt.data.write import PROTEIN_ENDINGS, write_proteins
    from scfusionttt.model.fusionttt import FusionTTT
    from scfusionttt.model.reference import find

    out = Path(f"{input.stem}.annotated.csv") if out is None else out
    check_out(input, out, PROTEIN_ENDINGS)
    model = FusionTTT.load(find(reference), device=device)
    cite, source = load_cells(input, out, PROTEIN_ENDINGS, options)
    annotation = model.annotate(cite, unknown=unknown or None)
    write_proteins(out, annotation.obsm(), source, obs=annotation.obs(), rna_modality=options.get("rna_modality"))
    n_proteins = 0 if annotation.proteins is None else annotation.proteins.mean.shape[1]
    typer.echo(f"{out}: {len(annotation.cells)} cells, {n_proteins} proteins", err=True)
    counts = annotation.cells["label"].value_counts()
    for name, count in counts[counts > 0].items():
        typer.echo(f"{count:8d}  {name}")


def reference(
    action: Annotated[Literal["list", "show", "build"], typer.Argument(metavar="list|show|build", help="what to do")],
    which: Annotated[
        str | None, typer.Argument(metavar="[NAME|INPUT]", help="reference to show, or labelled CITE-seq to build from")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", metavar="DIR", help="build: folder to write")] = None,
    labels_key: OptionalLabels = None,
    title: Annotated[str, typer.Option(help="build: title of the card")] = "Reference",
    data: Annotated[str, typer.Option(help="build: where the data are from, for the card")] = "not stated",
    licence: Annotated[str, typer.Option(help="build: licence of the data, for the card")] = "other",
    tissue: Annotated[str, typer.Option(help="build: tissue, for the card")] = "not stated",
    preset: Preset = "default", settings: Settings = None, device: Compute = "auto",
) -> None:  # fmt: skip
    """List the references of the package, show the card of one, or build one from labelled CITE-seq.

    Example: scfusionttt reference show pbmc
    Example: scfusionttt reference build pbmc.h5mu --labels-key cell_type --tissue blood --out blood
    """
    if action == "build":
        if which is None or out is None or labels_key is None:
            raise SettingError("reference build needs INPUT, --labels-key KEY and --out DIR")
        check_input(Path(which))
        from scfusionttt.config import preset as named_preset
        from scfusionttt.model.reference import About, build

        config = named_preset(preset).with_settings(as_settings(settings))
        about = About(title=title, data=data, licence=licence, tissue=tissue)
        cells = open_input(Path(which), stream=False)
        metrics = build(cells, out, about, labels_key=labels_key, config=config, device=device, command=command_line())
        import pandas as pd

        print_table("held-out protocol, RNA alone", pd.DataFrame({"value": metrics}))
        typer.echo(f"{out}: written", err=True)
        return
    from scfusionttt.model.reference import DEFAULT, card, references

    if action == "show":
        typer.echo(card(which or DEFAULT))
        return
    for name in references():
        typer.echo(name)
