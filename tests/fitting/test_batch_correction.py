"""Batch correction: the shifts of a batch."""

from dataclasses import replace

import numpy as np
import torch

from scfusionttt.fitting.batch_correction import (
    _alike_everywhere,
    _new_shift,
    _set_landmarks,
    _set_stretch,
    _solve,
    fit_kinds,
    fit_new_batches,
)
from scfusionttt.fitting.sample import read_sample
from scfusionttt.nn.correction import BatchCorrection

N_KINDS, N_VALUES, EFFECT, APART = 3, 5, 0.5, 5.0


def test_a_type_of_a_small_batch_alone_is_not_moved_to_its_kind_in_others():
    """Cells of a donor of few cells, assigned to a kind of others for want of their own, were merged with these."""
    rng = np.random.default_rng(0)
    kind = np.repeat([0, 1, 2, 0, 1, 2, 0], [60, 60, 60, 4, 8, 8, 12])
    batch = np.repeat([0, 1], [180, 32])
    only = np.arange(len(kind)) >= 200  # its own type, which the first batch lacks
    means = np.eye(N_KINDS, N_VALUES) * 10
    values = means[kind] + rng.normal(0, 0.1, (len(kind), N_VALUES))
    values[batch == 1, 3] += EFFECT
    values[only, 4] += APART
    correction = BatchCorrection(2, N_KINDS, N_VALUES, N_VALUES)
    _solve(correction, torch.from_numpy(values), torch.eye(N_KINDS).double()[kind], batch[:, None], lambda x: x)

    by_rna = torch.zeros(len(values), dtype=torch.bool)
    corrected = correction(
        torch.from_numpy(values).float(), torch.from_numpy(batch)[:, None], lambda x: x, by_rna
    ).numpy()
    np.testing.assert_allclose(corrected[(batch == 1) & (kind > 0), 3], corrected[batch == 0, 3].mean(), atol=0.5)
    distance = np.linalg.norm(corrected[only].mean(axis=0) - corrected[(kind == 0) & (batch == 0)].mean(axis=0))
    assert distance > 0.8 * APART


def test_what_a_batch_adds_to_all_kinds_is_removed_completely():
    """The penalty of the shifts, meant for kinds with few cells, left a sixth of it: two studies hardly mixed."""
    rng = np.random.default_rng(0)
    kind, batch = np.repeat(np.arange(N_KINDS), 200), np.tile([0, 1], 300)
    values = torch.from_numpy(np.eye(N_KINDS, N_VALUES)[kind] * 10 + rng.normal(0, 0.1, (len(kind), N_VALUES)))
    values[batch == 1, 3] += APART
    correction = BatchCorrection(2, N_KINDS, N_VALUES, N_VALUES)
    _solve(correction, values, torch.eye(N_KINDS).double()[kind], batch[:, None], lambda x: x)
    between = correction.shifts[1] - correction.shifts[0]
    np.testing.assert_allclose(between[:, 3], APART, rtol=0.02)
    np.testing.assert_allclose(between[:, 4], 0, atol=0.05)


def test_other_proportions_of_subtypes_in_a_query_are_not_taken_for_batch_effects():
    """A donor with mostly memory cells in one kind, and mostly naive cells in another, had both moved to the middle."""
    rng, n = np.random.default_rng(0), 200
    kind = np.repeat(np.arange(N_KINDS), n)
    share = np.array([0.2, 0.5, 0.8])[kind]  # of memory cells; 0.5 in the reference
    memory = rng.random(len(kind)) < share
    correction = BatchCorrection(1, N_KINDS, N_VALUES, N_VALUES)
    correction.centroids.copy_(torch.eye(N_KINDS, N_VALUES) * 10)
    correction.counts.fill_(n)
    values = correction.centroids.numpy()[kind] + rng.normal(0, 0.3, (len(kind), N_VALUES))
    values[:, 4] += memory - 0.5
    effect = np.array([0.0, 0.0, 0.0, EFFECT, 0.0])
    shift = _new_shift(correction, torch.from_numpy(values + effect).float(), lambda x: x).numpy()
    plain = np.stack([(values + effect)[kind == k].mean(axis=0) for k in range(N_KINDS)]) - correction.centroids.numpy()
    np.testing.assert_allclose(shift[:, 3], EFFECT, atol=0.15)
    assert np.abs(shift[:, 4]).max() < 0.55 * np.abs(plain[:, 4]).max()


