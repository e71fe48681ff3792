import numpy as np
import pytest
import torch

from scfusionttt.training import inference

CPU = torch.device("cpu")


def test_results_stand_in_the_cells_order_and_do_not_depend_on_the_batches(network, cells, monkeypatch):
    pretrained = network()
    whole = inference.embed(pretrained, cells, CPU)
    assert whole.shape == (200, 6)
    assert whole.dtype == np.float32
    monkeypatch.setattr(inference, "BATCH", 7)
    np.testing.assert_allclose(inference.embed(pretrained, cells, CPU), whole, rtol=1e-5, atol=1e-6)
    rows = np.array([50, 3, 199])
    np.testing.assert_allclose(
        inference.embed(pretrained, cells.subset(rows), CPU), whole[rows], rtol=1e-5, atol=1e-6
    )  # fmt: skip


def test_dropout_is_off_and_asking_twice_gives_the_same_bits(network, cells):
    pretrained = network().train()
    assert np.array_equal(*(inference.embed(pretrained, cells, CPU) for _ in range(2)))


def test_probabilities_sum_to_one(network, cells):
    found = inference.probabilities(network("finetune"), cells, CPU)
    assert found.shape == (200, 3)
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-5)


def test_rebuilt_proteins_are_those_of_z(network, cells):
    pretrained = network()
    z = torch.from_numpy(inference.embed(pretrained, cells, CPU))
    with torch.no_grad():
        expected = pretrained.protein_from_z(z).numpy()
    np.testing.assert_allclose(inference.rebuilt_proteins(pretrained, cells, CPU), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("stage", ["pretrain", "transfer"])
def test_a_representation_of_a_student_is_that_of_rna_alone(network, cells, stage):
    without = cells.subset(cells.rows)
    without.protein = np.full_like(cells.protein, np.nan)
    tested = network(stage)
    same = np.array_equal(inference.embed(tested, cells, CPU), inference.embed(tested, without, CPU))
    assert same == (stage == "transfer")


def test_the_callers_random_state_is_left_alone(network, cells):
    """Every loop over a loader draws a seed for its workers, from the global state if it has no generator."""
    before = torch.get_rng_state()
    inference.embed(network(), cells, CPU)
    assert torch.equal(torch.get_rng_state(), before)
