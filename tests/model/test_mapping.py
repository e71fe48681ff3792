"""A query is mapped into the embedding of a reference, which stays as it is."""

from copy import deepcopy

import numpy as np
import pandas as pd
import pytest
import torch
from mudata import MuData
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors

from scfusionttt.errors import InputDataError, SettingError
from scfusionttt.io.quiet_warnings import quiet
from scfusionttt.model.fusionttt import FusionTTT
from scfusionttt.simulation.simulate import simulate
from support import copied, of_another_study, without_column

NOVEL = "NK"


@pytest.fixture(scope="module")
def batches():
    """Three batches; the third is the query, with a type of its own."""
    return simulate(700, 400, 16, 5, n_batches=3, batch_effect=0.6, composition_shift=0.5, batch_only=NOVEL, seed=1)


def part(cells, *batches):
    return copied(cells[cells.obs["batch"].isin(batches).to_numpy()])


@pytest.fixture(scope="module")
def reference(batches):
    return part(batches, "batch 1", "batch 2")


@pytest.fixture(scope="module")
def query(batches):
    return part(batches, "batch 3")


@pytest.fixture(scope="module")
def model(reference):
    model = FusionTTT("fast", progress=False, network={"width": 16}, pretrain={"epochs": 12})
    return model.pretrain(reference, batch_key="batch").finetune(reference, labels_key="cell_type")


@pytest.fixture(scope="module")
def mapped(model, query):
    return model.map(query)


def test_cells_of_a_new_batch_lie_among_their_types(model, mapped, reference, query):
    types, shared = query.obs["cell_type"].astype(str), (query.obs["cell_type"] != NOVEL).to_numpy()
    neighbours = KNeighborsClassifier(15).fit(model.embed(reference), reference.obs["cell_type"].astype(str))
    assert (neighbours.predict(mapped.embedding) == types)[shared].mean() > 0.9
    assert (mapped.cells["label"].astype(str).to_numpy() == types)[shared].mean() > 0.9


def test_the_effect_of_the_batch_is_removed(model, mapped, reference, query):
    """The mean of a type differs less between query and reference than before."""
    untouched = model.map(query).model
    untouched.network.backbone.correction.shifts[2] = 0
    known, before = model.embed(reference), untouched.embed(query)
    gaps = []
    for name in ("CD4 naive T", "CD14 monocyte"):
        own, other = (np.asarray(part.obs["cell_type"] == name) for part in (query, reference))
        gaps.append([np.linalg.norm(z[own].mean(0) - known[other].mean(0)) for z in (before, mapped.embedding)])
    assert (np.array(gaps)[:, 1] < 0.85 * np.array(gaps)[:, 0]).all()


def test_the_reference_stays_as_it_is_bit_for_bit(model, mapped, reference):
    np.testing.assert_array_equal(mapped.model.embed(reference), model.embed(reference))
    np.testing.assert_array_equal(mapped.model.predict(reference), model.predict(reference))


def test_cells_without_a_counterpart_are_told_by_their_p_values(mapped, query):
    novel = (query.obs["cell_type"] == NOVEL).to_numpy()
    p_value = mapped.cells["p_value"].to_numpy()
    assert np.median(p_value[novel]) < 0.01
    assert np.median(p_value[~novel]) > 0.2
    share = mapped.batches.loc["batch 3", "without_counterpart"]
    assert share == pytest.approx((p_value <= 0.01).mean())


def test_p_values_by_rna_alone_are_compared_with_cells_by_rna_alone(model, query):
    """Without proteins a cell lies nearer to others: by the distances of whole cells, no p-value was low."""
    shared = (query.obs["cell_type"] != NOVEL).to_numpy()
    earlier = deepcopy(model)
    earlier.network.backbone.correction.rna_distances.fill_(torch.inf)  # as in models of earlier versions
    now, before = (one.map(query["rna"]).cells["p_value"].to_numpy()[shared] for one in (model, earlier))
    assert 0.4 < np.median(now) < 0.6
    assert np.median(before) > 0.7


