"""A model that an earlier version wrote loads, and says of the same cells what it said then."""

from pathlib import Path

import numpy as np
import pytest
from anndata import AnnData
from mudata import MuData

from scfusionttt.io.quiet_warnings import quiet
from scfusionttt.model.folder import FORMAT_VERSION
from scfusionttt.model.fusionttt import FusionTTT

MODELS = Path(__file__).parent / "folders"


@pytest.mark.parametrize("version", range(1, FORMAT_VERSION + 1))
def test_a_model_of_every_format_predicts_as_it_did(version):
    """`tools/make_model_fixture.py` wrote the folder."""
    folder = MODELS / f"format-{version}"
    with np.load(folder / "cells.npz", allow_pickle=False) as told:
        parts = {"rna": AnnData(told["rna"].astype(np.float32)), "prot": AnnData(told["protein"].astype(np.float32))}
        parts["rna"].var_names, parts["prot"].var_names = told["genes"], told["proteins"]
        with quiet():
            cells = MuData(parts)
        model = FusionTTT.load(folder, device="cpu")
        np.testing.assert_allclose(model.embed(cells), told["z"], rtol=1e-4, atol=1e-5)
        table = model.predict(cells)
        np.testing.assert_array_equal(table["label"].to_numpy(str), told["label"])
        np.testing.assert_allclose(table["probability"], told["probability"], atol=1e-5)
