"""Run a stage: device, trainer, checkpoints, resume; and hand back the best weights and the history."""

import json
import logging
import shutil
import signal
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lightning as L
import pandas as pd
import torch
from torch import nn

from scfusionttt.config import StageConfig
from scfusionttt.data.loader import CellDataset, make_loader
from scfusionttt.errors import SettingError
from scfusionttt.io.atomic import replacing
from scfusionttt.training import distributed, memory
from scfusionttt.training.callbacks import (
    FiniteLoss,
    History,
    Keep,
    Patience,
    PlainProgress,
    RichProgress,
    StepSeed,
    WholeCheckpoints,
)
from scfusionttt.training.heap import freed_memory_kept
from scfusionttt.training.step import StageModule

#: Advice of Lightning that does not apply: batches are made by one vectorised look-up, and small data are fine.
_BESIDE_THE_POINT = (
    ".*does not have many workers.*",
    ".*is smaller than the logging interval.*",
    ".*exists and is not empty.*",
    ".*isinstance\\(treespec, LeafSpec\\).*",
    ".*have no `val_dataloader`.*",
    ".*sync_dist=True.*",  # every rank has the values of all
)


def choose_device(name: str | torch.device) -> torch.device:
    """Return the device that `name` (``auto``, ``cpu``, ``cuda``, ``mps``) stands for.

    Raises
    ------
    SettingError
        When the named device is not there.
    """
    name = str(name)
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return torch.device(next(kind for kind, is_there in there.items() if is_there))
    if name not in there:
        raise SettingError(f"there is no device {name!r}; choose auto, cpu, cuda or mps")
    if not there[name]:
        raise SettingError(f"the device {name!r} is not there on this machine; use --device auto or cpu")
    return torch.device(name)


@dataclass(frozen=True, kw_only=True)
class Run:
    """How a stage is run.

    Parameters
    ----------
    device
        Where to compute.
    seed
        Seeds the order of the cells, the hidden tokens and dropout.
    checkpoints
        Folder for the state after each epoch; None: a temporary one.
    resume
        Continue from the last checkpoint in the folder, if there is one.
    progress
        Show progress on stderr: a bar on a terminal, a line per epoch (and minute) elsewhere.
    memory
        Bytes that training may take, with what the process holds already; None: 80 % of what is free.
    identity
        Settings, cells and the like, as plain values: a run goes on only with those it was started with.
    """

    device: torch.device
    seed: int
    checkpoints: Path | None = None
    resume: bool = False
    progress: bool = True
    memory: int | None = None
    identity: Mapping[str, Any] = field(default_factory=dict)


def fit(
    module: StageModule,
    train: CellDataset,
    validation: CellDataset | None,
    stage: StageConfig,
    run: Run,
    *,
    name: str,
) -> pd.DataFrame:
    """Train `module` and leave its best weights (lowest validation loss; the last without validation cells) in it.

    Returns
    -------
    The training curves, one row per epoch.

    Raises
    ------
    SettingError
        When the run to resume is another, or when the memory is too little for one cell at a time.
    NonFiniteLossError
        When the loss is no longer a number; the last good state stays in the folder.
    """
    with distributed.telling_of_a_lost_rank():
        memory.plan(module, train, run.device, limit=run.memory)
    history = History(name)
    with (
        distributed.telling_of_a_lost_rank(), _checkpoint_folder(run.checkpoints) as folder, torch.random.fork_rng(),
        _quiet(), freed_memory_kept(),
    ):  # fmt: skip
        best, last = folder / "best.ckpt", folder / "last.ckpt"
        _settle(folder / "run.json", run, states=(best, last))
        callbacks: list[L.Callback] = [
            StepSeed(run.seed), FiniteLoss(train.cell_names, stage=name, lr=stage.lr), history,
        ]  # fmt: skip
        if validation:
            callbacks += [Patience(stage.patience), Keep(best, monitor="val_loss")]
        callbacks.append(Keep(last))  # behind the best, whose score it notes
        here = distributed.here()
        if run.progress and not here.rank:
            callbacks.append(RichProgress(history) if sys.stderr.isatty() else PlainProgress(history))
        machine = distributed.trainer_options(run.device)
        machine["plugins"].append(WholeCheckpoints())
        share = {"batch_size": stage.batch_size, "rank": here.rank, "size": here.size}
        trainer = L.Trainer(
            max_epochs=stage.n_epochs(len(train)), **machine,
            callbacks=callbacks, logger=False, enable_model_summary=False, enable_progress_bar=False,
            num_sanity_val_steps=0, use_distributed_sampler=False,
        )  # fmt: skip
        with _interruptible(trainer):
            trainer.fit(
                module.train(),
                make_loader(train, shuffle_seed=run.seed, **share),
                make_loader(validation, **share) if validation else None,
                ckpt_path=last if run.resume and last.exists() else None,
                weights_only=True,
            )
        load_weights(module, best if validation else last)
        distributed.wait()  # the state may go when every rank has read it
    return history.table


def load_weights(module: nn.Module, checkpoint: Path) -> None:
    """Load a checkpoint's weights into a module; nothing in the file can run code."""
    module.load_state_dict(WholeCheckpoints().load_checkpoint(checkpoint)["state_dict"])


@contextmanager
def _checkpoint_folder(folder: Path | None) -> Iterator[Path]:
    """Yield a folder for checkpoints; a temporary one is removed, a named one stays for a resume."""
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        yield folder
        return
    own = tempfile.mkdtemp(prefix="scfusionttt-")
    try:
        yield Path(distributed.from_first(own))
    finally:
        shutil.rmtree(own, ignore_errors=True)


def _settle(path: Path, run: Run, *, states: tuple[Path, ...]) -> None:
    """Keep what the run is, or require that it is the one to resume; a new run has no use for an earlier one's states.

    Raises
    ------
    SettingError
        When the run to resume is another.
    """
    identity = json.dumps(run.identity, sort_keys=True).encode()
    if run.resume and path.exists() and path.read_bytes() != identity:
        raise SettingError(
            f"{path.parent} holds a run with other settings, cells, labels or another model: "
            "give those it was started with, or remove that folder to start anew"
        )
    if distributed.here().rank:
        return
    if not run.resume:
        for state in states:
            state.unlink(missing_ok=True)
    with replacing(path) as temporary:  # cut short by a kill, it would refuse the resume
        temporary.write_bytes(identity)


@contextmanager
def _interruptible(trainer: L.Trainer) -> Iterator[None]:
    """Let Ctrl+C be a KeyboardInterrupt: Lightning switches the signal off and leaves Python."""
    in_main_thread = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as stop:
        if not trainer.interrupted:
            raise
        raise KeyboardInterrupt from stop
    finally:
        if in_main_thread:
            signal.signal(signal.SIGINT, handler)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Lightning's banners and advice off the user's terminal."""
    loggers = [
        logging.getLogger(name)
        for name in ("lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero")
    ]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        for message in _BESIDE_THE_POINT:
            warnings.filterwarnings("ignore", message)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
