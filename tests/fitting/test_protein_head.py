"""The head that imputes proteins: its regressions, their out-of-fold errors, and its intervals."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge as SkRidge

from scfusionttt.fitting import protein_head as module
from scfusionttt.fitting.protein_head import Ridge, _fit_panel, fit_protein_head
from scfusionttt.fitting.sample import Sample
from scfusionttt.nn.heads import ProteinHead


def refitted_errors(features, targets, penalty, folds):
    """Return the errors of cells left out, with one ridge regression per fold."""
    errors = np.empty_like(targets)
    for rows in folds:
        others = np.setdiff1d(np.arange(len(features)), rows)
        refit = SkRidge(alpha=penalty).fit(features[others], targets[others])
        errors[rows] = targets[rows] - refit.predict(features[rows])
    return errors


@pytest.mark.parametrize("n_features", [7, 90])
def test_errors_out_of_fold_are_those_of_refits(n_features):
    rng = np.random.default_rng(0)
    features = rng.normal(size=(60, n_features))
    targets = features[:, :2] + rng.normal(size=(60, 2))
    ridge = Ridge(features)
    centered = targets - targets.mean(axis=0)
    inner = ridge.left.T @ centered
    folds = [np.arange(0, 25), np.arange(25, 60)]
    for penalty in (0.5, 20.0):
        expected = refitted_errors(features, targets, penalty, folds)
        np.testing.assert_allclose(ridge._errors(centered, inner, penalty, folds), expected, rtol=1e-6)


@pytest.mark.parametrize("shape", [(60, 7), (30, 90)])
def test_a_single_batch_is_left_out_cell_by_cell(shape):
    rng = np.random.default_rng(1)
    features, targets = rng.normal(size=shape), rng.normal(size=(shape[0], 1))
    ridge, centered = Ridge(features), targets - targets.mean(axis=0)
    found = ridge._errors(centered, ridge.left.T @ centered, 5.0, [np.arange(shape[0])])
    for row in range(0, shape[0], 9):
        x, y = np.delete(features, row, axis=0), np.delete(targets, row, axis=0)
        refit = SkRidge(alpha=5.0).fit(x, y)
        np.testing.assert_allclose(found[row], targets[row] - refit.predict(features[[row]])[0], rtol=1e-6)


def test_a_decomposition_cut_short_predicts_the_same(monkeypatch):
    rng = np.random.default_rng(2)
    features = rng.normal(size=(80, 5)) @ rng.normal(size=(5, 60)) + 0.01 * rng.normal(size=(80, 60))
    targets = features[:, :3] + rng.normal(size=(80, 3))
    whole = Ridge(features).fit(targets, [np.arange(80)])
    monkeypatch.setattr(module, "MANY", 20)
    monkeypatch.setattr(module, "MOST_DIRECTIONS", 10)
    short = Ridge(features).fit(targets, [np.arange(80)])
    np.testing.assert_allclose(features @ short.slopes, features @ whole.slopes, atol=0.01)


@pytest.fixture(scope="module")
def donors():
    """Genes and proteins of four donors; one protein follows a gene, one a combination of genes, one nothing."""
    rng = np.random.default_rng(3)
    genes = rng.normal(size=(1200, 30)).astype(np.float32)
    signal = np.stack([genes[:, 0], np.sign(genes[:, 1] * genes[:, 2]), np.zeros(1200)], axis=1)
    donor = np.arange(1200) % 4
    offsets = rng.normal(0, 0.3, (4, 3))
    return genes, (signal + offsets[donor] + rng.normal(0, 0.4, (1200, 3))).astype(np.float32), donor


def fitted(genes, proteins, donor, columns=(0, 1, 2)):
    head = ProteinHead(30, 3, 4, 300, n_batches=4)
    components = genes[:, :4]
    head.landmarks.copy_(torch.from_numpy(components[:300]))
    _fit_panel(head, genes, components, proteins, donor, np.asarray(columns))
    return head


def test_the_head_learns_what_single_genes_and_what_combinations_tell(donors):
    genes, proteins, donor = donors
    rows = donor < 3
    head = fitted(genes[rows], proteins[rows], donor[rows])
    mean, _ = head(torch.from_numpy(genes[~rows]), torch.from_numpy(genes[~rows, :4]))
    found = [np.corrcoef(mean[:, p], proteins[~rows, p])[0, 1] for p in range(3)]
    assert found[0] > 0.85
    assert found[1] > 0.6, "linear regression would not exceed 0.1"
    assert abs(found[2]) < 0.2


def test_intervals_cover_a_donor_that_was_left_out(donors):
    genes, proteins, donor = donors
    covered = []
    for left_out in range(4):
        rows = donor != left_out
        head = fitted(genes[rows], proteins[rows], donor[rows])
        assert not head.donor.any()
        mean, sd = head(torch.from_numpy(genes[~rows]), torch.from_numpy(genes[~rows, :4]))
        low, high = head.interval(mean, sd)
        covered.append((low <= torch.from_numpy(proteins[~rows])) & (torch.from_numpy(proteins[~rows]) <= high))
    assert 0.84 < float(torch.cat(covered).float().mean()) < 0.96


def test_intervals_from_two_donors_that_differ_leave_room_for_a_third():
    """The errors of a donor that was left out were measured about a mean that it was part of: 0.63 were covered."""
    rng = np.random.default_rng(4)
    genes, donor = rng.normal(size=(300, 30)).astype(np.float32), np.arange(300) % 3
    proteins = genes[:, :1] + rng.normal(size=(3, 60))[donor] + rng.normal(0, 0.5, (300, 60))
    proteins, covered = proteins.astype(np.float32), []
    for left_out in range(3):
        rows = donor != left_out
        head = ProteinHead(30, 60, 4, 100, n_batches=3)
        head.landmarks.copy_(torch.from_numpy(genes[:100, :4]))
        _fit_panel(head, genes[rows], genes[rows, :4], proteins[rows], donor[rows], np.arange(60))
        low, high = head.interval(*head(torch.from_numpy(genes[~rows]), torch.from_numpy(genes[~rows, :4])))
        third = torch.from_numpy(proteins[~rows])
        covered.append((low <= third) & (third <= high))
    share = float(torch.cat(covered).float().mean())
    assert share > 0.7


def test_intervals_of_a_single_batch_leave_room_for_other_donors(donors):
    genes, proteins, _ = donors
    head = fitted(genes, proteins, np.zeros(1200))
    assert (head.donor == module.DONOR).all()
    _, sd = head(torch.from_numpy(genes), torch.from_numpy(genes[:, :4]))
    assert float(sd.min()) > module.DONOR


def test_the_head_knows_which_batches_had_a_protein(donors):
    genes, proteins, donor = donors
    rows = donor != 2
    measured = fitted(genes[rows], proteins[rows], donor[rows], columns=(0, 1, 2)).measured
    np.testing.assert_array_equal(measured, np.tile([[True], [True], [False], [True]], 3))


def test_each_panel_is_fitted_to_the_cells_that_it_was_measured_in(monkeypatch):
    genes, proteins, panels = np.arange(40.0)[:, None].repeat(5, axis=1), np.zeros((40, 4)), {}
    proteins[:25, [1, 3]] = proteins[:35, 2] = np.nan  # the third in too few cells
    backbone = SimpleNamespace(protein_head=ProteinHead(5, 4, 2, 30), view=SimpleNamespace(axes=torch.eye(5, 2)))
    monkeypatch.setattr(module, "_fit_panel", lambda head, own, *rest: panels.update({tuple(rest[-1]): own[:, 0]}))
    fit_protein_head(backbone, Sample(genes, genes, genes, proteins, np.zeros((40, 0), dtype=int)), seed=0)
    assert set(panels) == {(0,), (1, 3)}
    np.testing.assert_array_equal(panels[1, 3], np.arange(25, 40))


def test_cells_without_proteins_do_not_take_the_place_of_others(donors, monkeypatch):
    """Of a cohort in which few cells have proteins, most of these were left out to save time."""
    genes, proteins, donor = donors
    proteins, fitted_to = proteins.copy(), []
    proteins[90:] = np.nan
    backbone = SimpleNamespace(protein_head=ProteinHead(30, 3, 4, 300, 4), view=SimpleNamespace(axes=torch.eye(30, 4)))
    monkeypatch.setattr(module, "MOST_CELLS", 100)
    monkeypatch.setattr(module, "_fit_panel", lambda head, genes, *others: fitted_to.append(len(genes)))
    fit_protein_head(backbone, Sample(genes, genes, genes, proteins, donor[:, None]), seed=0)
    assert fitted_to == [90]


def test_a_head_is_fitted_once_it_has_margins(donors):
    assert not ProteinHead(30, 3, 4, 300).is_fitted
    head = fitted(*donors[:1], donors[1][:, :2], donors[2], columns=(0, 2))
    assert head.is_fitted, "the protein that no cell had stays at its mean, with an infinite interval"
    mean, sd = head(torch.from_numpy(donors[0]), torch.from_numpy(donors[0][:, :4]))
    low, high = head.interval(mean, sd)
    assert (mean[:, 1] == 0).all()
    assert not high[:, 1].isfinite().any()
    assert (low[:, [0, 2]] < mean[:, [0, 2]]).all()
    assert (mean[:, [0, 2]] < high[:, [0, 2]]).all()
