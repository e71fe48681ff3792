"""Train one stage: Lightning's trainer, checkpoints and resume; returns the history and keeps the best weights."""

import json
import logging
import shutil
import signal
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import lightning as L
import pandas as pd
import torch
from torch import nn

from scfusionttt.config import StageConfig
from scfusionttt.data.loader import CellDataset, make_loader
from scfusionttt.errors import OutputError, SettingError
from scfusionttt.io.atomic import replacing
from scfusionttt.training import distributed, memory
from scfusionttt.training.callbacks import (
    AtomicCheckpointIO,
    FiniteLoss,
    History,
    Keep,
    Patience,
    PlainProgress,
    RichProgress,
    StepSeed,
)
from scfusionttt.training.machine import freed_memory_kept
from scfusionttt.training.run import Run
from scfusionttt.training.step import StageModule

log = logging.getLogger("scfusionttt")

#: Warnings of Lightning that do not apply: one vectorised look-up makes a batch, and small data are fine.
_IRRELEVANT_WARNINGS = (
    ".*does not have many workers.*",
    ".*is smaller than the logging interval.*",
    ".*exists and is not empty.*",
    ".*isinstance\\(treespec, LeafSpec\\).*",
    ".*have no `val_dataloader`.*",
    ".*sync_dist=True.*",  # every process logs the values of all
)


@torch.enable_grad()  # which notebooks may have turned off
def fit(
    module: StageModule,
    train: CellDataset,
    validation: CellDataset | None,
    stage: StageConfig,
    run: Run,
    *,
    name: str,
) -> pd.DataFrame:
    """Train `module`, and load its best weights: of the lowest validation loss, or the last without validation cells.

    Returns
    -------
    The training curves, one row per epoch.

    Raises
    ------
    SettingError
        The folder belongs to another run, the memory does not suffice for one cell at a time, or several machines have
        no folder in common.
    NonFiniteLossError
        The loss is NaN or infinite; the last good state stays in the folder.
    OutputError
        The folder cannot be created or written to.
    InputFileError
        The state to resume from is damaged.
    LostRankError
        Another process of the run was lost.
    """
    process = distributed.current()
    if run.checkpoints is None and process.size > process.local_size:
        raise SettingError(
            "training on several machines (nodes > 1) needs checkpoints: a folder that all of them can read"
        )
    with distributed.lost_process_reported():
        memory.plan(module, train, run.device, limit=run.memory)
    history = History(name)
    with (
        distributed.lost_process_reported(), _checkpoint_folder(run.checkpoints) as folder, torch.random.fork_rng(),
        _quiet(), freed_memory_kept(),
    ):  # fmt: skip
        best, last = folder / "best.ckpt", folder / "last.ckpt"
        _claim(folder / "run.json", run, states=(best, last))
        callbacks: list[L.Callback] = [
            StepSeed(run.seed), FiniteLoss(train.cell_names, stage=stage.section, lr=stage.lr), history,
        ]  # fmt: skip
        if validation:
            callbacks += [Patience(stage.patience), Keep(best, monitor="val_loss")]
        callbacks.append(Keep(last))  # after the best, whose score it saves
        if run.progress and not process.rank:
            callbacks.append(RichProgress(history) if sys.stderr.isatty() else PlainProgress(history))
        trainer = _trainer(run, callbacks, max_epochs=stage.n_epochs(len(train)))
        resumed = run.resume and last.exists()
        if run.resume and not resumed:
            log.info("%s: nothing to resume in %s; starting at epoch 1", name, folder)
        share = {"batch_size": stage.batch_size, "rank": process.rank, "size": process.size}
        with _interruptible(trainer):
            trainer.fit(
                module.train(),
                make_loader(train, shuffle_seed=run.seed, **share),
                make_loader(validation, **share) if validation else None,
                ckpt_path=last if resumed else None,
                weights_only=True,
            )
        load_weights(module, best if validation else last)
        distributed.barrier()  # the folder may be removed once every process has read it
    return history.table


def _trainer(run: Run, callbacks: list[L.Callback], *, max_epochs: int) -> L.Trainer:
    """Return Lightning's trainer without what this package does itself: progress, logs, samplers, the model's table."""
    machine = distributed.trainer_options(run.device)
    machine["plugins"].append(AtomicCheckpointIO())
    return L.Trainer(
        max_epochs=max_epochs,
        **machine,
        callbacks=callbacks,
        logger=False,
        enable_model_summary=False,
        enable_progress_bar=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
    )


def load_weights(module: nn.Module, checkpoint: Path) -> None:
    """Load a checkpoint's weights into a module; nothing in the file can run code."""
    module.load_state_dict(AtomicCheckpointIO().load_checkpoint(checkpoint)["state_dict"])


@contextmanager
def _checkpoint_folder(folder: Path | None) -> Iterator[Path]:
    """Yield the folder for checkpoints; a temporary one is removed in the end."""
    if folder is not None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"{folder} cannot be created ({error.strerror}); choose another folder") from error
        yield folder
        return
    own = tempfile.mkdtemp(prefix="scfusionttt-")
    try:
        yield Path(distributed.broadcast(own))
    finally:
        shutil.rmtree(own, ignore_errors=True)


def _claim(path: Path, run: Run, *, states: tuple[Path, ...]) -> None:
    """Write the run's identity to its folder, and remove an earlier run's states; when resuming, check the identity.

    Raises
    ------
    SettingError
        The folder belongs to another run.
    """
    identity = json.dumps(run.identity, sort_keys=True).encode()
    if run.resume and path.exists() and path.read_bytes() != identity:
        raise SettingError(
            f"{path.parent} belongs to a run with different settings, cells, labels or model, or of another version; "
            "resume with the same ones, or remove that folder to start again"
        )
    if distributed.current().rank:
        return
    if not run.resume:
        for state in states:
            state.unlink(missing_ok=True)
    with replacing(path) as temporary:  # a half-written file would block the resume
        temporary.write_bytes(identity)


@contextmanager
def _interruptible(trainer: L.Trainer) -> Iterator[None]:
    """Turn Ctrl+C into KeyboardInterrupt: Lightning disables the signal and exits Python."""
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
    """Silence Lightning's banners and irrelevant warnings."""
    loggers = [
        logging.getLogger(name)
        for name in ("lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero")
    ]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        for message in _IRRELEVANT_WARNINGS:
            warnings.filterwarnings("ignore", message)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
