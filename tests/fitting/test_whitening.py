"""The metric of z: noise of counting, and directions in which neighbours differ, count less."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from scfusionttt.fitting.sample import read_sample
from scfusionttt.fitting.whitening import LEAST_SIGNAL, _filter, _metric, _noise, whiten
from scfusionttt.inference import embed, latent

CPU = torch.device("cpu")


@pytest.fixture
def clouds():
    """Four kinds of cells separated in two directions, with much noise in four others and little in the last six."""
    rng = np.random.default_rng(0)
    kinds = np.array([[0, 0], [9, 0], [0, 9], [9, 9]])[rng.integers(4, size=600)]
    noise = [rng.normal(size=(600, 2)), rng.normal(0, 3, (600, 4)), rng.normal(0, 0.5, (600, 6))]
    return np.hstack([kinds + noise[0], *noise[1:]])


def test_the_noise_is_that_within_kinds(clouds):
    noise = np.diag(_noise(clouds))
    assert (noise[:2] < 2).all(), "not the 81 / 4 by which the kinds differ"
    assert noise[2:6].min() > 2 * noise[:2].max() > 4 * noise[6:].max()


@pytest.mark.parametrize("power", [0.25, 0.5, 1.0])
def test_the_spread_stays_and_the_noise_evens_out(clouds, power):
    metric = _metric(clouds, power)
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

    assert apart(clouds @ _metric(clouds, 0.5)) > 1.15 * apart(clouds)


def test_a_rotation_of_z_rotates_the_result(clouds):
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(12, 12)))[0]
    np.testing.assert_allclose(_metric(clouds @ turn, 0.5), turn.T @ _metric(clouds, 0.5) @ turn, atol=1e-9)


def test_cells_that_were_not_fitted_to_are_spread_as_much():
    """Directions in which few cells had little noise by chance were enlarged, and new cells lay around the others."""
    rng = np.random.default_rng(0)
    fitted, new = (3 * np.eye(40)[rng.integers(3, size=n)] + rng.normal(size=(n, 40)) for n in (100, 1000))
    metric = _metric(fitted, 0.75)
    spread, expected = ((z @ metric).var(axis=0).sum() for z in (new, fitted))
    assert spread == pytest.approx(expected, rel=0.15)


def test_directions_without_any_spread_stay_finite(clouds):
    flat = np.hstack([clouds, np.zeros((600, 2))])
    assert np.isfinite(_metric(flat, 1.0)).all()


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
    np.testing.assert_allclose(once, filtered @ _metric(filtered, 0.5), atol=1e-4)
    np.testing.assert_array_equal(fit(cells), once)  # of z as it was, not of what the first call made of it


def test_with_batches_nothing_is_filtered(network, cells):
    """Without noise, what the correction leaves of the batches would show more."""
    fresh = network(whitening=0.5)
    before = embed(fresh, cells, CPU)
    sample = replace(read_sample(fresh, cells, CPU, seed=0), batches=np.zeros((len(cells), 1), dtype=np.int64))
    whiten(fresh, cells, sample, CPU, seed=0)
    np.testing.assert_allclose(embed(fresh, cells, CPU), before @ _metric(before.astype(float), 0.5), atol=1e-4)


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_few_cells_are_no_error(network, cells, n):
    fresh = network(whitening=0.5)
    few = cells.subset(cells.rows[:n])
    whiten(fresh, few, read_sample(fresh, few, CPU, seed=0), CPU, seed=0)
    assert np.isfinite(embed(fresh, cells, CPU)).all()
