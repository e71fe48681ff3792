"""Denoised genes and proteins."""

from copy import deepcopy

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from scfusionttt import differential
from scfusionttt.data.write import write_proteins
from scfusionttt.errors import InputDataError, SettingError
from scfusionttt.model.fusionttt import FusionTTT
from scfusionttt.model.imputation import obsm_tables
from support import copied


def test_denoised_values_are_those_of_the_bottleneck_in_units_of_counts(trained, cells):
    model = trained.pretrained
    logs, counts = model.denoise(cells), model.denoise(cells, units="counts")
    assert list(logs.obs_names) == list(cells.obs_names)
    assert list(logs.var_names) == model.features.genes["name"].tolist()
    assert logs.X.min() >= 0
    np.testing.assert_allclose(np.expm1(logs.X), counts.X, rtol=1e-4, atol=1e-5)
    ratios, proteins = logs.obsm["protein_denoised"], counts.obsm["protein_denoised"]
    assert list(ratios) == model.features.proteins["name"].tolist()
    scale = np.exp(model.preprocessing.log_geometric_mean)
    np.testing.assert_allclose(proteins, np.expm1(ratios).clip(lower=0) * scale, rtol=1e-5)
    measured = cells["prot"].to_df()[ratios.columns].sum()  # the mean is that of the training cells
    assert np.corrcoef(np.log(proteins.mean()), np.log(measured))[0, 1] > 0.9


def test_denoised_values_are_not_tested(trained, cells, tmp_path):
    """They vary less than measured ones; the file keeps what they are."""
    denoised = trained.pretrained.denoise(cells)
    denoised.write_h5ad(tmp_path / "denoised.h5ad")
    read = ad.read_h5ad(tmp_path / "denoised.h5ad")
    assert read.uns["denoised"]["units"] == "log"
    with pytest.raises(InputDataError, match="not raw counts"):
        differential(read, "cell_type")


def test_two_antibodies_of_one_name_have_a_column_each(trained, cells, tmp_path):
    """Impute and denoise gave tables with repeated columns, which no file can hold."""
    model = deepcopy(trained.pretrained)
    table = model._state.features.table  # the property is a copy
    rows = table.index[table["modality"] == "protein"]
    table.loc[rows[[0, 2]], "name"] = "CDX"
    imputed, denoised = model.impute(cells, intervals=True), model.denoise(cells)
    for values in (imputed.mean, imputed.sd, denoised.obsm["protein_denoised"]):
        assert [name for name in values if name.startswith("CDX")] == ["CDX", "CDX-1"]
    target = copied(cells)
    write_proteins(tmp_path / "imputed.h5mu", obsm_tables(imputed), target)
    write_proteins(tmp_path / "imputed.csv", obsm_tables(imputed), target)
    assert "CDX-1_sd" in pd.read_csv(tmp_path / "imputed.csv")
    denoised.write_h5ad(tmp_path / "denoised.h5ad")


def test_unknown_ids_of_denoised_genes_are_empty(trained, cells, tmp_path):
    """They were the texts "None" and "nan", which look like a symbol."""
    model = deepcopy(trained.pretrained)
    model._state.features.table.loc[[0, 1], ["symbol", "gene_id"]] = [[None, None], [np.nan, None]]
    denoised = model.denoise(cells)
    assert (denoised.var.iloc[:2] == "").all(axis=None) and (denoised.var.iloc[2:] != "").all(axis=None)
    denoised.write_h5ad(tmp_path / "denoised.h5ad")


def test_models_that_cannot_denoise_say_so(trained, cells):
    with pytest.raises(SettingError, match="denoise needs a pretrained model"):
        trained.finetuned.denoise(cells)
    with pytest.raises(SettingError, match="units must be log or counts"):
        trained.pretrained.denoise(cells, units="z")
    with pytest.raises(SettingError, match="not trained"):
        FusionTTT().denoise(cells)
