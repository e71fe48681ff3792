"""Tiny simulated cells and settings; networks that train within a second."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from scfusionttt.config import Sizes, preset
from scfusionttt.data.assemble import as_citeseq
from scfusionttt.data.features import choose_features, match_features
from scfusionttt.data.loader import CellDataset
from scfusionttt.data.preprocess import Preprocessing
from scfusionttt.nn.networks import build_network
from scfusionttt.simulation.simulate import simulate
from scfusionttt.training.run import Run


@pytest.fixture(scope="session")
def config():
    """Return settings of a tiny model; stages of 3 epochs."""
    stage = {"epochs": 3, "batch_size": 64, "lr": 5e-3, "validation_fraction": 0.2}
    network = {
        "patch": 30,
        "width": 16,
        "encoder_blocks": 1,
        "latent": 6,
        "components": 0,  # the PCA view is set after training, and has tests of its own
        "whitening": 0.0,
        "dropout": 0.1,
    }
    finetune = {**stage, "classifier": "finetune"}
    return preset("fast").with_settings({"network": network, "pretrain": stage, "finetune": finetune})


@pytest.fixture(scope="session")
def cells(config):
    """Return 200 labelled cells as a dataset; a third of them were measured without proteins."""
    mdata = simulate(200, 300, 8, 3, rare_fraction=0.05)
    mdata["prot"].X[::3] = np.nan
    cite = as_citeseq(mdata)
    match = match_features(cite, choose_features(cite, config.data)[0])
    labels = cite.obs["cell_type"].cat.codes.to_numpy()
    return CellDataset(cite, match, Preprocessing.fit(cite, match, config.data), labels=labels)


@pytest.fixture(scope="session")
def network(config):
    """Return a factory of networks for these cells, by stage, seed and settings; heads are linear by default."""

    def make(stage="pretrain", *, seed=0, kernel=False, skip_components=0, **settings):
        sizes = Sizes(pool_slots=2, landmarks=40, skip_components=skip_components)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return build_network(stage, 300, 8, 3, replace(config.network, **settings), sizes, kernel=kernel)

    return make


@pytest.fixture(scope="session")
def run():
    """Return a factory of runs on the CPU, without progress."""

    def make(**settings):
        return Run(**{"device": torch.device("cpu"), "seed": 0, "progress": False, **settings})

    return make
