"""The three stages of training."""

from pathlib import Path
from typing import Annotated

import typer

from scfusionttt.cli.common import (
    as_settings,
    check_input,
    load_model,
    open_input,
    report_held_out,
    run_folder,
    save,
    training_config,
)
from scfusionttt.cli.options import (
    Baseline,
    Batches,
    Compute,
    Devices,
    Fraction,
    Input,
    InputOptions,
    Json,
    Labels,
    Memory,
    Model,
    Nodes,
    OptionalLabels,
    OutModel,
    Overwrite,
    Preset,
    Resume,
    Settings,
    Species,
    Split,
    batch_keys,
    reads_counts,
)
from scfusionttt.cli.processes import start
from scfusionttt.errors import SettingError


@reads_counts
def pretrain(
    input: Input, out: OutModel, batch_key: Batches = None, preset: Preset = "default", settings: Settings = None,
    config: Annotated[Path | None, typer.Option("--config", metavar="FILE", help="settings in a TOML file")] = None,
    epochs: Annotated[int | None, typer.Option(metavar="N", help="short for --set pretrain.epochs=N")] = None,
    seed: Annotated[int | None, typer.Option(metavar="N", help="short for --set seed=N")] = None,
    species: Species = None,
    device: Compute = "auto", memory: Memory = None, devices: Devices = 1, nodes: Nodes = 1,
    resume: Resume = False, overwrite: Overwrite = False, *, options: InputOptions,
) -> None:  # fmt: skip
    """Stage 1: learn the fused representation from CITE-seq (or RNA alone), without labels.

    Example: scfusionttt pretrain pbmc.h5mu --out pbmc-model --seed 1
    """
    start(devices, nodes)
    from scfusionttt.config import preset as named_preset
    from scfusionttt.config import read_toml

    given = read_toml(config) if config else {}
    short = {"pretrain.epochs": epochs, "seed": seed}
    changed = as_settings(settings) | {name: value for name, value in short.items() if value is not None}
    config_of_run = named_preset(preset).with_settings({**given, **changed})
    check_input(input)
    with run_folder(out, resume=resume, overwrite=overwrite) as checkpoints:
        from scfusionttt.model.fusionttt import FusionTTT  # loads torch, after what can be checked without it

        model = FusionTTT(device=device, memory=memory, devices=devices, nodes=nodes)
        model.config = config_of_run
        model.pretrain(
            open_input(input), batch_key=batch_keys(batch_key), species=species, checkpoints=checkpoints,
            resume=resume, **options,
        )  # fmt: skip
        save(model, out, checkpoints, overwrite=overwrite or resume)


@reads_counts
def finetune(
    input: Input, model: Model, labels_key: Labels, out: OutModel,
    train_fraction: Fraction = None, split: Split = None, baseline: Baseline = False,
    settings: Settings = None, device: Compute = "auto", memory: Memory = None,
    devices: Devices = 1, nodes: Nodes = 1, resume: Resume = False, overwrite: Overwrite = False,
    *, options: InputOptions, json_file: Json = None,
) -> None:  # fmt: skip
    """Stage 2: learn cell types from labelled CITE-seq, starting from a pretrained model.

    Example: scfusionttt finetune pbmc.h5mu --model pbmc-model --labels-key cell_type --train-fraction 0.75 --out typed
    """
    start(devices, nodes)
    config_of_run = training_config(model, settings)
    check_input(input)
    with run_folder(out, resume=resume, overwrite=overwrite, start=model) as checkpoints:
        trained = load_model(model, input, device=device, memory=memory, devices=devices, nodes=nodes)
        trained.config = config_of_run
        trained.finetune(
            open_input(input), labels_key=labels_key, train_fraction=train_fraction, split=split, baseline=baseline,
            checkpoints=checkpoints, resume=resume, **options,
        )  # fmt: skip
        save(trained, out, checkpoints, overwrite=overwrite or resume)
    report_held_out(trained.metrics.get("finetune"), json_file)


@reads_counts
def transfer(
    input: Input, model: Model, out: OutModel, labels_key: OptionalLabels = None,
    train_fraction: Fraction = None, split: Split = None, baseline: Baseline = False,
    settings: Settings = None, device: Compute = "auto", memory: Memory = None,
    devices: Devices = 1, nodes: Nodes = 1, resume: Resume = False, overwrite: Overwrite = False,
    *, options: InputOptions, json_file: Json = None,
) -> None:  # fmt: skip
    """Stage 3: transfer a fine-tuned model to RNA-only data, with labels or without (zero-shot).

    Proteins in the input are not used; --cells is rna by default.

    Example: scfusionttt transfer rna.h5ad --model typed --labels-key cell_type --train-fraction 0.3 --out student
    """
    start(devices, nodes)
    if settings and labels_key is None:
        raise SettingError("--set has no effect without --labels-key: a zero-shot transfer trains nothing")
    config_of_run = training_config(model, settings)
    if config_of_run.finetune.hide_protein != training_config(model, None).finetune.hide_protein:
        raise SettingError("finetune.hide_protein has no effect in scfusionttt transfer, which uses RNA alone")
    check_input(input)
    with run_folder(out, resume=resume, overwrite=overwrite, start=model) as checkpoints:
        trained = load_model(model, input, device=device, memory=memory, devices=devices, nodes=nodes)
        trained.config = config_of_run
        student = trained.transfer(
            open_input(input), labels_key=labels_key, train_fraction=train_fraction, split=split, baseline=baseline,
            checkpoints=checkpoints, resume=resume, **options,
        )  # fmt: skip
        save(student, out, checkpoints, overwrite=overwrite or resume)
    if labels_key is not None or json_file is not None:
        report_held_out(student.metrics.get("transfer"), json_file)
