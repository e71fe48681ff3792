"""What a trained model answers, and that it leaves the caller's object alone."""

from copy import deepcopy

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from hypothesis import given, settings
from hypothesis import strategies as st
from mudata import MuData, read_h5mu
from scipy import sparse

from scfusionttt.data.assemble import as_citeseq
from scfusionttt.data.features import Match
from scfusionttt.data.store.sources import open_source
from scfusionttt.data.store.stored import open_store
from scfusionttt.data.store.write import write_store
from scfusionttt.errors import InputDataError, SettingError
from scfusionttt.io.quiet_warnings import quiet
from scfusionttt.model.fusionttt import FusionTTT
from scfusionttt.model.predictions import class_columns
from scfusionttt.model.unlike import warn_of_other_proteins
from support import copied, of_another_study


def close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def assert_untouched(data, before):
    """Hold an AnnData or MuData against a copy of it, down to the counts."""
    assert set(data.obsm) == set(before.obsm)
    assert set(data.uns) == set(before.uns)
    pd.testing.assert_frame_equal(data.obs, before.obs)
    pd.testing.assert_frame_equal(data.var, before.var)
    if isinstance(data, MuData):
        for name in before.mod:
            assert_untouched(data[name], before[name])
        return
    assert list(data.layers) == list(before.layers)
    difference = data.X != before.X
    assert (difference.nnz if sparse.issparse(data.X) else difference.sum()) == 0


def mudata(**modalities):
    with quiet():
        return MuData(modalities)


@pytest.mark.parametrize("stage", ["pretrained", "finetuned", "student", "zero_shot"])
def test_every_stage_embeds_each_cell(stage, trained, cells, rna_cells):
    model = getattr(trained, stage)
    for data in (cells, rna_cells):
        z = model.embed(data)
        assert z.shape == (data.n_obs, model.network.backbone.n_latent)
        assert z.dtype == np.float32
        assert np.isfinite(z).all()
        assert len(np.unique(z, axis=0)) == data.n_obs


@pytest.mark.parametrize("stage", ["finetuned", "student", "zero_shot"])
def test_predictions_are_probabilities_and_their_largest(stage, trained, cells, rna_cells):
    model = getattr(trained, stage)
    assert model.classes == sorted(cells.obs["cell_type"].unique())
    for data in (cells, rna_cells):
        table = model.predict(data)
        assert list(table) == ["label", "probability", *model.classes]
        assert list(table.index) == list(data.obs_names)
        close(table[model.classes].sum(axis=1), 1)
        assert (table["label"].astype(str) == table[model.classes].idxmax(axis=1)).all()
        assert (table["probability"] == table[model.classes].max(axis=1)).all()


def test_classes_called_like_a_column_have_columns_of_their_own(trained, cells, tmp_path, scfusionttt):
    """Two columns ``label`` once let fine-tuning train and then fail, and predict write a table and then fail."""
    odd, classes = copied(cells), ["class label", "label", "p_value"]
    odd.obs["odd"] = np.take(classes, np.unique(odd.obs["cell_type"].astype(str), return_inverse=True)[1])
    model = deepcopy(trained.pretrained).finetune(odd, labels_key="odd", train_fraction=0.75)
    assert model.metrics["finetune"]["n_cells"] == 40
    table = model.predict(odd, unknown=0.01)
    assert model.classes == classes
    assert list(table) == ["label", "probability", "p_value", "class label", "class class label", "class p_value"]
    close(table[class_columns(classes)].sum(axis=1), 1)
    model.save(tmp_path / "model")
    with quiet():
        odd.write_h5mu(tmp_path / "odd.h5mu")
    result = scfusionttt(f"predict {tmp_path}/odd.h5mu --model {tmp_path}/model --out {tmp_path}/types.csv")
    assert result.code == 0, result.err


def test_cells_unlike_any_known_class_are_named_unknown_where_asked_for(trained, cells):
    odd, rng = copied(cells), np.random.default_rng(0)
    for modality in odd.mod.values():  # ten cells whose every gene is swapped for another's
        shuffled = modality.X.toarray() if sparse.issparse(modality.X) else modality.X.copy()
        shuffled[:10] = shuffled[:10][:, rng.permutation(modality.n_vars)]
        modality.X = sparse.csr_matrix(shuffled) if sparse.issparse(modality.X) else shuffled
    table = trained.finetuned.predict(odd, unknown=0.01)
    assert list(table)[:3] == ["label", "probability", "p_value"]
    assert (table["label"] == "unknown").equals(table["p_value"] <= 0.01)
    assert (table["label"][:10] == "unknown").mean() > 0.5
    assert (table["label"][10:] == "unknown").mean() < 0.2  # estimated from the few cells held back
    with pytest.raises(SettingError, match=r"e\.g\. 0\.01"):
        trained.finetuned.predict(odd, unknown=1.5)
    with pytest.raises(SettingError, match=r"between 0 and 1 \(got '0\.1'\)"):
        trained.finetuned.predict(odd, unknown="0.1")


