"""One pass over a sample of the cells serves all fits after pretraining."""

import numpy as np
import pytest
import torch

from scfusionttt.data import preprocess
from scfusionttt.fitting.sample import read_sample
from scfusionttt.inference import read_cells

CPU = torch.device("cpu")


def test_the_sample_is_what_the_network_reads_and_computes(network, cells):
    fresh = network()
    sample = read_sample(fresh, cells, CPU, seed=0)

    def computed(read):
        return read_cells(fresh, cells, CPU, read)

    np.testing.assert_array_equal(sample.genes, computed(lambda inputs: inputs.rna))
    np.testing.assert_array_equal(np.isfinite(sample.proteins), computed(lambda inputs: inputs.protein_present))
    np.testing.assert_array_equal(sample.bottleneck, computed(lambda inputs: fresh.backbone(inputs).bottleneck))
    np.testing.assert_array_equal(
        sample.by_rna, computed(lambda inputs: fresh.backbone(inputs.without_proteins()).bottleneck)
    )


@pytest.mark.parametrize(("name", "value"), [("SAMPLE_CELLS", 60), ("SAMPLE_VALUES", 60 * 40)])
def test_the_seed_draws_a_sample_of_many_cells(network, cells, monkeypatch, name, value):
    monkeypatch.setattr(preprocess, name, value)
    fresh = network()
    one, again, other = (read_sample(fresh, cells, CPU, seed=seed).genes for seed in (0, 0, 1))
    assert len(one) == min(60, value // one.shape[1] if name == "SAMPLE_VALUES" else 60)
    np.testing.assert_array_equal(one, again)
    assert not np.array_equal(one, other)


def test_a_small_batch_has_more_cells_in_the_sample_of_balanced_ones(network, cells, monkeypatch):
    monkeypatch.setattr(preprocess, "SAMPLE_CELLS", 60)
    some = cells.subset(cells.rows)
    some.batches = (np.arange(len(cells)) < 10).astype(np.int64)[:, None]
    fresh = network()
    plain, balanced = (read_sample(fresh, part, CPU, seed=0).batches.sum() for part in (some, some.balanced()))
    assert balanced > plain
