"""A batch that passes through the network in parts teaches what it teaches undivided."""

from contextlib import nullcontext
from dataclasses import replace

import pandas as pd
import pytest
import torch

from scfusionttt.data.loader import CellBatch
from scfusionttt.training import machine
from scfusionttt.training.classify import ClassifierModule
from scfusionttt.training.optim import adamw_with_cosine
from scfusionttt.training.pretrain import PretrainModule
from scfusionttt.training.trainer import fit


@pytest.fixture
def module(network, config):
    """Return a factory of a stage's module; dropout is off, its random numbers would differ."""

    def make(stage):
        masked = {"decoder_blocks": 1, "latent": 0} if stage == "masked" else {}
        fresh = network("pretrain" if masked else stage, dropout=0.0, **masked).train()
        if stage == "pretrain":
            return PretrainModule(fresh, replace(config.pretrain, hide_protein=0.3), seed=0)
        if stage == "masked":
            return PretrainModule(fresh, replace(config.pretrain, hide_protein=0.3, objective="masked"), seed=0)
        made = ClassifierModule(fresh, config.finetune, class_counts=torch.tensor([90, 100, 10]), seed=0).train()
        made.hide_protein = 0.3
        return made

    return make


def learned(module, batch, *, parts, validation=False):
    """Return the loss, the logged values, and the gradients of a batch in parts of so many cells."""
    module.cells_at_once = parts
    module.zero_grad()
    module.train(not validation)
    visible = module.hide(batch, step=3, validation=validation)
    loss, logged, _ = module.losses(batch, visible, learn=not validation)
    return loss, logged, {name: p.grad for name, p in module.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("parts", [13, 1])
@pytest.mark.parametrize("stage", ["pretrain", "masked", "finetune", "transfer"])
def test_loss_and_gradients_of_the_parts_sum_to_those_of_the_batch(module, cells, stage, parts):
    """Parts of 13 leave one of 1; cells without proteins, hidden tokens and classes fall into them unevenly."""
    batch, tested = cells.__getitems__(range(40)), module(stage)
    loss, logged, whole = learned(tested, batch, parts=64)
    loss_again, logged_again, summed = learned(tested, batch, parts=parts)
    torch.testing.assert_close(loss_again, loss)
    torch.testing.assert_close(logged_again, logged)
    unused = ("network.rna_from_z.", "network.protein_from_z.") if stage == "masked" else ()
    learning = {name for name, p in tested.named_parameters() if p.requires_grad and not name.startswith(unused)}
    assert set(whole) == set(summed) == learning
    scale = max(float(gradient.abs().max()) for gradient in whole.values())
    torch.testing.assert_close(summed, whole, rtol=1e-5, atol=1e-6 * scale)


@pytest.mark.parametrize("parts", [64, 13])
@pytest.mark.parametrize(
    "stage", ["pretrain", *(pytest.param(stage, marks=pytest.mark.slow) for stage in ("finetune", "transfer"))]
)
def test_nothing_of_a_step_stays_behind_on_the_cpu(module, cells, stage, parts, monkeypatch):
    """A device without values stands in for a GPU: tensors of two devices do not go together there, either."""
    monkeypatch.setattr(torch, "autocast", lambda *args, **options: nullcontext())  # it does not know that device
    away = module(stage).to("meta")
    loss, logged, gradients = learned(away, cells.__getitems__(range(40)).to("meta"), parts=parts)
    assert {x.device.type for x in (loss, *logged.values(), *gradients.values())} == {"meta"}
    assert set(gradients) == {name for name, p in away.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("stage", ["pretrain", "finetune"])
def test_parts_give_the_validation_of_the_batch(module, cells, stage):
    batch, tested = cells.__getitems__(range(40)), module(stage)
    _, whole, none = learned(tested, batch, parts=64, validation=True)
    torch.testing.assert_close(learned(tested, batch, parts=13, validation=True)[1], whole)
    assert none == {}


def test_the_weights_after_a_step_in_parts_are_those_of_an_undivided_step(module, cells):
    """In float64, where AdamW finds no gradient that is nothing but rounding and makes a whole step of it."""
    batch = CellBatch(*(x.double() if x.is_floating_point() else x for x in cells.__getitems__(range(40))))
    weights = []
    for parts in (64, 13):
        tested = module("pretrain").double()
        made = adamw_with_cosine(tested, lr=0.01, beta2=0.95, warmup=0.125, n_steps=3)
        learned(tested, batch, parts=parts)
        made["optimizer"].step()
        weights.append(tested.state_dict())
    torch.testing.assert_close(*weights, rtol=1e-9, atol=1e-9)


def test_a_run_in_parts_has_the_curves_of_an_undivided_one(module, cells, run, monkeypatch):
    train, validation = cells.subset(cells.rows[:150]), cells.subset(cells.rows[150:])
    curves = []
    for parts in (64, 13):
        monkeypatch.setattr(machine, "cells_at_once", lambda *_, parts=parts: parts)
        tested = module("pretrain")
        history = fit(tested, train, validation, replace(tested.stage, epochs=1), run(), name="pretrain")
        curves.append(history.drop(columns="seconds"))
        assert tested.cells_at_once == parts
    pd.testing.assert_frame_equal(*curves, check_exact=False, rtol=1e-3)


@pytest.mark.parametrize(("fits", "taken"), [(64, 7), (7, 7), (5, 5)])
def test_a_run_that_goes_on_divides_a_batch_as_before(module, fits, taken, caplog):
    """What is free decides the parts, and these the rounding: another amount had given other weights after a resume."""
    one, state = module("pretrain"), {}
    one.cells_at_once = 7
    one.on_save_checkpoint(state)
    one.cells_at_once = fits
    one.on_load_checkpoint(state)
    assert one.cells_at_once == taken
    assert ("began with 7 cells at a time" in caplog.text) == (fits < 7)
