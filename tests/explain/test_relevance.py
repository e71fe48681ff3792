from functools import partial
from importlib import import_module

import numpy as np
import pandas as pd
import pytest
import torch

from scfusionttt import inference
from scfusionttt.data.assemble import as_citeseq
from scfusionttt.data.loader import make_loader
from scfusionttt.errors import SettingError
from scfusionttt.explain.relevance import (
    Target,
    _inputs,
    _integrated_gradients,
    _output,
    find_target,
    p_values,
    panel_scores,
    share,
)
from scfusionttt.io.quiet_warnings import quiet
from scfusionttt.model.dataset import dataset_for
from scfusionttt.model.fusionttt import FusionTTT
from support import copied

pytest.importorskip("captum")
CPU = torch.device("cpu")


def test_a_feature_that_explains_the_truth_is_significant_and_noise_is_not():
    rng = np.random.default_rng(0)
    truth = rng.normal(size=150)
    contribution = 0.05 * rng.normal(size=(150, 40))
    contribution[:, 7] = 0.3 * truth
    p = p_values(contribution, truth, permutations=99, seed=0)
    assert share(contribution, truth)[7] == pytest.approx(0.3)
    assert p[7] == 0.01
    assert (np.delete(p, 7) > 0.05).all()


def test_a_feature_of_small_contributions_is_significant_beside_one_of_large():
    """A class had a single feature: the share of the largest set the limit for all others."""
    rng = np.random.default_rng(0)
    truth = rng.normal(size=150)
    contribution = 0.5 * truth[:, None] * [1.0, 0.01] + rng.normal(size=(150, 2)) * [1.0, 0.005]
    assert p_values(contribution, truth, permutations=99, seed=0).tolist() == [0.01, 0.01]


def test_the_best_features_are_compared_with_random_ones_in_other_cells():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(400, 60))
    truth = values[:, :3].sum(axis=1) + 0.1 * rng.normal(size=400)
    scores = panel_scores(values * np.where(np.arange(60) < 3, 1.0, 0.0), values, truth, np.ones(60, dtype=bool), 0)
    assert scores["panel_r2"] > 0.95
    assert scores["random_r2"] + scores["random_r2_sd"] < 0.6
    noise = panel_scores(values, values, rng.normal(size=400), np.ones(60, dtype=bool), 0)
    assert noise["panel_r2"] < 0.1, "features are chosen and fitted in the other half"


def test_panels_of_a_class_of_one_cell_have_no_scores():
    """One half has no cell of the class: features were chosen by 0 / 0, with a warning, and scored 0."""
    values = np.random.default_rng(0).normal(size=(40, 20))
    scores = panel_scores(values, values, np.eye(40)[3], np.ones(20, dtype=bool), 0)
    assert set(scores) == {"panel_r2", "random_r2", "random_r2_sd"} and np.isnan(list(scores.values())).all()


def test_noise_is_listed_no_more_often_than_the_level():
    """The chance is that of any feature, not of each: 40 features do not find two by luck."""
    rng = np.random.default_rng(1)
    draws = [(rng.normal(size=(60, 40)), rng.normal(size=60)) for _ in range(20)]
    found = sum((p_values(c, y, permutations=59, seed=0) <= 0.05).any() for c, y in draws)
    assert found <= 4


def test_contributions_add_up_to_the_output(cells, trained):
    model, target = trained.pretrained, Target("CD3", protein=0)
    dataset = dataset_for(model._state, as_citeseq(cells)).subset(np.arange(9))
    output = _output(model.network.eval(), target)
    read = partial(_inputs, target=target, device=CPU)
    contribution, values = _integrated_gradients(output, dataset, target, read, 4, 150)
    total = contribution.sum(axis=1)
    inputs = read(next(iter(make_loader(dataset, batch_size=9))))
    assert np.array_equal(values[:, : inputs.rna.shape[1]], inputs.rna.numpy())
    zero = inputs._replace(rna=torch.zeros_like(inputs.rna), protein=torch.zeros_like(inputs.protein))
    with torch.no_grad():
        change = (output(inputs) - output(zero)).numpy()
    assert np.allclose(total, change, atol=0.02 * np.abs(change).max())


