from dataclasses import replace

import numpy as np
import pytest
import torch

from scfusionttt import inference
from scfusionttt.config import Sizes
from scfusionttt.nn.networks import build_network
from scfusionttt.training.machine import cells_at_once
from support import run_python

CPU = torch.device("cpu")

#: Prints the peak growth of the process in kB; writing 5 to clear_refs resets the peak.
EMBED_ONE_CELL = """
import re, torch
from pathlib import Path
from scfusionttt.config import Sizes, preset
from scfusionttt.nn.tokens import CellInputs
from scfusionttt.nn.networks import build_network

def embed(genes):
    network = build_network("pretrain", genes, 49, 0, preset("whole").network, Sizes()).eval()
    inputs = (torch.randn(1, genes), torch.randn(1, 49))
    measured = (torch.ones(1, f, dtype=bool) for f in (genes, 49))
    inputs = CellInputs(inputs[0], next(measured), inputs[1], next(measured), torch.empty(1, 0).long())
    Path("/proc/self/clear_refs").write_text("5")
    before = held("VmRSS")
    with torch.inference_mode():
        network.backbone(inputs)
    return held("VmHWM") - before

def held(name):
    return int(re.search(name + r":\\s+(\\d+)", Path("/proc/self/status").read_text())[1])

embed(100)  # compiles
print(embed(60_000))
"""


def test_results_are_in_the_order_of_the_cells_whatever_the_batches(network, cells, monkeypatch):
    pretrained = network()
    whole = inference.embed(pretrained, cells, CPU)
    assert whole.shape == (200, 6)
    assert whole.dtype == np.float32
    monkeypatch.setattr(inference, "cells_at_once", lambda *_: 7)
    np.testing.assert_allclose(inference.embed(pretrained, cells, CPU), whole, rtol=1e-5, atol=1e-6)
    rows = np.array([50, 3, 199])
    np.testing.assert_allclose(
        inference.embed(pretrained, cells.subset(rows), CPU), whole[rows], rtol=1e-5, atol=1e-6
    )  # fmt: skip


def test_dropout_is_off_and_results_repeat_bit_for_bit(network, cells):
    pretrained = network().train()
    assert np.array_equal(*(inference.embed(pretrained, cells, CPU) for _ in range(2)))


def test_probabilities_sum_to_one(network, cells):
    probabilities = inference.probabilities(network("finetune"), cells, CPU)[0]
    assert probabilities.shape == (200, 3)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)


def test_proteins_are_reconstructed_from_the_bottleneck(network, cells):
    pretrained = network()
    z = torch.from_numpy(inference.embed(pretrained, cells, CPU))
    with torch.no_grad():
        expected = pretrained.protein_from_z(z).numpy()
    np.testing.assert_allclose(inference.reconstructed_proteins(pretrained, cells, CPU), expected, rtol=1e-5, atol=1e-5)


def test_more_or_wider_tokens_mean_smaller_batches(config):
    wide = replace(config.network, patch=1, width=32)
    networks = [build_network("pretrain", 19521, 0, 0, replace(wide, width=width), Sizes()) for width in (32, 64)]
    assert [cells_at_once(network, CPU) for network in networks] == [3, 1]


@pytest.mark.slow
def test_one_cell_with_every_gene_a_token_needs_less_than_200_mb():
    """60,000 genes are all that a gene table of human has, non-coding ones too."""
    assert 0 < int(run_python(EMBED_ONE_CELL, OMP_NUM_THREADS="1")) < 200_000


@pytest.mark.parametrize("stage", ["pretrain", "transfer"])
def test_the_embedding_of_a_student_depends_on_rna_alone(network, cells, stage):
    without = cells.subset(cells.rows)
    without.protein = np.full_like(cells.protein, np.nan)
    tested = network(stage)
    same = np.array_equal(inference.embed(tested, cells, CPU), inference.embed(tested, without, CPU))
    assert same == (stage == "transfer")
