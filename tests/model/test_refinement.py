"""Similar cells vote on one another's class."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from scfusionttt.model import refinement
from scfusionttt.model.refinement import refine


@pytest.fixture
def cells(monkeypatch):
    """Return a class that stands for cells with given components."""

    class Sized:
        def __init__(self, components):
            monkeypatch.setattr(refinement, "_components", lambda cells, seed: components)
            self.n = len(components)

        def __len__(self):
            return self.n

    return Sized


def test_a_cell_follows_its_neighbours(cells):
    rng = np.random.default_rng(0)
    kind = np.arange(200) % 2
    components = rng.normal(0, 0.1, (200, 2)) + 5 * kind[:, None]
    probability = np.where(np.eye(2)[kind] > 0, 0.9, 0.1)
    probability[:10] = probability[:10, ::-1]  # ten cells that lost their markers
    result, _ = refine(probability, np.ones(200), cells(components), seed=0)
    np.testing.assert_array_equal(result.argmax(axis=1), kind)
    np.testing.assert_allclose(result.sum(axis=1), 1)


def test_cells_that_do_not_vary_have_the_same_components(monkeypatch):
    """ARPACK cannot decompose them."""

    class Same:
        rows = np.arange(30)

        def __len__(self):
            return 30

        def subset(self, rows):
            return self

    batch = SimpleNamespace(rna=torch.ones(30, 40), row=torch.arange(30))
    monkeypatch.setattr(refinement, "make_loader", lambda cells, batch_size: [batch])
    assert (refinement._components(Same(), seed=0) == 0).all()


def test_a_rare_class_is_not_outvoted(cells):
    """Four cells of a rare class have more neighbours of the frequent one than of their own."""
    rng = np.random.default_rng(1)
    kind = np.repeat([0, 1], [396, 4])
    components = rng.normal(0, 0.1, (400, 2)) + 0.6 * kind[:, None]
    probability = np.where(np.eye(2)[kind] > 0, 0.95, 0.05)
    result, _ = refine(probability, np.ones(400), cells(components), seed=0)
    np.testing.assert_array_equal(result.argmax(axis=1), kind)


def test_a_type_that_is_unlike_the_reference_is_told_from_a_single_odd_cell(cells):
    rng = np.random.default_rng(2)
    kind = np.repeat([0, 1], [150, 50])
    components = rng.normal(0, 0.1, (200, 2)) + 5 * kind[:, None]
    p_value = np.where(kind == 1, 0.0, rng.uniform(0.1, 1, 200))
    p_value[0], p_value[199] = 0.0, 0.5
    _, result = refine(np.full((200, 2), 0.5), p_value, cells(components), seed=0)
    assert result[0] > 0.1
    assert result[kind == 1].max() < 0.01