def test_progress_is_logged(cells, trained, monkeypatch, caplog):
    monkeypatch.setattr(import_module("scfusionttt.explain.relevance"), "LINE_EVERY", -1.0)
    with caplog.at_level("INFO", logger="scfusionttt"):
        trained.pretrained.explain(cells, "CD3", n_cells=40, steps=64, masked=1, permutations=19)
    assert "CD3: 0 of 40 cells explained" in caplog.messages


def test_a_protein_is_explained_without_its_own_value(cells, trained):
    table = trained.pretrained.explain(cells, "CD3", n_cells=40, steps=4, masked=3, permutations=19, level=1.0)
    assert len(table) == 300 + 7  # 8 proteins, itself left out, the isotype control never in
    assert "CD3" not in table["name"][table["modality"] == "protein"].tolist()
    assert table["share"].is_monotonic_decreasing
    assert table["share"].sum() == pytest.approx(1, abs=1e-6)
    assert table["score"].between(-1, 1).all() and table["score"].min() < 0 < table["score"].max()
    assert 0 <= table.attrs["random_r2"] <= 1
    assert table["share_by_masking"].notna().sum() == 3


def test_a_model_that_rebuilds_tokens_is_explained_by_its_decoder_of_tokens(cells, tiny):
    """Its bottleneck's decoder, which the masked objective does not train, had been explained."""
    network = {**tiny["network"], "latent": 0, "decoder_blocks": 1}
    model = FusionTTT("fast", progress=False, network=network, pretrain={"objective": "masked"}).build(cells)
    dataset = dataset_for(model._state, as_citeseq(cells)).subset(np.arange(9))
    target, place = Target("CD4", protein=1), len(model._state.features.genes) + 1
    parts = np.where(np.arange(len(model._state.features.table)) == place, 0, -1)
    expected = inference.reconstructed_when_hidden(model.network, dataset, CPU, parts)[:, place]
    with torch.no_grad():
        batch = next(iter(make_loader(dataset, batch_size=9)))
        found = _output(model.network.eval(), target)(_inputs(batch, target, CPU)).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_a_protein_is_explained_by_genes_alone(cells, trained):
    options = {"n_cells": 40, "steps": 4, "masked": 1, "permutations": 9, "level": 1.0}
    table = trained.pretrained.explain(cells, "CD3", rna_only=True, **options)
    assert len(table) == 300
    assert table["share"].sum() == pytest.approx(1, abs=1e-6), "the proteins, which are hidden, contribute nothing"


def test_features_that_the_model_does_not_read_are_in_no_random_panel(cells, trained, monkeypatch):
    """Proteins, which were hidden, had been among the random features that the best genes are compared with."""
    panels, options = [], {"n_cells": 40, "steps": 2, "masked": 0, "level": 1.0}

    def remember(*arguments):
        panels.append(arguments[3])
        return panel_scores(*arguments)

    monkeypatch.setattr(import_module("scfusionttt.explain.relevance"), "panel_scores", remember)
    trained.pretrained.explain(cells, "CD3", **options)
    trained.pretrained.explain(cells, "CD3", rna_only=True, **options)
    trained.student.explain(cells, trained.student.classes[0], **options)
    assert [bool(usable[300:].any()) for usable in panels] == [True, False, False]


def test_a_class_is_compared_with_labels_and_averaged_by_type(cells, trained):
    model = trained.finetuned
    options = {"n_cells": 40, "steps": 4, "masked": 2, "permutations": 19}
    table = model.explain(cells, model.classes[0], labels_key="cell_type", level=1.0, **options)
    assert {f"mean in {name}" for name in model.classes} <= set(table.columns)
    fewer = model.explain(cells, model.classes[0], level=0.05, **options)
    assert (fewer["p_value"] <= 0.05).all() and len(fewer) < len(table)


def test_cells_without_a_type_are_neither_of_the_class_nor_of_others(cells, trained):
    """They had counted as others."""
    model, options = trained.finetuned, {"labels_key": "cell_type", "n_cells": 160, "steps": 4, "masked": 0, "level": 1}
    some, labelled = copied(cells), copied(cells[:60])
    some.obs["cell_type"] = some.obs["cell_type"].where(np.arange(160) < 60)
    found, expected = (model.explain(data, model.classes[0], **options).attrs for data in (some, labelled))
    assert found["explained"] == pytest.approx(expected["explained"], rel=1e-5)