def test_the_callers_object_is_left_alone_unless_asked(trained, cells, rna_cells):
    for data in (copied(cells), copied(rna_cells)):
        before = copied(data)
        trained.finetuned.embed(data)
        trained.finetuned.predict(data)
        deepcopy(trained.pretrained).finetune(data, labels_key="cell_type")
        trained.finetuned.transfer(data, labels_key="cell_type")
        FusionTTT("fast", progress=False, **{"pretrain.epochs": 1, "network.width": 16}).pretrain(data)
        assert_untouched(data, before)
        z, table = trained.finetuned.embed(data, inplace=True), trained.finetuned.predict(data, inplace=True)
        np.testing.assert_array_equal(data.obsm["X_fusionttt"], z)
        assert list(data.obs["fusionttt_label"]) == list(table["label"])
        assert list(data.obs["fusionttt_label"].cat.categories) == trained.finetuned.classes
        assert list(data.obs["fusionttt_probability"]) == list(table["probability"])


@pytest.mark.parametrize("kind", ["string", "category", "int"])
def test_results_are_written_whatever_the_dtype_of_the_names(kind, trained, rna_cells):
    """Of names of pandas' string type, 90 cells were refused because only 90 of them were used."""
    data = copied(rna_cells)
    data.obs.index = pd.RangeIndex(90) if kind == "int" else data.obs_names.astype(kind)
    annotation = trained.finetuned.annotate(data, inplace=True)
    assert list(data.obs["fusionttt_label"]) == list(annotation.cells["label"])
    values = trained.finetuned.impute(data, inplace=True)
    np.testing.assert_array_equal(data.obsm["protein_imputed"], values)
    assert data.obsm["protein_imputed"].index.equals(data.obs_names)
    np.testing.assert_array_equal(trained.finetuned.embed(data, inplace=True), trained.finetuned.embed(rna_cells))


def test_why_results_cannot_be_written_is_told(trained, cells, tmp_path):
    """Each was refused because the cells differ between the modalities."""
    cite = as_citeseq(cells)
    with quiet():
        cells.write_h5mu(tmp_path / "cells.h5mu")
        write_store([open_source(tmp_path / "cells.h5mu")], tmp_path / "cells.zarr")
        view = read_h5mu(tmp_path / "cells.h5mu", backed="r")[:90]
        stale, more = copied(cells), mudata(**dict(cells.mod), atac=cells["prot"][:9].copy())
        for name in ("rna", "prot"):
            stale.mod[name] = stale[name][:60].copy()
        more["atac"].obs_names = [f"other-{i}" for i in range(9)]
        more.update()
    for data, reason in (
        (cite, "a CiteSeq, which has counts only"),
        (open_store(tmp_path / "cells.zarr"), "a store, which is read-only"),
        (stale, r"was not updated .* call data\.update\(\)"),
        (more, "MuData with 169 cells, of which 160 were used"),
        (view, "a view of a file on disk"),
    ):
        for ask in (trained.finetuned.embed, trained.finetuned.predict):
            with pytest.raises(InputDataError, match=reason):
                ask(data, inplace=True)


@settings(max_examples=8)
@given(seed=st.integers(0, 2**31), cut=st.integers(1, 159))
def test_a_cells_vector_is_its_own(trained, cells, seed, cut):
    """Whatever the order of the cells, the company they come in, and the genes that the model does not know."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(160)
    with quiet():
        rna, protein = cells["rna"][order].copy(), cells["prot"][order].copy()
        strange = pd.DataFrame(index=[f"strange-{i}" for i in range(50)])
        more = AnnData(sparse.csr_matrix(rng.poisson(2.0, (160, 50)).astype(np.float32)), obs=rna.obs, var=strange)
        both = AnnData(sparse.hstack([more.X, rna.X]).tocsr(), obs=rna.obs, var=pd.concat([more.var, rna.var[[]]]))
    data = mudata(rna=both, prot=protein)
    with quiet():
        parts = [data[:cut].copy(), data[cut:].copy()]
    expected = trained.pretrained.embed(cells)[order]
    close(trained.pretrained.embed(data), expected)
    close(np.concatenate([trained.pretrained.embed(part) for part in parts]), expected)


@pytest.mark.parametrize("first", ["rna", "prot"])
def test_modalities_may_have_their_cells_in_different_orders(first, trained, cells):
    """Rows are those of mdata.obs, so that ``mdata.obsm[key] = model.embed(mdata)`` is right."""
    with quiet():
        modalities = {"rna": cells["rna"].copy(), "prot": cells["prot"][::-1].copy()}
    data = mudata(**{name: modalities[name] for name in sorted(modalities, key=lambda name: name != first)})
    expected = pd.DataFrame(trained.pretrained.embed(cells), index=cells.obs_names).loc[data.obs_names]
    close(trained.pretrained.embed(data, inplace=True), expected)
    close(data.obsm["X_fusionttt"], expected)


def test_genes_the_input_lacks_count_as_not_measured(trained, cells):
    """Their values are unknown, which is not zero: half of the cells' counts are gone, and z hardly moves."""
    kept = np.arange(300) % 10 != 0
    with quiet():
        fewer = mudata(rna=cells["rna"][:, kept].copy(), prot=cells["prot"].copy())
    z, found = trained.pretrained.embed(cells), trained.pretrained.embed(fewer)
    assert not np.allclose(z, found)
    assert np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(z.T, found.T)]) > 0.9