def test_a_mapped_model_knows_the_batches_of_the_query(mapped, query, tmp_path):
    mapped.model.save(tmp_path / "model")
    np.testing.assert_array_equal(FusionTTT.load(tmp_path / "model").embed(query), mapped.embedding)


def test_a_query_without_batches_is_one_batch(model, query, mapped):
    bare = copied(query)
    bare.obs = bare.obs.drop(columns="batch")
    alone = model.map(bare)
    assert list(alone.batches.index) == ["query"]
    np.testing.assert_allclose(alone.embedding, mapped.embedding, atol=1e-4)
    np.testing.assert_array_equal(alone.model.embed(bare), alone.embedding)


def test_genes_and_proteins_may_be_missing(model, query):
    with quiet():
        fewer = query.copy()
        fewer.mod["rna"], fewer.mod["prot"] = fewer["rna"][:, 30:].copy(), fewer["prot"][:, :12].copy()
        fewer.update()
    mapped, shared = model.map(fewer, batch_key="batch"), (query.obs["cell_type"] != NOVEL).to_numpy()
    assert (mapped.cells["label"].astype(str) == query.obs["cell_type"].astype(str))[shared].mean() > 0.75


def test_cells_of_rna_alone_lie_as_far_from_their_kinds_as_the_reference(model, mapped, reference, query):
    """They lay in the middle of each kind, as the nearest neighbours of the reference: names were worse, too."""
    alone = model.map(query, rna_only=True)
    unstretched = deepcopy(alone.model)
    unstretched.network.backbone.correction.stretch.fill_(1)
    first = model.embed(reference)

    def share(second):
        near = NearestNeighbors(n_neighbors=16).fit(np.vstack([first, second])).kneighbors(return_distance=False)
        return (near >= len(first)).mean()

    assert mapped.model.network.backbone.correction.stretch.eq(1).all()
    with quiet():
        rna = query["rna"].copy()
        rna.obs["batch"] = query.obs["batch"]
    before, chance = share(unstretched.embed(rna)), query.n_obs / (query.n_obs + reference.n_obs)
    assert abs(share(alone.embedding) - chance) < 0.6 * abs(before - chance)


def test_cite_seq_is_mapped_by_its_rna_alone_on_request(model, query):
    """The advice to map RNA alone could not be followed on the command line without writing another file."""
    rna = query["rna"].copy()
    rna.obs["batch"] = query.obs["batch"]
    expected, mapped = model.map(rna), model.map(query, rna_only=True)
    np.testing.assert_array_equal(mapped.embedding, expected.embedding)
    pd.testing.assert_frame_equal(mapped.cells, expected.cells)
    assert not np.array_equal(mapped.embedding, model.map(query).embedding)
    with quiet():
        apart = MuData({"rna": query["rna"][:50].copy(), "prot": query["prot"].copy()})
    with pytest.raises(InputDataError, match="mapping by RNA alone needs RNA, which some cells lack"):
        model.map(apart, cells="all", rna_only=True)


def test_known_batches_are_embedded_as_by_embed(model, reference):
    np.testing.assert_array_equal(model.map(reference).embedding, model.embed(reference))


def test_another_tissue_is_warned_of_but_may_be_cells_with_few_proteins(model, caplog):
    """Own cells with 15 of 224 proteins had no counterpart (42 %), and only species and tissue were named."""
    other = simulate(200, 400, 16, 5, seed=9)
    other["rna"].var_names = model.features.genes["name"].to_numpy()
    model.map(other)
    assert "many cells of these batches have no counterpart in the reference: 'query' (" in caplog.text
    assert "map with rna_only=True (--rna-only) if many of the model's proteins were not measured" in caplog.text


def test_a_small_batch_is_warned_of(model, query, caplog):
    model.map(copied(query[:12]))
    assert "batches of fewer than 20 cells, whose effect can hardly be estimated: 'batch 3' (12)" in caplog.text


def test_few_cells_of_a_known_batch_are_not_warned_of(model, batches, caplog):
    """Their effect is that of the model, estimated from all its cells."""
    rows = np.r_[
        np.flatnonzero(batches.obs["batch"] == "batch 3")[:30], np.flatnonzero(batches.obs["batch"] == "batch 1")[:5]
    ]
    model.map(copied(batches[rows]))
    assert "can hardly be estimated" not in caplog.text