def test_cells_are_drawn_among_those_that_can_be_compared(cells, trained, monkeypatch):
    """40 of 160 cells were drawn first, and those without the protein or a label then left out: about 10 remained."""
    sizes, options = [], {"n_cells": 40, "steps": 1, "masked": 0, "level": 1}

    def remember(contribution, truth, *arguments):
        sizes.append(len(truth))
        return p_values(contribution, truth, *arguments)

    monkeypatch.setattr(import_module("scfusionttt.explain.relevance"), "p_values", remember)
    known = np.arange(160) % 4 == 0
    some = copied(cells)
    some.obs["cell_type"] = some.obs["cell_type"].where(known)
    some["prot"].X[~known] = np.nan
    trained.pretrained.explain(some, "CD3", **options)
    trained.finetuned.explain(some, trained.finetuned.classes[0], labels_key="cell_type", **options)
    assert sizes == [40, 40]
    some["prot"].X[:] = np.nan
    with pytest.raises(SettingError, match="CD3 was measured in none of the cells"):
        trained.pretrained.explain(some, "CD3")


def test_targets_and_options_that_explain_nothing_are_refused(cells, trained):
    with pytest.raises(SettingError, match="'CD999' is not a protein of this pretrained model; choose from: "):
        trained.pretrained.explain(cells, "CD999")
    with pytest.raises(SettingError, match="not a class of this model; proteins are explained by a pretrained one"):
        trained.finetuned.explain(cells, "CD3")
    with pytest.raises(SettingError, match=r"level must be between 0 and 1 \(got 5\)"):
        trained.pretrained.explain(cells, "CD3", level=5)
    with pytest.raises(SettingError, match=r"9 permutations give no p-value below 0\.1; raise level"):
        trained.pretrained.explain(cells, "CD3", permutations=9)  # which had listed nothing, whatever contributes
    with pytest.raises(SettingError, match=r"steps must be a whole number above 0 \(got 0\)"):
        trained.pretrained.explain(cells, "CD3", steps=0)  # it was a ZeroDivisionError
    for n_cells in (0, -5, 1, "9", None):  # 0 was an error of torch, and -5 stood for all but five
        with pytest.raises(SettingError, match="n_cells must be at least 2"):
            trained.pretrained.explain(cells, "CD3", n_cells=n_cells)
    same = copied(cells)
    same["prot"].X[:] = 5
    with pytest.raises(SettingError, match="CD3 is constant in all 160 cells where it was measured"):
        trained.pretrained.explain(same, "CD3")
    other = copied(cells)
    other.obs["mine"] = np.where(np.arange(other.n_obs) % 2, "a", "b")  # a class was "constant where it was measured"
    with pytest.raises(SettingError, match=f"none of the 160 cells are labelled {trained.finetuned.classes[0]};"):
        trained.finetuned.explain(other, trained.finetuned.classes[0], labels_key="mine")


def test_a_protein_is_matched_by_its_antigen_and_by_its_gene_if_unique(trained):
    """Real panels say CD3_TotalSeqB; CD45RA and CD45RO share PTPRC, of which the first had been taken in silence."""
    panel = pd.DataFrame({"name": ["CD45RA_TotalSeqB", "CD45RO_TotalSeqB", "CD3_TotalSeqB"]})
    panel["symbol"] = ["PTPRC", "PTPRC", "CD3E"]

    def found(name):
        return find_target(name, trained.pretrained.network, panel, [])

    assert found("CD3") == found("cd3e") == found("CD3_TotalSeqB") == Target("CD3_TotalSeqB", protein=2)
    assert found("CD45RO").protein == 1
    with pytest.raises(SettingError, match="'PTPRC' matches CD45RA_TotalSeqB, CD45RO_TotalSeqB; choose one"):
        found("PTPRC")


def test_the_command_line_writes_the_table_of_the_model(cells, trained, tmp_path, monkeypatch, scfusionttt):
    monkeypatch.chdir(tmp_path)
    trained.pretrained.save("m")
    with quiet():
        cells.write_h5mu("c.h5mu")
    done = scfusionttt("explain c.h5mu --model m --target cd3 --n-cells 30 --level 1 --out t.csv")
    assert done.code == 0, done.err
    assert "t.csv: 307 features\n" in done.err  # all of them: nothing is said of chance
    assert "a regression on the 10 features of the highest share explains" in done.err
    assert len(pd.read_csv("t.csv")) == 307
    assert scfusionttt("explain c.h5mu --model m --target nobody --out t.csv").code == 2