def test_imputed_proteins_are_log_ratios(tiny, cells, rna_cells):
    """After some training they lie where ``log1p(count / geometric mean)`` of the training cells lies."""
    model = FusionTTT("fast", progress=False, **tiny | {"pretrain": {"epochs": 8, "lr": 1e-2}}).pretrain(cells)
    table = model.impute(cells)
    assert list(table.index) == list(cells.obs_names)
    assert set(table) == set(cells["prot"].var_names) - {"IgG1_control"}
    counts = pd.DataFrame(cells["prot"].X, cells.obs_names, cells["prot"].var_names)[list(table)]
    ratios = np.log1p(counts / np.exp(np.log1p(counts).mean()))
    assert (table.mean() - ratios.mean()).abs().max() < 0.3
    assert table.corrwith(ratios).mean() > 0.5
    without = model.impute(rna_cells)
    assert without.shape == (90, 8)
    assert np.isfinite(without).all(axis=None)


def test_imputing_needs_a_model_that_knows_proteins(tiny, cells, rna_cells):
    brief = tiny | {"pretrain": {"epochs": 1}}
    with pytest.raises(SettingError, match="without proteins"):
        FusionTTT("fast", progress=False, **brief).pretrain(rna_cells).impute(cells)
    few = copied(cells)
    few["prot"].X[5:] = np.nan
    with pytest.raises(SettingError, match="pretrain it again"):
        FusionTTT("fast", progress=False, **brief).pretrain(few).impute(cells, intervals=True)


def test_random_weights_predict_nothing(tiny, cells):
    """A model after build imputed, denoised and explained noise without a word."""
    model = FusionTTT("fast", progress=False, **tiny).build(cells)
    for predict in (model.impute, model.denoise, lambda data: model.explain(data, "CD3")):
        with pytest.raises(SettingError, match="weights are random, as build leaves them; run pretrain or finetune"):
            predict(cells)
    assert len(model.embed(cells)) == cells.n_obs


def test_one_model_predicts_and_imputes(trained, cells, rna_cells):
    """Fine-tuning dropped what imputing needed, so that users had to keep two models."""
    expected = trained.pretrained.impute(cells)
    pd.testing.assert_frame_equal(trained.finetuned.impute(cells), expected)
    student = trained.finetuned.transfer(rna_cells)
    assert np.isfinite(student.impute(rna_cells)).all(axis=None)


def test_imputed_proteins_depend_on_rna_alone(trained, cells):
    without = cells["rna"].copy()
    pd.testing.assert_frame_equal(trained.pretrained.impute(without), trained.pretrained.impute(cells), rtol=1e-5)


def test_intervals_surround_the_mean_and_have_its_units(trained, cells):
    imputed = trained.finetuned.impute(cells, intervals=True)
    counts = trained.finetuned.impute(cells, intervals=True, units="counts")
    for each in (imputed, counts):
        assert (each.low <= each.mean).all(axis=None)
        assert (each.mean <= each.high).all(axis=None)
        assert (each.sd > 0).all(axis=None)
    geometric_mean = np.exp(np.log1p(cells["prot"].to_df()[list(imputed.mean)]).mean())
    np.testing.assert_allclose(counts.high, np.expm1(imputed.high).clip(lower=0) * geometric_mean, rtol=1e-4)
    with pytest.raises(SettingError, match="units must be"):
        trained.finetuned.impute(cells, units="cpm")