def test_a_batch_per_cell_is_warned_of_in_one_line(single, query, caplog):
    """Each of the batches had a warning of its own."""
    many = copied(query[:30])
    many.obs["cell"] = many.obs_names
    single[0].map(many, batch_key="cell")
    assert [record.getMessage().count("and 27 more") for record in caplog.records if "few" in record.getMessage()] == [
        1
    ]


@pytest.fixture(scope="module")
def single(batches):
    """A model of one batch, and its cells."""
    cells = part(batches, "batch 1")
    model = FusionTTT("fast", progress=False, network={"width": 16}, pretrain={"epochs": 12})
    return model.pretrain(cells).finetune(cells, labels_key="cell_type"), cells


def test_a_reference_of_one_batch_takes_queries(single, query, tmp_path):
    """Mapping needed a reference of several batches, though there was one to map to."""
    (model, cells), shared = single, query.obs["cell_type"].isin(single[1].obs["cell_type"]).to_numpy()
    mapped = model.map(query, batch_key="batch")
    assert (mapped.cells["label"].astype(str) == query.obs["cell_type"].astype(str))[shared].mean() > 0.85
    mapped.model.save(tmp_path / "mapped")
    again = FusionTTT.load(tmp_path / "mapped")
    assert again.batch_keys == ["batch"]
    np.testing.assert_allclose(again.embed(query), mapped.embedding, atol=1e-5)
    np.testing.assert_array_equal(again.embed(without_column(cells, "batch")), model.embed(cells))
    np.testing.assert_array_equal(model.map(query).embedding, mapped.embedding)


def test_a_reference_of_one_batch_stays_as_it_is_whatever_is_mapped(single, query):
    """A query without a name became the batch of every cell without one, the reference's too."""
    (model, cells), known = single, single[0].embed(single[1])
    bare, own, named = copied(query), copied(cells), copied(query)
    bare.obs = bare.obs.drop(columns="batch")
    mapped = model.map(bare)
    assert list(mapped.batches.index) == ["query"]
    own.obs["store_input"] = "reference"
    for each in (cells, own):
        np.testing.assert_array_equal(mapped.model.embed(each), known)
    again = mapped.model.map(bare)
    assert list(again.batches.index) == ["query 2"]
    np.testing.assert_array_equal(again.embedding, mapped.embedding)
    named.obs = bare.obs.assign(store_input="query")
    np.testing.assert_array_equal(mapped.model.embed(named), mapped.embedding)


def test_the_effect_of_a_batch_on_a_reference_of_one_is_removed(single, query):
    model, cells = single
    mapped, directly, known = model.map(query).embedding, model.embed(query), model.embed(cells)

    def gap(z, name):
        own, other = (each.obs["cell_type"] == name for each in (query, cells))
        return np.linalg.norm(z[own.to_numpy()].mean(axis=0) - known[other.to_numpy()].mean(axis=0))

    before, after = ([gap(z, name) for name in ("CD14 monocyte", "CD4 naive T")] for z in (directly, mapped))
    assert after[0] < 0.5 * before[0]
    assert after[1] < 0.9 * before[1]


def test_embed_warns_of_cells_of_another_study(single, query, caplog):
    """Neighbours of a mosaic's cells, embedded by a model of PBMC10K, were 99 % of the mosaic, and nothing said so."""
    model, cells = single
    other = of_another_study(cells)
    for known in (cells, cells["rna"], query, other[:10]):  # a new type, or few cells, are no other study
        model.embed(known)
    mapped = model.map(other)
    mapped.model.embed(cells)
    assert "lie far" not in caplog.text
    model.embed(other)
    assert "100 % of the cells lie far from all that the model was trained on (expected: 5 %)" in caplog.text


BY_GRADIENT = {"classifier": "finetune", "epochs": 10, "lr": 3e-3}


