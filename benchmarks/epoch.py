"""One epoch of pretraining, with a clock between its phases and torch's profiler over some of its steps."""

import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import torch
from torch.autograd.profiler_util import FunctionEvent

from scfusionttt.config import Config, Sizes
from scfusionttt.data.cells import CiteSeq
from scfusionttt.data.features import choose_features, match_features
from scfusionttt.data.loader import CellDataset
from scfusionttt.data.preprocess import Preprocessing
from scfusionttt.data.split import random_split
from scfusionttt.nn.layers import TTTMixer
from scfusionttt.nn.networks import PretrainNetwork
from scfusionttt.training.pretrain import PretrainModule
from scfusionttt.training.run import Run
from scfusionttt.training.trainer import fit

#: Phases of a training step; the rest of an epoch is validation and checkpoints.
STEP = ("loading", "forward", "backward", "optimiser")
REST = "validation and rest"
PRODUCTS = {"aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm"}
#: Names of the TTT operator (compiled; in torch) and of attention in the profiler, forward and backward.
OPERATORS = {
    "_TTTLinear",
    "_TTTLinearBackward",
    "_InSegments",
    "_InSegmentsBackward",
    "aten::scaled_dot_product_attention",
    "aten::_scaled_dot_product_flash_attention_for_cpu_backward",
}


class TimedPretraining(PretrainModule):
    """Pretraining that sums the time of each phase, by any clock."""

    def __init__(self, *arguments: Any, clock: Callable[[], float], **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.clock, self.seconds = clock, dict.fromkeys((*STEP, REST), 0.0)
        self.last, self.latest = clock(), REST

    def note(self, phase: str) -> None:
        """Add the time since the last call to a phase."""
        now = self.clock()
        self.seconds[phase] += now - self.last
        self.last, self.latest = now, phase

    def on_train_epoch_start(self) -> None:
        """End the phase before the first batch."""
        self.note(REST)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """End the loading of a batch."""
        self.note("loading")

    def terms(self, *arguments: Any) -> Any:
        """End the forward pass of a batch or of a part of it; each part is followed by a backward pass."""
        if self.training and self.latest == "forward":
            self.note("backward")
        terms = super().terms(*arguments)
        if self.training:
            self.note("forward")
        return terms

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        """End the backward pass, including the clipping of gradients."""
        self.note("backward")

    def on_train_batch_end(self, *_: Any) -> None:
        """End a step."""
        self.note("optimiser")

    def on_train_epoch_end(self) -> None:
        """End the validation."""
        self.note(REST)


class Epoch:
    """Cells ready for pretraining.

    Parameters
    ----------
    cite
        Raw counts.
    config
        A preset.
    """

    def __init__(self, cite: CiteSeq, config: Config) -> None:
        self.config = config
        self.features, _ = choose_features(cite, self.config.data)
        self.match = match_features(cite, self.features)
        self.cells = CellDataset(cite, self.match, Preprocessing.fit(cite, self.match, self.config.data))

    def run(self, settings: dict[str, str], operator: Callable | None, epochs: int) -> dict[str, float]:
        """Return seconds of wall and process time per epoch, and the training loss."""
        module = self._module(settings, operator, time.process_time)
        start = time.perf_counter()
        history = self._fit(module, epochs=epochs)
        wall = (time.perf_counter() - start) / epochs
        phases = {name: seconds / epochs for name, seconds in module.seconds.items()}
        process = sum(phases.values())
        times = {"wall": wall, "cores": process / wall, "process": process, **phases}
        return times | {"training loss": float(history["train_loss"].iloc[-1])}

    def share(self, settings: dict[str, str], operator: Callable | None, batches: int = 8) -> dict[str, float]:
        """Return the fractions of matrix products and of the operator in some training steps, in wall time."""
        module = self._module(settings, operator, time.perf_counter)
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
            self._fit(module, epochs=1, batches=batches)
        products, inside = microseconds(profile.events())
        total = sum(module.seconds[phase] for phase in STEP) * 1e6
        return {"products": products / total, "operator": inside / total, "both": (products + inside) / total}

    def _module(
        self, settings: dict[str, str], operator: Callable | None, clock: Callable[[], float]
    ) -> TimedPretraining:
        """Return an untrained module, always with the same weights, optionally with another operator."""
        config = self.config.with_settings(settings)
        with torch.random.fork_rng():
            torch.manual_seed(config.seed)
            network = PretrainNetwork(len(self.features.genes), len(self.features.proteins), config.network, Sizes())
        for layer in network.modules():
            if operator is not None and isinstance(layer, TTTMixer):
                layer.operator = operator
        return TimedPretraining(network, config.pretrain, seed=config.seed, clock=clock)

    def _fit(self, module: TimedPretraining, *, epochs: int, batches: int | None = None) -> Any:
        """Train with validation, or on the first `batches` of the cells without."""
        stage = replace(module.stage, epochs=epochs)
        learn, held_out = random_split(len(self.cells), fraction=1 - stage.validation_fraction, seed=module.seed)
        if batches:
            learn = learn[: batches * stage.batch_size]
        train, validation = (self.cells.subset(self.cells.rows[rows]) for rows in (learn, held_out))
        run = Run(device=torch.device("cpu"), seed=module.seed, progress=False)
        module.last = module.clock()
        history = fit(module, train, None if batches else validation, stage, run, name="pretrain")
        module.note(REST)
        return history


def microseconds(events: Iterable[FunctionEvent]) -> tuple[float, float]:
    """Return the time in matrix products outside the operator, and in the operator with everything it calls."""
    products = inside = 0.0
    for event in events:
        if _within_operator(event.cpu_parent):
            continue
        if event.name in OPERATORS:
            inside += event.cpu_time_total
        elif event.name in PRODUCTS:
            products += event.self_cpu_time_total
    return products, inside


def _within_operator(event: FunctionEvent | None) -> bool:
    while event is not None:
        if event.name in OPERATORS:
            return True
        event = event.cpu_parent
    return False
