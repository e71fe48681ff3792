"""The metric of z: noise of counting, and directions in which neighbours differ, count less."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.covariance import ledoit_wolf

from scfusionttt.config import Sizes
from scfusionttt.data.loader import CellDataset
from scfusionttt.fitting.sample import read_sample
from scfusionttt.fitting.whitening import LEAST_SIGNAL, _filter, _left_of_batches, _metric, _noise, whiten
from scfusionttt.inference import embed, latent
from scfusionttt.nn.networks import build_network

CPU = torch.device("cpu")


@pytest.fixture
def clouds():
    """Four kinds of cells separated in two directions, with much noise in four others and little in the last six."""
    rng = np.random.default_rng(0)
    kinds = np.array([[0, 0], [9, 0], [0, 9], [9, 9]])[rng.integers(4, size=600)]
    noise = [rng.normal(size=(600, 2)), rng.normal(0, 3, (600, 4)), rng.normal(0, 0.5, (600, 6))]
    return np.hstack([kinds + noise[0], *noise[1:]])


def whitened(z, power):
    """Return the metric of cells of one batch."""
    return _metric(z, _noise(z), power)


def test_the_noise_is_that_within_kinds(clouds):
    noise = np.diag(_noise(clouds))
    assert (noise[:2] < 2).all(), "not the 81 / 4 by which the kinds differ"
    assert noise[2:6].min() > 2 * noise[:2].max() > 4 * noise[6:].max()


@pytest.mark.parametrize("power", [0.25, 0.5, 1.0])
def test_the_spread_stays_and_the_noise_evens_out(clouds, power):
    metric = whitened(clouds, power)
    new = clouds @ metric
    np.testing.assert_allclose(metric, metric.T, atol=1e-12)
    np.testing.assert_allclose(new.var(axis=0).sum(), clouds.var(axis=0).sum())
    variance = np.linalg.eigvalsh(metric.T @ _noise(clouds) @ metric)
    before = np.linalg.eigvalsh(_noise(clouds))
    expected = before ** (1 - power)
    np.testing.assert_allclose(variance / variance[-1], expected / expected[-1], rtol=0.2)


def test_kinds_stand_further_apart_than_before(clouds):
    kinds = (clouds[:, :2] > 4.5) @ [1, 2]

    def apart(z):
        within = sum(z[kinds == kind].var(axis=0).sum() * (kinds == kind).mean() for kind in range(4))
        return z.var(axis=0).sum() / within

    assert apart(clouds @ whitened(clouds, 0.5)) > 1.15 * apart(clouds)


def test_a_rotation_of_z_rotates_the_result(clouds):
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(12, 12)))[0]
    np.testing.assert_allclose(whitened(clouds @ turn, 0.5), turn.T @ whitened(clouds, 0.5) @ turn, atol=1e-9)


def test_cells_that_were_not_fitted_to_are_spread_as_much():
    """Directions in which few cells had little noise by chance were enlarged, and new cells lay around the others."""
    rng = np.random.default_rng(0)
    fitted, new = (3 * np.eye(40)[rng.integers(3, size=n)] + rng.normal(size=(n, 40)) for n in (100, 1000))
    metric = whitened(fitted, 0.75)
    spread, expected = ((z @ metric).var(axis=0).sum() for z in (new, fitted))
    assert spread == pytest.approx(expected, rel=0.15)


def test_directions_without_any_spread_stay_finite(clouds):
    flat = np.hstack([clouds, np.zeros((600, 2))])
    assert np.isfinite(whitened(flat, 1.0)).all()


def test_directions_are_kept_by_what_two_halves_of_the_counts_agree_on():
    """One of signal alone stays, one with as much noise as signal is halved, one of noise has the least."""
    rng = np.random.default_rng(0)
    signal = rng.normal(size=(20_000, 3)) * [1, 1, 0]
    # of half of the counts, the noise has twice the variance
    first, second = (signal + 2**0.5 * rng.normal(size=signal.shape) * [0.01, 1, 1] for _ in range(2))
    np.testing.assert_allclose(_filter(first, second), np.diag([1, 0.5, LEAST_SIGNAL]), atol=0.03)
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    np.testing.assert_allclose(_filter(first @ turn, second @ turn), turn.T @ _filter(first, second) @ turn, atol=1e-9)


def test_the_network_gives_z_in_its_metric(network, cells):
    plain, measured = network(whitening=0.0), network(whitening=0.5)
    measured.load_state_dict(plain.state_dict(), strict=False)
    before = embed(plain, cells, CPU)
    np.testing.assert_array_equal(embed(measured, cells, CPU), before)

    def fit(cells):
        whiten(measured, cells, read_sample(measured, cells, CPU, seed=0), CPU, seed=0)
        return embed(measured, cells, CPU)

    once = fit(cells)
    signal = _filter(*(latent(measured, half, CPU).astype(float) for half in cells.halves(0)))
    filtered = before.astype(float) @ signal
    np.testing.assert_allclose(once, filtered @ whitened(filtered, 0.5), atol=1e-4)
    np.testing.assert_array_equal(fit(cells), once)  # of z as it was, not of what the first call made of it


@pytest.fixture
def two_batches(clouds):
    """The clouds in two batches, the second shifted in the last direction: z, kinds and batches."""
    batches = torch.arange(600)[:, None] % 2
    z = torch.from_numpy(clouds + 1.5 * np.eye(12)[-1] * batches.numpy())
    kinds = torch.eye(4, dtype=torch.float64)[torch.from_numpy((clouds[:, :2] > 4.5) @ [1, 2])]
    return z, kinds, batches


def test_what_is_left_of_a_batch_counts_as_noise(two_batches):
    left = np.diag(_left_of_batches(*two_batches))
    assert left[-1] == pytest.approx(1.5**2, rel=0.2)
    assert left[:-1].max() < 0.5 * left[-1]


def test_a_kind_that_the_others_lack_tells_nothing_of_what_is_left(two_batches):
    """Its nearest cells in other batches are of another kind: it would be brought nearer to that."""
    z, kinds, batches = two_batches
    shared = (kinds[:, 3] == 0) | (batches[:, 0] == 0)
    left = np.diag(_left_of_batches(z[shared], kinds[shared], batches[shared]))
    assert left[:2].max() < left[-1], "not the 81 by which the kinds differ"


def test_a_cell_is_compared_with_its_neighbors_in_other_batches(two_batches):
    """By the definition, with a batch of one cell, one of fewer cells than neighbours, and a kind of one batch."""
    z, kinds, _ = (some[:57] for some in two_batches)
    batch = np.repeat([0, 1, 2, 3], [30, 16, 10, 1])
    kinds[:, 3] += kinds[:, 0] * torch.from_numpy(batch == 0)
    kinds[batch == 0, 0] = 0
    expected = []
    for i in range(57):
        mean = []
        for others in (batch != batch[i], (batch == batch[i]) & (np.arange(57) != i)):
            nearest = (z[others] - z[i]).norm(dim=1).argsort()[:15]
            mean.append(z[others][nearest].mean(dim=0))
        own, elsewhere = kinds[batch == batch[i]].mean(dim=0), kinds[batch != batch[i]].mean(dim=0)
        weight = (kinds[i] * (elsewhere / own).clamp(max=1).nan_to_num()).sum()
        expected.append(weight.sqrt() * (mean[0] - mean[1]) if (batch == batch[i]).sum() > 1 else 0 * z[i])
    expected = ledoit_wolf(torch.stack(expected).numpy(), assume_centered=True)[0]
    found = _left_of_batches(z, kinds, torch.from_numpy(batch)[:, None])
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


def test_a_network_with_batches_is_whitened_by_what_is_left_of_them(config, cells):
    sizes = Sizes(pool_slots=2, landmarks=40, batch_levels=2, batch_kinds=1)
    fresh = build_network("pretrain", 300, 8, 0, replace(config.network, whitening=0.5), sizes)
    batches = np.arange(len(cells.cell_names))[:, None] % 2
    batched = CellDataset(cells.cite, cells.match, cells.preprocessing, batches=batches)
    before = latent(fresh, batched, CPU).astype(float)
    whiten(fresh, batched, read_sample(fresh, batched, CPU, seed=0), CPU, seed=0)
    signal = _filter(*(latent(fresh, half, CPU).astype(float) for half in batched.halves(0)))
    filtered = before @ signal
    kinds = torch.ones(len(batched), 1, dtype=torch.float64)
    noise = _noise(filtered) + _left_of_batches(torch.from_numpy(filtered), kinds, torch.from_numpy(batches))
    np.testing.assert_allclose(embed(fresh, batched, CPU), filtered @ _metric(filtered, noise, 0.5), atol=1e-3)


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_few_cells_are_no_error(network, cells, n):
    fresh = network(whitening=0.5)
    few = cells.subset(cells.rows[:n])
    whiten(fresh, few, read_sample(fresh, few, CPU, seed=0), CPU, seed=0)
    assert np.isfinite(embed(fresh, cells, CPU)).all()
