"""Small networks and cells of which every feature may be absent."""

import pytest
import torch

from scfusionttt.config import NetworkConfig
from scfusionttt.nn.tokens import CellInputs


@pytest.fixture
def config():
    """Return a factory of tiny settings; any may be set otherwise."""

    def make(**settings):
        tiny = {
            "patch": 4,
            "width": 16,
            "heads": 2,
            "encoder_blocks": 1,
            "decoder_blocks": 1,
            "latent": 6,
        }
        return NetworkConfig(**{**tiny, "mini_batch": 4, **settings})

    return make


@pytest.fixture
def cells():
    """Return a factory of n cells with g genes and p proteins, a share of them not measured."""

    def make(n=5, g=26, p=3, *, absent=0.0, seed=0):
        generator = torch.Generator().manual_seed(seed)
        rna, protein = (torch.randn(n, f, generator=generator) for f in (g, p))
        rna_present, protein_present = (torch.rand(x.shape, generator=generator) >= absent for x in (rna, protein))
        return CellInputs(rna, rna_present, protein, protein_present, torch.empty(n, 0, dtype=torch.int64))

    return make


@pytest.fixture
def seeded():
    """Return a function that builds a module from seed 0 and leaves the global random state alone."""

    def build(make, *arguments, **options):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return make(*arguments, **options)

    return build
