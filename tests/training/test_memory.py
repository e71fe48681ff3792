"""The plan of memory: what is estimated is what is used, and what is allowed is kept to."""

import logging
import re
from dataclasses import replace

import pytest
import torch

from scfusionttt.config import Sizes
from scfusionttt.errors import SettingError
from scfusionttt.nn.networks import build_network
from scfusionttt.training import machine, memory
from scfusionttt.training.classify import ClassifierModule
from scfusionttt.training.pretrain import PretrainModule
from support import run_python

CPU = torch.device("cpu")


@pytest.fixture
def module(network, config):
    """Return a factory of modules that pretrain, by settings of the stage."""

    def make(**settings):
        return PretrainModule(network(), replace(config.pretrain, **settings), seed=0)

    return make


def test_live_bytes_are_counted_once_until_their_tensor_is_freed():
    with memory._AliveBytes() as alive:
        x = torch.zeros(1000)
        view = x[::2].view(-1, 2)
        assert alive.now == alive.peak == 4000
        y = view + 1
        assert alive.now == 6000
        del x, view
        assert (alive.now, alive.peak) == (2000, 6000)
        y.add_(1)
        assert (alive.now, alive.peak) == (2000, 6000)


def test_measuring_leaves_weights_gradients_and_random_numbers_as_they_are(module, cells):
    measured = module()
    weights = {name: value.clone() for name, value in measured.state_dict().items()}
    before = torch.get_rng_state()
    memory.measure(measured, cells, CPU)
    assert all(torch.equal(value, weights[name]) for name, value in measured.state_dict().items())
    assert all(p.grad is None for p in measured.parameters())
    assert torch.equal(torch.get_rng_state(), before)
    measured.losses(batch := cells.__getitems__([0, 1]), measured.hide(batch, 0), learn=True)
    assert all(p.grad is not None for p in measured.parameters())


def test_gradients_and_optimiser_states_count_for_trained_parameters_only(network, config, cells):
    steps = {
        stage: memory.measure(
            ClassifierModule(network(stage), config.finetune, class_counts=torch.ones(3), seed=0), cells, CPU
        )
        for stage in ("finetune", "transfer")
    }
    frozen = sum(4 * p.numel() for p in network("transfer").parameters() if not p.requires_grad)
    assert steps["finetune"].fixed - steps["transfer"].fixed > 2.5 * frozen


@pytest.mark.parametrize(("room_for", "at_once"), [(1000, 64), (63, 32), (31, 22), (1, 1)])
def test_a_batch_is_cut_into_equal_parts_that_fit(module, cells, monkeypatch, caplog, room_for, at_once):
    step = memory.StepMemory(fixed=2**28, per_cell=2**24)  # so large that what the process holds does not tell
    monkeypatch.setattr(memory, "measure", lambda *_: step)
    planned, limit = module(), machine.in_use(CPU) + step.of(room_for) + 2**23
    with caplog.at_level(logging.INFO, "scfusionttt"):
        memory.plan(planned, cells, CPU, limit=limit)
    assert planned.cells_at_once == at_once
    assert f" of {limit / 2**30:.2f} GiB; batches of 64 cells, {at_once} at a time" in caplog.text


def test_too_little_memory_for_one_cell_is_refused_with_advice(module, cells):
    with pytest.raises(SettingError, match=r"needs about \d.* may use 0.05 GiB; increase memory, or"):
        memory.plan(module(), cells, CPU, limit=50 * 2**20)


def test_a_process_without_memory_stops_all_of_them(module, cells, monkeypatch):
    """The other processes reported a lost process, and advised to resume."""
    monkeypatch.setattr(memory.distributed, "minimum", lambda value: 0)
    with pytest.raises(SettingError, match="another process of this run has not enough memory"):
        memory.plan(module(), cells, CPU, limit=2**40)


def test_without_a_limit_most_of_the_free_memory_may_be_used(module, cells, monkeypatch, caplog):
    monkeypatch.setattr(machine, "free", lambda _: 2**40)
    monkeypatch.setattr(machine, "in_use", lambda _: 2**30)
    with caplog.at_level(logging.INFO, "scfusionttt"):
        memory.plan(module(), cells, CPU, limit=None)
        monkeypatch.setattr(machine, "free", lambda _: None)
        memory.plan(module(), cells, CPU, limit=None)
    known, unknown = caplog.messages
    assert " of 820.20 GiB; " in known
    assert unknown == known.replace(" of 820.20 GiB", "")


def test_recomputed_blocks_need_less_memory(cells, config):
    """With every gene a token, blocks hold most of it."""
    per_cell = {}
    for recomputed in (False, True):
        settings = replace(config.network, patch=1, encoder_blocks=3, checkpoint_blocks=recomputed)
        measured = PretrainModule(build_network("pretrain", 300, 8, 0, settings, Sizes()), config.pretrain, seed=0)
        per_cell[recomputed] = memory.measure(measured, cells, CPU).per_cell
    assert per_cell[True] < 0.4 * per_cell[False]


#: Prints what the process holds before a second training and at its peak, behind the plan's line.
TRAIN = """
import ctypes, gc, logging, re, sys
from pathlib import Path
from scfusionttt.simulation.simulate import simulate
from scfusionttt.model.fusionttt import FusionTTT

def held(name):
    return int(re.search(name + r":\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024

def train(patch):
    network = {"patch": patch, "width": 32, "heads": 1, "encoder_blocks": 1}
    stage = {"epochs": 2, "batch_size": 8}
    FusionTTT("fast", progress=False, data={"n_genes": "all"}, network=network, pretrain=stage).pretrain(cells)

cells = simulate(16, 6000, 20, 2)
train(500)
logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
gc.collect()
ctypes.CDLL(None).malloc_trim(0)  # freed blocks that the process still holds would serve the second training
Path("/proc/self/clear_refs").write_text("5")  # Linux forgets the earlier peak
before = held("VmRSS")
train(1)
print(before, held("VmHWM"))
"""


@pytest.mark.slow
def test_the_estimate_is_close_to_the_memory_that_training_uses():
    output = run_python(TRAIN, OMP_NUM_THREADS="1")
    before, peak = map(int, output.splitlines()[-1].split())
    match = re.search(r"memory: about (\d+\.\d+) GiB of .*; batches of 8 cells, 8 at a time", output)
    ratio = (float(match[1]) * 2**30 - before) / (peak - before)
    assert 0.8 < ratio < 1.8, "it errs on the high side"