def test_cells_are_mapped_and_placed_by_a_network_that_learned_labels(batches):
    """It had moved the cells away from their kinds: all had a large effect and no counterpart, or lay among others."""
    cells = part(batches, "batch 1")
    model = FusionTTT("fast", progress=False, network={"width": 16}, pretrain={"epochs": 6}, finetune=BY_GRADIENT)
    model.pretrain(cells).finetune(cells, labels_key="cell_type")
    mapped = model.map(cells, batch_key="batch")
    with pytest.raises(SettingError, match=r"batches were mapped to this model \(batch 1\), and their effects"):
        mapped.model.finetune(cells, labels_key="cell_type")
    with pytest.raises(SettingError, match=r"batches were mapped to this model \(batch 1\), and their effects"):
        mapped.model.transfer(cells, labels_key="cell_type")
    assert mapped.batches.loc["batch 1", "effect"] < 0.3
    assert mapped.batches.loc["batch 1", "without_counterpart"] < 0.05
    with quiet():
        alone = cells.copy()
        alone.mod["rna"] = alone["rna"][:100].copy()
        alone.update()
    label = model.predict(alone, cells="all", unknown=None)["label"].astype(str)
    truth = cells.obs["cell_type"].astype(str)
    assert (label == truth.loc[label.index]).mean() > 0.8


def test_cells_are_mapped_by_a_student_that_learned_labels(batches, caplog):
    """Learning moved all cells away from their kinds, those that the student had learned from included."""
    cells = part(batches, "batch 1")
    settings = {"network": {"width": 16}, "pretrain": {"epochs": 2}, "finetune": BY_GRADIENT}
    student = FusionTTT("fast", progress=False, **settings).pretrain(cells).transfer(cells, labels_key="cell_type")
    mapped = student.map(cells["rna"])
    assert mapped.batches.loc["query", "effect"] < 0.3
    assert mapped.batches.loc["query", "without_counterpart"] < 0.05
    student.embed(cells["rna"])
    assert "lie far" not in caplog.text


def test_new_batches_are_refused_once_the_network_has_learned_labels(reference, query):
    """Without the refusal, a new batch lay apart from the cells of its types, and so did that of a student."""
    learned = FusionTTT("fast", progress=False, network={"width": 16}, pretrain={"epochs": 1}, finetune=BY_GRADIENT)
    learned.pretrain(reference, batch_key="batch").finetune(reference, labels_key="cell_type")
    with pytest.raises(SettingError, match="learned labels after the effects of its batches"):
        learned.map(query)
    with pytest.raises(SettingError, match="learned labels after the effects of its batches"):
        learned.transfer(query)
    assert learned.transfer(reference).stage == learned.transfer(query, labels_key="cell_type").stage == "transfer"
    np.testing.assert_array_equal(learned.map(reference).embedding, learned.embed(reference))


def test_cells_of_known_batches_have_counterparts_once_the_network_has_learned_labels(batches):
    """P-values compared them with cells where these had been before: all had none, and a warning said so."""
    cells, settings = part(batches, "batch 1", "batch 2"), {"network": {"width": 16}, "pretrain": {"epochs": 1}}
    model = FusionTTT("fast", progress=False, finetune=BY_GRADIENT, **settings).pretrain(cells, batch_key="batch")
    for learn in (model.transfer, model.finetune):
        learned = learn(cells, labels_key="cell_type")
        assert (learned.map(cells).batches["without_counterpart"] < 0.05).all()


def test_a_model_without_kinds_of_cells_cannot_map(reference, query):
    small = {"width": 16, "encoder_blocks": 1, "decoder_blocks": 1}
    model = FusionTTT("paper", progress=False, network=small, pretrain={"epochs": 1}).pretrain(reference)
    with pytest.raises(SettingError, match="mapping needs a model that knows its kinds of cells; this one"):
        model.map(query)


def test_a_student_for_rna_alone_treats_its_cells_as_a_new_batch(model, query):
    rna = query["rna"].copy()
    rna.obs["cell_type"] = query.obs["cell_type"].astype(str)
    known = (rna.obs["cell_type"] != NOVEL).to_numpy()
    for student in (model.transfer(rna), model.transfer(rna, labels_key="cell_type")):
        predicted = student.predict(rna)["label"].astype(str).to_numpy()
        assert (predicted == rna.obs["cell_type"].to_numpy())[known].mean() > 0.65  # four similar types, by 400 genes
