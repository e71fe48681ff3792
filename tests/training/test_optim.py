from itertools import pairwise

import pytest
from torch import nn

from scfusionttt.training.optim import WEIGHT_DECAY, adamw_with_cosine


def rates(module, *, warmup):
    made = adamw_with_cosine(module, lr=0.1, beta2=0.95, warmup=warmup, n_steps=100)
    optimizer, scheduler = made["optimizer"], made["lr_scheduler"]["scheduler"]
    found = []
    for _ in range(100):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found, optimizer.param_groups[0]["lr"]


def test_the_rate_climbs_to_its_peak_and_falls_on_a_cosine_to_zero():
    found, end = rates(nn.Linear(2, 2), warmup=0.2)
    assert found[:20] == pytest.approx([0.1 * (step + 1) / 20 for step in range(20)])
    assert found[20] == pytest.approx(0.1)
    assert found[60] == pytest.approx(0.05)  # half-way down
    assert all(later < earlier for earlier, later in pairwise(found[20:]))
    assert end == pytest.approx(0, abs=1e-9)


def test_without_warm_up_the_first_step_is_at_the_peak():
    assert rates(nn.Linear(2, 2), warmup=0.0)[0][0] == pytest.approx(0.1)


def test_only_matrices_decay(network):
    """Biases and scales that are kept per head or per token look like matrices, and once decayed as such."""
    body = network().backbone
    made = adamw_with_cosine(body, lr=0.1, beta2=0.999, warmup=0.0, n_steps=9)
    assert {group["betas"] for group in made["optimizer"].param_groups} == {(0.9, 0.999)}
    name_of = {id(p): name for name, p in body.named_parameters()}
    groups = {
        group["weight_decay"]: {name_of[id(p)] for p in group["params"]} for group in made["optimizer"].param_groups
    }
    assert set(groups) == {WEIGHT_DECAY, 0.0}
    decaying, others = ({name.rpartition("blocks.0.")[2] for name in groups[kind]} for kind in (WEIGHT_DECAY, 0.0))
    assert {"mixer.qkv.weight", "mixer.inner_weights.0", "mlp.0.weight"} <= decaying
    assert {"mixer.inner_biases.0", "mixer.inner_scale", "mixer.inner_shift", "mixer.step_delta"} <= others
    assert {"mixer_norm.weight", "mixer.norm.bias", "mlp.0.bias"} <= others
    assert sum(map(len, groups.values())) == len(name_of)


def test_what_is_frozen_is_not_handed_to_the_optimiser(network):
    student = network("transfer")
    made = adamw_with_cosine(student, lr=0.1, beta2=0.999, warmup=0.0, n_steps=9)
    handed = {id(p) for group in made["optimizer"].param_groups for p in group["params"]}
    assert handed == {id(p) for p in student.parameters() if p.requires_grad}