def test_the_effect_of_a_lane_is_not_removed_twice(cells, network, monkeypatch):
    """A donor of proteins alone was given the effect of its lane, too, which is removed by the key of the lanes."""
    n_values, effects = 6, torch.tensor([[0.0, 0, 0, 1, 0, 0], [0, 0, 0, 0, 2, 0]])
    correction = BatchCorrection(4, N_KINDS, n_values, n_values)
    correction.centroids.copy_(torch.eye(N_KINDS, n_values) * 10)
    correction.counts.fill_(len(cells))
    correction.shifts[3] = effects[1]
    kind = torch.arange(len(cells)) % N_KINDS
    values = correction.centroids[kind] + effects.sum(dim=0) + 0.3 * torch.randn(len(cells), n_values)
    monkeypatch.setattr(
        "scfusionttt.fitting.batch_correction._read", lambda *_: (values.numpy(), np.ones((len(cells), 1), dtype=bool))
    )
    own = cells.subset(cells.rows)
    own.batches = np.tile([1, 3], (len(cells), 1))  # the second donor, in the second lane
    fit_new_batches(network(), correction, own, [1], torch.device("cpu"), seed=0)
    torch.testing.assert_close(correction.shifts[1], effects[:1].expand(N_KINDS, -1), atol=0.2, rtol=0)


def test_proteins_that_tell_a_batch_without_proteins_are_left_out():
    """Predicted from RNA, most of 224 proteins hardly varied: cells with RNA alone had no neighbours but each other."""
    rng, batch = np.random.default_rng(0), np.repeat([0, 1], 200)
    proteins = rng.normal(size=(400, 3))
    proteins[batch == 1] *= [0.8, 0.3, 1]
    measured = np.repeat(batch == 0, 3).reshape(400, 3)
    measured[:150, 2] = False  # most cells of the first batch lack it
    assert _alike_everywhere(proteins, measured, batch[:, None]).tolist() == [True, False, False]
    measured[batch == 1] = True
    assert _alike_everywhere(proteins, measured, batch[:, None]).tolist() == [True, True, False]
    assert not len(_alike_everywhere(proteins[:, :0], measured[:, :0], batch[:, None]))


def test_cells_of_a_batch_without_proteins_lie_as_far_from_their_kinds_as_others():
    """They lay in the middle of each kind: in a mosaic they were the nearest neighbours of all other cells."""
    rng = np.random.default_rng(0)
    kind, batch = np.repeat(np.arange(N_KINDS), 200), np.tile([0, 1], 300)
    noise = rng.normal(0, 0.5, (len(kind), N_VALUES)) / np.where(batch == 1, 2, 1)[:, None]
    means = np.eye(N_KINDS, N_VALUES) * 10
    values = torch.from_numpy(means[kind] + noise + EFFECT * batch[:, None])
    correction = BatchCorrection(2, N_KINDS, N_VALUES, N_VALUES)
    _solve(correction, values, torch.eye(N_KINDS).double()[kind], batch[:, None], lambda x: x)
    _set_stretch(correction, values.float(), batch[:, None] == 0, batch[:, None], lambda x: x)
    np.testing.assert_allclose(correction.stretch, [1, 2], rtol=0.05)
    corrected = correction(
        values.float(), torch.from_numpy(batch)[:, None], lambda x: x, torch.from_numpy(batch == 1)
    ).numpy()
    away = corrected - correction.centroids.numpy()[kind]
    np.testing.assert_allclose(away[batch == 1].std(), away[batch == 0].std(), rtol=0.05)


def test_cells_that_do_not_differ_have_no_kinds(network, cells):
    """k-means warned of more kinds than distinct cells."""
    backbone = network().backbone
    sample = read_sample(network(), cells, torch.device("cpu"), seed=0)
    names = ("bottleneck", "genes", "proteins")
    alike = replace(sample, **{name: np.repeat(getattr(sample, name)[:1], 5, axis=0) for name in names})
    for one, is_fitted in ((alike, False), (sample, True)):
        correction = BatchCorrection(0, 2, backbone.representation.n_latent, backbone.n_latent)
        fit_kinds(backbone, correction, one, seed=0)
        assert correction.is_fitted == is_fitted


def test_a_later_fit_to_fewer_cells_replaces_all_landmarks():
    """Fine-tuning on the labelled third of the cells left two thirds of the landmarks where the cells no longer lie."""
    z, correction = torch.randn(60, N_VALUES), BatchCorrection(0, N_KINDS, N_VALUES, N_VALUES)
    _set_landmarks(correction, z, seed=0)
    _set_landmarks(correction, z[:20] + 100, seed=0)
    landmarks = correction.landmarks[correction.landmarks.isfinite().all(dim=1)]
    assert len(landmarks) == 20 and (landmarks > 50).all()
