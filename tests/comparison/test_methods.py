from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from scfusionttt.comparison import autoencoder, scvi_baselines
from scfusionttt.comparison.cells import Cells
from scfusionttt.comparison.methods import choose
from scfusionttt.errors import SettingError
from scfusionttt.evaluation.baselines import zscore


def test_only_the_presets_named_are_built(tmp_path):
    """`benchmark --methods whole --set network.width=30` had been refused because of the heads of other presets."""
    method = choose(["whole"], models=tmp_path, settings={"network.width": 30})[0]
    assert method.settings["network"]["width"] == 30
    with pytest.raises(SettingError, match="multiple of"):
        choose(["whole", "fast"], models=tmp_path, settings={"network.width": 30})


def test_labels_of_held_out_cells_are_not_used(dataset, tmp_path):
    """Changing the labels of held-out cells changes no prediction."""
    train = np.arange(0, 160, 2)
    obs = dataset.cite.obs.copy()
    held_out = np.arange(1, 160, 2)
    names = obs["cell_type"].astype(str).to_numpy()
    names[held_out] = np.roll(names[held_out], 7)
    other = Cells("sim", replace(dataset.cite, obs=obs.assign(cell_type=names)), "cell_type")
    for method in choose(["logistic", "logistic_rna"], models=tmp_path):
        shown = [method.classify(cells, train, 0) for cells in (dataset, other)]
        pd.testing.assert_frame_equal(*shown)


def test_the_autoencoder_learns(dataset):
    rna, protein = (torch.from_numpy(zscore(values)) for values in (dataset.rna, dataset.protein))
    _, losses = autoencoder.train(rna, protein, seed=0)
    assert losses[-1] < 0.95 * losses[0]
    z = autoencoder.represent(dataset, 3)
    assert z.shape == (160, 32)
    np.testing.assert_array_equal(z, autoencoder.represent(dataset, 3))


def test_harmony_brings_the_means_of_batches_together(cohort):
    gaps = []
    for method in choose(["concat", "concat_harmony"], models="unused"):
        z, first = method.represent(cohort, 0), cohort.batches == "batch 1"
        gaps.append(np.linalg.norm(z[first].mean(axis=0) - z[~first].mean(axis=0)))
    assert gaps[1] < 0.5 * gaps[0]


def test_totalvi_is_told_which_cells_have_no_proteins(mosaic, monkeypatch):
    """It takes proteins for missing if they are zero in a whole batch, and for absent in cells of one with others."""
    cite = mosaic.cite[mosaic.batches != "batch 3"]
    cite.protein.X[::4] = np.nan  # batch 2 has none already
    seen = []
    model = SimpleNamespace(get_latent_representation=lambda: None)
    monkeypatch.setattr(scvi_baselines, "trained_totalvi", lambda *args, **setup: seen.append((*args, setup)) or model)
    for key in ("batch", None):
        cells = replace(mosaic, cite=cite, batch_key=key)
        scvi_baselines.totalvi(cells, 3)
        adata, seed, setup = seen.pop()
        assert setup == {"batch_key": "batch"} and seed == 3
        without = np.isnan(cite.protein.X).all(axis=1)
        np.testing.assert_array_equal(adata.obsm["protein"].to_numpy()[~without], cite.protein.X[~without])
        assert not adata.obsm["protein"].to_numpy()[without].any()
        assert not set(adata.obs["batch"][without]) & set(adata.obs["batch"][~without])
        pairs = set(zip(cells.batches, without))
        assert adata.obs["batch"].nunique() == len(pairs) == (3 if key else 2)


@pytest.mark.parametrize(
    ("names", "settings", "message"),
    [
        (["pca"], {}, "no method 'pca'"),
        (["adt", "adt"], {}, "more than once"),
        (["adt"], {"network.width": 16}, "have no effect"),
    ],
)
def test_methods_that_cannot_be_chosen_are_refused(names, settings, message):
    with pytest.raises(SettingError, match=message):
        choose(names, models=None, settings=settings)
