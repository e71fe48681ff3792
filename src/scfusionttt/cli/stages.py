"""The three stages of training."""

from pathlib import Path
from typing import Annotated

import typer

from scfusionttt.cli.common import as_settings, checkpoint_folder, load, report_held_out, save, set_training
from scfusionttt.cli.options import (
    Baseline,
    Cells,
    Compute,
    Device,
    Devices,
    DropEmpty,
    Fraction,
    Input,
    Json,
    Labels,
    Layer,
    Memory,
    Model,
    Nodes,
    OutModel,
    Protein,
    Resume,
    Rna,
    Settings,
    Split,
    WhichCells,
)
from scfusionttt.cli.processes import start


def pretrain(
    input: Input, out: OutModel,
    preset: Annotated[str, typer.Option(help="default, paper, whole or fast")] = "default",
    settings: Settings = None,
    config: Annotated[Path | None, typer.Option("--config", metavar="FILE", help="settings as TOML")] = None,
    epochs: Annotated[int | None, typer.Option(help="short for --set pretrain.epochs=N")] = None,
    seed: Annotated[int | None, typer.Option(help="short for --set seed=N")] = None,
    species: Annotated[str | None, typer.Option(help="human or mouse; by the gene names if not given")] = None,
    device: Compute = Device.auto, memory: Memory = None, devices: Devices = 1, nodes: Nodes = 1,
    resume: Resume = False, drop_empty: DropEmpty = False,
    rna: Rna = None, protein: Protein = None, layer: Layer = None, cells: WhichCells = Cells.same,
) -> None:  # fmt: skip
    """Stage 1: learn the fused representation from CITE-seq (or RNA alone), without labels.

    Example: scfusionttt pretrain pbmc.h5mu --out pbmc-model --seed 1
    """
    start(devices, nodes)
    from scfusionttt.config import read_toml
    from scfusionttt.model.fusionttt import FusionTTT

    given = read_toml(config) if config else {}
    short = {"pretrain.epochs": epochs, "seed": seed}
    changed = as_settings(settings) | {name: value for name, value in short.items() if value is not None}
    model = FusionTTT(preset, device=device.value, memory=memory, devices=devices, nodes=nodes)
    model.config = model.config.with_settings({**given, **changed})
    checkpoints = checkpoint_folder(out, resume)
    _, cite = load(input, rna, protein, layer, cells, drop_empty)
    model.pretrain(cite, species=species, checkpoints=checkpoints, resume=resume)
    save(model, out, checkpoints)


def finetune(
    input: Input, model: Model, labels: Labels, out: OutModel, train_fraction: Fraction = None, split: Split = None,
    baseline: Baseline = False,
    settings: Settings = None, device: Compute = Device.auto, memory: Memory = None,
    devices: Devices = 1, nodes: Nodes = 1, resume: Resume = False, drop_empty: DropEmpty = False,
    rna: Rna = None, protein: Protein = None, layer: Layer = None, cells: WhichCells = Cells.same,
    json_file: Json = None,
) -> None:  # fmt: skip
    """Stage 2: learn cell types from labelled CITE-seq, starting from a pretrained model.

    Example: scfusionttt finetune pbmc.h5mu --model pbmc-model --labels cell_type --train-fraction 0.75 --out typed
    """
    start(devices, nodes)
    from scfusionttt.model.fusionttt import FusionTTT

    trained = FusionTTT.load(model, device=device.value, memory=memory, devices=devices, nodes=nodes)
    set_training(trained, settings)
    checkpoints = checkpoint_folder(out, resume, start=model)
    _, cite = load(input, rna, protein, layer, cells, drop_empty)
    trained.finetune(
        cite,
        labels_key=labels,
        train_fraction=train_fraction,
        split=split,
        baseline=baseline,
        checkpoints=checkpoints,
        resume=resume,
    )
    save(trained, out, checkpoints)
    report_held_out(trained.metrics.get("finetune"), json_file)


def transfer(
    input: Input, model: Model, out: OutModel,
    labels: Annotated[str | None, typer.Option("--labels", metavar="KEY", help="cell types; none: zero-shot")] = None,
    train_fraction: Fraction = None, split: Split = None,
    baseline: Baseline = False,
    settings: Settings = None, device: Compute = Device.auto, memory: Memory = None,
    devices: Devices = 1, nodes: Nodes = 1, resume: Resume = False, drop_empty: DropEmpty = False,
    rna: Rna = None, layer: Layer = None, json_file: Json = None,
) -> None:  # fmt: skip
    """Stage 3: carry a fine-tuned model over to RNA-only data, with some labels or with none (zero-shot).

    Example: scfusionttt transfer rna.h5ad --model typed --labels cell_type --train-fraction 0.3 --out student
    """
    start(devices, nodes)
    from scfusionttt.model.fusionttt import FusionTTT

    trained = FusionTTT.load(model, device=device.value, memory=memory, devices=devices, nodes=nodes)
    set_training(trained, settings)
    checkpoints = checkpoint_folder(out, resume, start=model)
    _, cite = load(input, rna, None, layer, Cells.rna, drop_empty)
    student = trained.transfer(
        cite,
        labels_key=labels,
        train_fraction=train_fraction,
        split=split,
        baseline=baseline,
        checkpoints=checkpoints,
        resume=resume,
    )
    save(student, out, checkpoints)
    if labels is not None or json_file is not None:
        report_held_out(student.metrics.get("transfer"), json_file)
