"""Lightning callbacks: seeds, progress, history, checkpoints, and stopping early or at a loss that is not finite."""

import logging
import sys
import time
from io import BytesIO
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import lightning as L
import pandas as pd
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO

from scfusionttt.data.loader import CellBatch
from scfusionttt.errors import InputFileError, NonFiniteLossError, first_line, name_some
from scfusionttt.io.atomic import replacing
from scfusionttt.training import distributed

log = logging.getLogger("scfusionttt")

#: Seconds between two lines of progress within an epoch.
MINUTE = 60.0


class StepSeed(L.Callback):
    """Seed torch by the number of the step, so that a resumed run repeats the dropout of an uninterrupted one."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(self, trainer: L.Trainer, module: L.LightningModule, batch: Any, batch_idx: int) -> None:
        """Seed the step, differently in each process."""
        torch.manual_seed(self.seed * 1_000_003 + trainer.global_step + (trainer.global_rank << 40))


class FiniteLoss(L.Callback):
    """Stop at the first loss that is NaN or infinite, and name the cells of its batch."""

    def __init__(self, cell_names: pd.Index, *, stage: str, lr: float) -> None:
        self.cell_names, self.stage, self.lr = cell_names, stage, lr

    def on_train_batch_end(
        self, trainer: L.Trainer, module: L.LightningModule, outputs: Any, batch: CellBatch, batch_idx: int
    ) -> None:
        """Check the loss of the step."""
        if not torch.isfinite(outputs["loss"]):
            cells = self.cell_names[distributed.gather_rows(batch.row.cpu()).numpy()].tolist()
            raise NonFiniteLossError(
                f"the training loss is not finite at step {trainer.global_step}, in the batch with cells "
                f"{name_some(cells)}; lower the learning rate ({self.stage}.lr={self.lr / 4:g}) or check "
                "these cells with `scfusionttt validate`"
            )


class Patience(EarlyStopping):
    """Stop when the validation loss has not improved for some epochs; resuming a stopped run trains no further."""

    def __init__(self, patience: int) -> None:
        super().__init__("val_loss", patience=patience)

    def on_fit_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Do not train a run that has stopped already."""
        trainer.should_stop = trainer.should_stop or self.wait_count >= self.patience


class Keep(ModelCheckpoint):
    """Keep one checkpoint: of the lowest `monitor`, or of the last epoch. The folder may be moved before a resume."""

    def __init__(self, path: Path, *, monitor: str | None = None) -> None:
        super().__init__(path.parent, filename=path.stem, monitor=monitor, enable_version_counter=False)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Move the paths to the current folder: otherwise Lightning forgets the score of the best checkpoint."""

        def moved(path: str) -> str:
            return str(Path(str(self.dirpath)) / Path(path).name) if path else path

        paths = {key: moved(state[key]) for key in state if key.endswith("_model_path")}
        best = {moved(path): score for path, score in state["best_k_models"].items()}
        super().load_state_dict({**state, **paths, "best_k_models": best, "dirpath": self.dirpath})


class AtomicCheckpointIO(TorchCheckpointIO):
    """Write checkpoints atomically; Lightning's own copy from another disk can be cut short by a kill."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write a temporary file and rename it; OutputError if the disk is full."""
        content = BytesIO()
        torch.save(checkpoint, content)  # written directly, a full disk is a RuntimeError without a reason
        with replacing(path) as temporary:
            temporary.write_bytes(content.getbuffer())

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        """Read plain values and tensors; InputFileError for anything else, which could run code."""
        try:
            return torch.load(path, map_location=map_location or "cpu", weights_only=True)
        except (RuntimeError, UnpicklingError, EOFError) as error:
            raise InputFileError(
                f"{path} cannot be read ({first_line(error)}); remove {Path(path).parent} to start again"
            ) from error


class History(L.Callback):
    """Collect the training curves: one row per epoch."""

    def __init__(self, stage: str) -> None:
        self.stage = stage
        self.rows: list[dict[str, Any]] = []
        self._start = time.monotonic()

    def on_train_epoch_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Start the epoch's clock."""
        self._start = time.monotonic()

    def on_train_epoch_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Add the epoch's row."""
        values = {name: float(value) for name, value in trainer.callback_metrics.items()}
        row = {"stage": self.stage, "epoch": trainer.current_epoch + 1, "seconds": time.monotonic() - self._start}
        self.rows.append({**row, **dict(sorted(values.items()))})

    def state_dict(self) -> dict[str, Any]:
        """Rows so far, for the checkpoint."""
        return {"rows": self.rows}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over the rows of the epochs before a resume."""
        self.rows = list(state["rows"])
        log.info("%s: resuming after epoch %d", self.stage, len(self.rows))

    @property
    def table(self) -> pd.DataFrame:
        """Training curves: stage, epoch, seconds, losses."""
        return pd.DataFrame(self.rows)


class PlainProgress(L.Callback):
    """One line per epoch on stderr, for logs, and within a long epoch one per minute."""

    def __init__(self, history: History) -> None:
        self.history = history
        self._last_line = time.monotonic()

    def on_train_epoch_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Start the minute's clock."""
        self._last_line = time.monotonic()

    def on_train_batch_end(
        self, trainer: L.Trainer, module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Print the progress within the epoch, once per minute."""
        if time.monotonic() - self._last_line < MINUTE:
            return
        self._last_line = time.monotonic()
        done, of = batch_idx + 1, trainer.num_training_batches
        epoch = f"{self.history.stage} epoch {trainer.current_epoch + 1}/{trainer.max_epochs}"
        print(f"{epoch}  batch {done}/{of}  loss {float(outputs['loss']):.4f}", file=sys.stderr, flush=True)

    def on_train_epoch_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Print the epoch; the history, called before this callback, has added its row."""
        print(describe_epoch(self.history.rows[-1], trainer.max_epochs), file=sys.stderr, flush=True)


class RichProgress(L.Callback):
    """A progress bar for a terminal, with the losses of the last epoch."""

    def __init__(self, history: History) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self.history = history
        self.progress = Progress(
            TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:3.0f}%"),
            TimeRemainingColumn(), TextColumn("left"), console=Console(stderr=True),
        )  # fmt: skip

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Show the bar."""
        done = int(trainer.current_epoch * trainer.num_training_batches)
        self.task = self.progress.add_task(
            self.history.stage, total=(trainer.max_epochs or 0) * trainer.num_training_batches, completed=done
        )
        self.progress.start()

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        """Advance by one batch."""
        self.progress.advance(self.task)

    def on_train_epoch_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Show the epoch's losses."""
        self.progress.update(self.task, description=describe_epoch(self.history.rows[-1], trainer.max_epochs))

    def teardown(self, trainer: L.Trainer, module: L.LightningModule, stage: str) -> None:
        """Stop the bar."""
        self.progress.stop()

    def on_exception(self, trainer: L.Trainer, module: L.LightningModule, exception: BaseException) -> None:
        """Stop the bar after an interrupt or an error, when Lightning does not call `teardown`."""
        self.progress.stop()


def describe_epoch(row: dict[str, Any], n_epochs: int | None) -> str:
    """Return one line of an epoch's row: ``pretrain epoch 3/20  train 0.912  val 0.934  12.1 s``."""
    losses = "".join(f"  {part} {row[f'{part}_loss']:.4f}" for part in ("train", "val") if f"{part}_loss" in row)
    return f"{row['stage']} epoch {row['epoch']}/{n_epochs}{losses}  {row['seconds']:.1f} s"