def test_proteins_that_hardly_any_training_cell_had_are_not_imputed(tiny, cells, caplog):
    """They were the mean of these cells, or 0, with a standard deviation of 0."""
    partial = copied(cells)
    partial["prot"].X[5:, 0] = partial["prot"].X[:, 1] = np.nan
    model = FusionTTT("fast", progress=False, **tiny | {"pretrain": {"epochs": 1}}).pretrain(partial)
    with caplog.at_level("INFO", "scfusionttt"):
        imputed = model.impute(partial, intervals=True)
    names = list(cells["prot"].var_names[:2])
    for table in (imputed.mean, imputed.sd, imputed.low, imputed.high):
        assert set(table.columns[table.isna().all()]) == set(names)
        assert not table.drop(columns=names).isna().any(axis=None)
    assert all(name in caplog.messages[-1] for name in names)


def test_imputed_proteins_are_written_into_the_input(trained, cells):
    target = copied(cells)
    imputed = trained.finetuned.impute(target, intervals=True, inplace=True)
    pd.testing.assert_frame_equal(target.obsm["protein_imputed"], imputed.mean)
    for name in ("sd", "low", "high"):
        pd.testing.assert_frame_equal(target.obsm[f"protein_imputed_{name}"], getattr(imputed, name))


def test_results_of_an_earlier_call_do_not_stay_beside_new_ones(trained, rna_cells):
    """Intervals of log-ratios stayed beside proteins in counts, and the ontology ids of an earlier annotation."""
    data = copied(rna_cells)
    trained.finetuned.annotate(data, inplace=True)
    trained.finetuned.impute(data, units="counts", inplace=True)
    trained.finetuned.predict(data, inplace=True)
    assert list(data.obsm) == ["protein_imputed"]
    assert "fusionttt_label" in data.obs and "fusionttt_ontology_id" not in data.obs


def test_refined_predictions_do_not_depend_on_the_order_of_the_cells(trained, cells):
    """Components by a randomised solver differed, and with them the classes of some cells."""
    turned = copied(cells[::-1])
    classes = trained.finetuned.classes
    first, second = (trained.finetuned.predict(each, refine=True)[classes] for each in (cells, turned))
    np.testing.assert_allclose(first, second.loc[first.index], atol=1e-5)


def test_refined_predictions_keep_their_form(trained, cells):
    """And a query with too few cells for a vote keeps the predictions of its cells."""
    plain, refined = (trained.finetuned.predict(cells, refine=refine) for refine in (False, True))
    assert list(refined) == list(plain)
    np.testing.assert_allclose(refined[trained.finetuned.classes].sum(axis=1), 1, rtol=1e-5)
    assert not np.allclose(refined["probability"], plain["probability"])
    few = copied(cells[:8])
    expected = trained.finetuned.predict(few)
    pd.testing.assert_frame_equal(trained.finetuned.predict(few, refine=True), expected)


def test_proteins_of_another_study_do_not_name_cells(trained, cells, caplog):
    """Their antibodies stain differently: annotate read them, and 79 % of a mosaic's names were right, not 96 %."""
    model = trained.finetuned
    other = of_another_study(cells)
    model.predict(cells)
    assert "unlike" not in caplog.text
    model.predict(other)
    assert "predict with rna_only=True (--rna-only)" in caplog.text
    caplog.clear()
    expected = model.annotate(cells["rna"])
    for data in (cells, other):
        pd.testing.assert_frame_equal(model.annotate(data).cells, expected.cells)
    ignored, by_rna = model.predict(other, rna_only=True), model.predict(cells["rna"])
    pd.testing.assert_frame_equal(ignored, by_rna)
    assert "unlike" not in caplog.text


def test_proteins_that_no_model_reads_are_not_blamed(caplog):
    """The advice was to ignore the proteins of cells of which none is the model's."""
    for column in (-1, 0):
        assert not caplog.messages
        warn_of_other_proteins(Match(np.array([0]), np.array([-1, column])), np.zeros(50))
    assert "100 % of the cells are unlike those that the classes were learned from" in caplog.text


def test_a_masked_autoencoder_imputes_each_protein_without_its_own_value(tiny, cells, rna_cells):
    settings = {"objective": "masked", "epochs": 8, "lr": 1e-2, "hide_protein": 0.0}
    network = tiny["network"] | {"decoder_blocks": 1, "latent": 0}
    model = FusionTTT("fast", progress=False, network=network, pretrain=settings).pretrain(cells)
    table = model.impute(cells)
    name = table.columns[0]
    other = copied(cells)
    other["prot"].X[:, list(other["prot"].var_names).index(name)] += 100.0
    np.testing.assert_allclose(model.impute(other)[name], table[name], rtol=1e-4, atol=1e-5)
    assert table.std().min() > 0
    without = model.impute(rna_cells)
    assert without.shape == (90, 8)
    assert without.std().min() > 0  # and not what a row of mask tokens gives every cell
