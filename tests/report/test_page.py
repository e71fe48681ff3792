import json
import re
from copy import deepcopy
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from mudata import MuData
from scipy.sparse import csr_matrix

from scfusionttt.data.assemble import as_citeseq
from scfusionttt.data.transforms import log_normalize
from scfusionttt.errors import FeatureError, InputDataError, LabelError, SettingError
from scfusionttt.evaluation import cluster_graph, evaluate_clusters, neighbours, top_features
from scfusionttt.io.quiet_warnings import quiet
from scfusionttt.io.tables import read_map
from scfusionttt.keys import INPUT, MEASURED
from scfusionttt.model import unlike
from scfusionttt.model.fusionttt import FusionTTT
from scfusionttt.model.provenance import Provenance
from scfusionttt.plotting import figures
from scfusionttt.report import write_report
from scfusionttt.report.analysis import analyze
from scfusionttt.report.input_sections import input_section
from scfusionttt.report.map_section import map_section
from scfusionttt.report.page import _training_section
from scfusionttt.report.result_sections import (
    batches_section,
    clusters_section,
    genome_section,
    markers_section,
    scores_section,
    types_section,
)
from support import of_another_study


@pytest.fixture(scope="module")
def typed(trained, cells, tmp_path_factory):
    """The report of a fine-tuned model on cells of which it was trained on some, with a hostile name."""
    out = tmp_path_factory.mktemp("report") / "report.html"
    cite = deepcopy(as_citeseq(cells))
    cite.obs["surprise"] = np.linspace(0, 1, len(cite.obs))
    types = cite.obs["cell_type"].astype(str)
    cite.obs["cell_type"] = types.replace({types.iloc[0]: "<script>alert(1)</script>"})
    cite.obs["donor"] = np.where(np.arange(len(types)) % 2, "A", "B")
    cite.obs["day"] = np.arange(len(types)) % 3
    genes = [name for name in cite.rna.var_names if name not in set(trained.finetuned.features.genes["name"])][:1]
    genes += cite.rna.var_names[:1].tolist()
    analysis = write_report(
        trained.finetuned, cite, out, labels_key="cell_type", genes=genes, color=["day"], batch_key="donor",
        coords=np.random.default_rng(0).normal(size=(len(types), 2)), resolutions=[1, 0.5],
        command="scfusionttt report",
    )  # fmt: skip
    return SimpleNamespace(analysis=analysis, page=out.read_text(encoding="utf-8"), cite=cite)


def headings(page):
    return re.findall(r"<h2[^>]*>(.*?)</h2>", page)


def test_the_page_has_every_section_and_needs_no_network(typed):
    assert headings(typed.page) == [
        "Cells", "Cell types", "Clusters", "Markers", "Batches", "Scores",
        "Genome", "Input", "Training", "Settings, versions and commands",
    ]  # fmt: skip
    assert "://" not in typed.page
    assert "<script>alert" not in typed.page
    assert '"name":"surprise"' in typed.page
    for name in ("donor", "day", "cluster (leiden 0.5)", "cluster (leiden 1)"):
        assert f'"name":"{name}"' in typed.page
    assert "The given coordinates of 160 cells." in typed.page


def test_the_order_of_the_genes_is_that_of_the_model(typed, trained):
    """Of a model with `data.order=shuffled`, the page said that it reads genes in genome order."""
    assert "reads genes in genome order" in typed.page
    shuffled = SimpleNamespace(config=trained.finetuned.config.with_settings({"data.order": "shuffled"}))
    assert "in another order (data.order=shuffled)" in genome_section(shuffled, typed.analysis).text


def test_a_model_after_transfer_reads_no_proteins(trained, cells, tmp_path):
    """The page said that it reads those of CITE-seq: RNA and surface proteins, 8 of 8."""
    write_report(trained.zero_shot, cells, tmp_path / "report.html", resolutions=[1])
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "RNA alone of 160 human cells" in page
    assert f"Proteins: {cells['prot'].n_vars} in the input, 0 read by the model" in page


def test_batches_that_are_drawn_at_random_are_mixed(typed):
    row = re.search(r'<th scope="row">all cells</th>(.*?)</tr>', typed.page)[1]
    *sizes, mixing = re.findall(r">([0-9.,]+)</td>", row)
    assert sizes == ["80", "80"]
    assert 0.8 < float(mixing) < 1.2


def test_batches_are_listed_in_natural_order(typed):
    """Donor 10 came before donor 2, unlike in the rest of the page."""
    donor = np.array(["donor 10", "donor 2"], dtype=object)[np.arange(typed.analysis.n_cells) % 2]
    (table,) = batches_section(replace(typed.analysis, batches={"donor": donor})).tables
    assert table.header[1:3] == ["donor 2", "donor 10"]


def test_batches_and_types_may_have_the_names_of_the_table(typed):
    """How batches mix replaced the cells of a batch `mixing`; a type `all cells` ended the report with a traceback."""
    types = typed.analysis.truth.copy()
    types[types == types[1]] = "all cells"
    for name in ("mixing", "own batch / chance"):
        batch = np.where(typed.analysis.batches["donor"] == "A", "0", name).astype(object)
        analysis = replace(typed.analysis, truth=types, batches={"donor": batch})
        (table,) = batches_section(analysis).tables
        assert table.header == ["label (cell_type)", "0", name, "own batch / chance"]
        total, *rows = table.body
        assert total[:3] == ["all cells", "80", "80"]
        assert {name: int(a) + int(b) for name, a, b, _ in rows} == dict(zip(*np.unique(types, return_counts=True)))
        assert 0.8 < float(total[3]) < 1.2


def test_shares_of_labels_in_clusters_are_said_to_be_of_labelled_cells(typed):
    """A cluster of 27 cells, of which 3 were labelled, was 67 % of one type, and nothing said of what."""
    words = "of the labelled cells"
    assert words not in clusters_section(typed.analysis).tables[0].notes
    truth = typed.analysis.truth.copy()
    truth[::2] = ""
    assert words in clusters_section(replace(typed.analysis, truth=truth)).tables[0].notes


def test_cells_without_type_or_batch_are_not_counted_with_one_of_that_name(typed):
    """A type `not labelled` had the cells without a label, too."""
    types, batch = typed.analysis.truth.copy(), typed.analysis.batches["donor"].astype(object)
    types[:40], types[40:60] = "not labelled", ""
    batch[:30], batch[30:60] = "no batch", ""
    (table,) = batches_section(replace(typed.analysis, truth=types, batches={"donor": batch})).tables
    assert table.header[1:-1] == ["A", "B", "no batch", "no batch"]
    counts = [sorted(map(int, row[3:-1])) for row in table.body if row[0] == "not labelled"]
    assert sorted(counts) == [[0, 20], [10, 30]]


def test_flags_of_quality_are_counted_and_shown(trained, cells):
    analysis = analyze(trained.pretrained, as_citeseq(cells), resolutions=[0.5])
    quality = analysis.quality
    quality["predicted_doublet"] = np.arange(len(quality)) < 5
    cell_map = map_section(analysis).map
    assert (cell_map.categories["quality flag"] == "doublet").sum() == 5
    assert "doublet score" in [name for values in cell_map.values for name in values.table]
    flags = next(table for table in input_section(analysis).tables if table.caption == "Quality flags")
    assert flags.rows.loc["doublets", "cells"] == 5
    assert "doublets" in clusters_section(analysis).tables[0].rows
    quality["doublet_score"] = np.nan  # too few cells in each batch
    assert "doublets" not in clusters_section(analysis).tables[0].rows


def test_a_type_has_the_same_colour_as_label_and_as_prediction(typed):
    """If a type was never predicted, the types after it had other colours among the predictions."""
    first, other, *_ = sorted(typed.analysis.classes)
    labels = typed.analysis.predictions["label"].astype(str).replace({first: other})
    analysis = replace(typed.analysis, predictions=typed.analysis.predictions.assign(label=labels))
    known, predicted = (
        dict(zip(one["classes"], one["colours"]))
        for one in json.loads(map_section(analysis).map.payload)["categories"][:2]
    )
    assert first in known
    assert first not in predicted
    both = known.keys() & predicted.keys()
    assert {name: known[name] for name in both} == {name: predicted[name] for name in both}
    assert len({**known, **predicted}) == len({*known.values(), *predicted.values()})


def test_cells_of_batches_that_the_model_was_not_trained_on_are_mapped(cells, tiny, tmp_path):
    """The report had ended with a request to run map."""
    cite = deepcopy(as_citeseq(cells))
    cite.obs["donor"] = np.array(["A", "B", "new"])[np.arange(cells.n_obs) % 3]
    known, new = (cite[(cite.obs["donor"] == "new").to_numpy() == which] for which in (False, True))
    model = FusionTTT("fast", progress=False, **tiny).pretrain(known, batch_key="donor")
    analysis = write_report(model, new, tmp_path / "r.html")
    assert np.array_equal(analysis.embedding, model.map(new).embedding)
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "The model was not trained on batches of these cells (new): they were mapped, see Batches." in page
    assert "Batches" in headings(page)
    assert '"name":"p-value (mapping)"' in page
    assert analyze(model, known).mapped is None


def test_cells_of_another_study_are_mapped_to_a_model_without_batches(trained, cells, tmp_path):
    """They were named by proteins that stain differently: 79 % of a mosaic's names were right, mapped 96 %."""
    other = as_citeseq(of_another_study(cells))
    analysis = write_report(trained.finetuned, other, tmp_path / "r.html")
    mapped = trained.finetuned.map(other)
    assert np.array_equal(analysis.embedding, mapped.embedding)
    pd.testing.assert_frame_equal(analysis.predictions, mapped.cells)
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "Most cells lie far from all that the model was trained on: they were mapped, see Batches." in page
    assert analyze(trained.finetuned, as_citeseq(cells)).mapped is None


def test_cells_are_compared_with_the_training_cells_once(trained, cells, monkeypatch):
    compared, p_values = [], unlike.p_values
    monkeypatch.setattr(unlike, "p_values", lambda *given: compared.append(given) or p_values(*given))
    analysis = analyze(trained.pretrained, as_citeseq(cells), resolutions=[1])
    assert len(compared) == 1
    assert np.array_equal(analysis.embedding, trained.pretrained.embed(cells))


def test_only_cells_that_the_model_was_not_trained_on_are_scored(typed, trained):
    protocol, cells = typed.analysis.scored
    assert protocol == "held-out"
    assert cells.sum() == trained.finetuned.metrics["finetune"]["n_cells"]
    assert f"of {cells.sum():,} labelled cells that the model was not trained on." in typed.page
    assert "; clusters of these cells alone" in typed.page  # which may be fewer than those of all cells
    assert "<b>paper</b>" not in typed.page


@pytest.mark.parametrize(
    ("model", "labels", "protocol"),
    [("pretrained", "cell_type", "unsupervised"), ("zero_shot", "cell_type", "zero-shot"), ("student", None, None)],
)
def test_scores_have_the_protocol_of_the_model(model, labels, protocol, trained, cells, rna_cells, tmp_path):
    data = cells if model == "pretrained" else rna_cells
    write_report(getattr(trained, model), data, tmp_path / "r.html", labels_key=labels)
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    if protocol:
        assert f"<b>{protocol}</b>" in page
        assert ("Cell types" in headings(page)) == (model != "pretrained")
    else:
        assert "No labels were given (--labels-key), so clusters and predictions are not scored." in page


def test_unknown_classes_and_missing_proteins_are_reported(trained, rna_cells, tmp_path):
    """Labels with other names had given an accuracy of 0 % without a reason, and RNA alone had counted as proteins."""
    data = rna_cells.copy()
    types = data.obs["cell_type"].astype(str)
    data.obs["mine"] = types.where(np.arange(len(types)) > 0, "the only one {of} its kind")
    analysis = write_report(trained.zero_shot, data, tmp_path / "r.html", labels_key="mine")
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert f"The model does not know 1 of their {types.nunique() + 1} classes (the only one {{of}} its kind)." in page
    assert len(analysis.features.proteins) == 8
    assert "<dt>proteins read</dt><dd>0</dd>" in page


@pytest.fixture(scope="module")
def renamed(cells):
    """Cells whose labels have other names than the classes of the models."""
    cite = deepcopy(as_citeseq(cells))
    types = cite.obs["cell_type"].astype(str)
    cite.obs["mine"] = types.map({name: f"type, {i}" for i, name in enumerate(sorted(types.unique()))})
    return cite, dict(zip(sorted(cite.obs["mine"].unique()), sorted(types.unique())))


def test_labels_of_another_vocabulary_are_compared_but_not_scored(trained, renamed, tmp_path):
    """They had been scored 0 % in every class."""
    write_report(trained.finetuned, renamed[0], tmp_path / "r.html", labels_key="mine")
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "The labels have other names than the classes of the model" in page
    assert "accuracy" not in page[: page.index("Recorded in training")].replace("no accuracy and no calibration", "")
    assert '<th scope="row">predictions and labels</th>' in page
    proposed = re.search(r"<code>(label,class.*?)</code>", page, re.S)[1]
    assert [line.split(",")[0] for line in proposed.split("\n")[1:]] == ["&#34;type"] * len(renamed[1])


def test_the_proposed_label_map_takes_labels_with_line_breaks(trained, renamed, tmp_path):
    """Such a label was two broken lines of the map, so that --label-map refused what the report had proposed."""
    cite = replace(renamed[0], obs=renamed[0].obs.assign(mine=renamed[0].obs["mine"].str.replace(", ", "\n")))
    analysis = analyze(trained.finetuned, cite, labels_key="mine", resolutions=[0.5])
    (tmp_path / "label_map.csv").write_text(types_section(analysis).code)
    proposed = read_map(tmp_path / "label_map.csv", ("label", "class"))
    assert proposed.keys() == set(cite.obs["mine"])
    assert set(proposed.values()) <= set(trained.finetuned.classes)


def test_a_label_map_makes_them_comparable(trained, renamed, cells):
    cite, label_map = renamed
    mapped = analyze(trained.finetuned, cite, labels_key="mine", label_map=label_map)
    assert mapped.labels_match_classes
    assert mapped.truth.tolist() == cells.obs["cell_type"].astype(str).tolist()
    with pytest.raises(SettingError, match="label_map translates to Z, not a class of this model"):
        analyze(trained.finetuned, cite, labels_key="mine", label_map={**label_map, "type, 0": "Z"})
    with pytest.raises(LabelError, match="label_map translates labels that no cell has: Z"):
        analyze(trained.finetuned, cite, labels_key="mine", label_map={"Z": next(iter(label_map.values()))})
    with pytest.raises(LabelError, match="label_map leaves out all labelled cells"):  # it was an error of numpy
        analyze(trained.finetuned, cite, labels_key="mine", label_map=dict.fromkeys(label_map, ""))


def test_held_out_cells_of_one_class_do_not_prevent_the_report(trained, cells, tmp_path):
    """The report had failed at the end because the held-out cells had a single class."""
    cite = deepcopy(as_citeseq(cells))
    types = cite.obs["cell_type"].astype(str)
    learned = trained.finetuned.provenance.learned(cite.rna.obs_names)
    cite.obs["cell_type"] = types.where(learned | (types == types.iloc[0]))
    write_report(trained.finetuned, cite, tmp_path / "r.html", labels_key="cell_type")
    assert "Clusters are not scored because the cells to score them on have a single class." in (
        tmp_path / "r.html"
    ).read_text(encoding="utf-8")


def test_cells_without_coordinates_are_not_scored_on_the_map(trained, typed):
    """The report ended with "the representation of 10 of 160 cells contains NaN"."""
    coords = typed.analysis.coords.copy()
    coords[:10] = np.nan
    analysis = replace(typed.analysis, trained_on=None, coords=coords)
    assert analysis.scored[0] == "paper"
    table = scores_section(trained.finetuned, analysis).tables[0]
    assert "(150 cells, " in table.caption


def test_the_clusters_on_the_page_are_those_that_are_scored():
    """With another seed than 0, the report scored clusters that it did not show."""
    x = np.random.default_rng(0).normal(size=(120, 5))  # noise, in which every seed finds other clusters
    graph, truth = neighbours(x), np.repeat(["B", "T"], 60).astype(object)
    clusters = cluster_graph(graph.obsp["connectivities"], resolution=1.0, seed=3).labels
    shown = SimpleNamespace(
        truth=truth, scored=("unsupervised", truth != ""), embedding=x, graph=graph, clusterings={1.0: clusters}
    )
    model = SimpleNamespace(metrics={}, config=SimpleNamespace(seed=3))
    rows = scores_section(model, shown).tables[0].rows
    assert rows["ARI ↑"].iloc[0] == round(evaluate_clusters(clusters, truth).mean["ARI"], 3)
    others = cluster_graph(graph.obsp["connectivities"], resolution=1.0, seed=0).labels
    assert evaluate_clusters(others, truth).mean["ARI"] != evaluate_clusters(clusters, truth).mean["ARI"]


def test_two_held_out_cells_do_not_prevent_the_report(trained, typed):
    """It ended with "cannot cluster a representation of shape (2, 40)"."""
    truth, new = typed.analysis.truth, ~typed.analysis.trained_on
    scored = [np.flatnonzero(new & (truth == name))[0] for name in sorted(set(truth[new]))[-2:]]
    rare = np.where(~new | np.isin(np.arange(len(truth)), scored), truth, "")
    section = scores_section(trained.finetuned, replace(typed.analysis, truth=rare))
    assert "Clusters are not scored because there are fewer than three cells to score them on." in section.text


def test_columns_whose_names_are_numbers_are_shown(typed):
    """pandas numbers columns without names; the report looked for the text '0'."""
    cite = replace(typed.cite, obs=typed.cite.obs.rename(columns={"donor": 0}))
    cell_map = map_section(replace(typed.analysis, cite=cite, batches={})).map
    assert cell_map.headings["0"] == "obs column"


def test_a_column_of_none_and_one_treatment_is_shown(typed):
    obs = typed.cite.obs.assign(drug=np.where(np.arange(typed.analysis.n_cells) % 2, "none", "IFN"))
    cell_map = map_section(replace(typed.analysis, cite=replace(typed.cite, obs=obs))).map
    assert cell_map.headings["drug"] == "obs column"


def test_columns_named_as_what_the_page_computes_are_shown_beside_it(typed):
    """A column "predicted type" was left out, and one "probability" replaced that of the model."""
    obs, n = typed.cite.obs.assign(probability=np.linspace(0, 1, typed.analysis.n_cells)), typed.analysis.n_cells
    taken = ("predicted type", "quality flag", "cluster (leiden 1)")
    obs = obs.assign(**{name: np.where(np.arange(n) % 2, "mine", "yours") for name in taken})
    quality = typed.analysis.quality.assign(predicted_doublet=np.arange(n) < 5)
    batches = {"predicted type": obs["predicted type"].to_numpy()}
    analysis = replace(typed.analysis, cite=replace(typed.cite, obs=obs), quality=quality, batches=batches)
    cell_map = map_section(analysis, color=["probability"]).map
    for name in taken:
        assert set(cell_map.categories[f"{name} (obs)"]) == {"mine", "yours"}
        assert "mine" not in set(cell_map.categories[name])
    batch_names = [name for name, heading in cell_map.headings.items() if heading == "batch"]
    assert batch_names == ["predicted type (obs)"]
    values = {name: group.table[name].to_numpy() for group in cell_map.values for name in group.table}
    assert np.array_equal(values["probability"], typed.analysis.predictions["probability"])
    assert np.array_equal(values["probability (obs)"], obs["probability"])


def test_without_a_record_of_training_cells_the_protocol_is_paper(trained, cells):
    model = deepcopy(trained.finetuned)
    model._state = replace(model._state, provenance=Provenance())
    analysis = analyze(model, as_citeseq(cells), labels_key="cell_type")
    assert analysis.scored[0] == "paper"
    assert analysis.scored[1].sum() == cells.n_obs


def test_genes_that_were_not_measured_are_not_drawn_as_zeros(trained, cells, monkeypatch):
    """Cells with proteins alone, and genes that the input lacks, were drawn as if no cell expressed these genes."""
    model, types = trained.pretrained, cells.obs["cell_type"].astype(str).to_numpy()
    gone = min(set(types))
    hidden = (np.arange(cells.n_obs) % 2 == 0) | (types == gone)
    coding = [name for name in model.features.proteins["symbol"].dropna() if name in cells["rna"].var_names]
    lacking, *_, kept = coding
    with quiet():
        rna = cells["rna"][~hidden].copy()
        rna.var = pd.DataFrame(index=["novel" if name == lacking else name for name in rna.var_names])
        partial = MuData({"prot": cells["prot"].copy(), "rna": rna})
    partial.obs = cells.obs.loc[partial.obs_names]
    analysis = analyze(model, as_citeseq(partial, cells="all"), labels_key="cell_type", resolutions=[0.5])
    drawn = {}
    for name in ("dot_plot", "chromosome_heatmap"):
        monkeypatch.setattr(figures, name, lambda *tables, name=name, **_: drawn.setdefault(name, tables))

    table = map_section(analysis, genes=["novel"]).map.values[-1].table
    np.testing.assert_array_equal(table[[kept, "novel"]].isna(), hidden[:, None].repeat(2, axis=1))
    assert lacking not in table
    assert map_section(analysis, genes=[lacking]).map.values[-1].table[lacking].isna().all()

    markers_section(analysis)
    means, fractions = drawn["dot_plot"]
    assert means.loc[gone].isna().all()
    for name in means.index.drop(gone):
        shown = rna[types[~hidden] == name, means.columns].X.toarray() > 0
        np.testing.assert_allclose(fractions.loc[name], shown.mean(axis=0))

    genome_section(model, analysis)
    genes, means = drawn["chromosome_heatmap"]
    assert lacking not in set(genes["name"])
    assert means.shape == (len(set(types)) - 1, len(genes))
    places = np.flatnonzero(model.features.genes["name"].isin(genes["name"]))
    for name in means.index:
        expected = analysis.lognorm[~hidden & (types == name)][:, places].mean(axis=0)
        np.testing.assert_allclose(means.loc[name], np.ravel(expected), rtol=1e-5)


def test_a_gene_that_some_inputs_lack_is_averaged_over_the_cells_of_the_others(trained, cells, monkeypatch):
    """Where inputs were joined, it was 0 in the cells of the others, among the markers and along the genome."""
    model, cite = trained.pretrained, deepcopy(as_citeseq(cells))
    types, lacks = cells.obs["cell_type"].astype(str).to_numpy(), np.arange(cells.n_obs) % 2 == 0
    known = cite.rna[:, model.features.genes["name"]]
    gene = top_features(log_normalize(known.X), known.var_names, types)[types[0]][0]
    cite.rna.X = csr_matrix(np.where(lacks[:, None] & (cite.rna.var_names == gene), 0, cite.rna.X.toarray()))
    cite.rna.obs[INPUT] = pd.Categorical(np.where(lacks, "lacks it", "has it"))
    cite.rna.varm[MEASURED] = pd.DataFrame(
        {"has it": True, "lacks it": cite.rna.var_names != gene}, index=cite.rna.var_names
    )
    analysis = analyze(model, cite, labels_key="cell_type", resolutions=[0.5])
    drawn = {}
    for name in ("dot_plot", "chromosome_heatmap"):
        monkeypatch.setattr(figures, name, lambda *tables, name=name, **_: drawn.setdefault(name, tables))
    markers_section(analysis)
    genome_section(model, analysis)
    (means, fractions), (genes, along) = drawn["dot_plot"], drawn["chromosome_heatmap"]
    values = analysis.lognorm[:, model.features.genes["name"].tolist().index(gene)].toarray().ravel()
    for name in means.index:
        own = values[~lacks & (types == name)]
        found = (
            means.loc[name, gene],
            fractions.loc[name, gene],
            along.loc[name][(genes["name"] == gene).to_numpy()].item(),
        )
        np.testing.assert_allclose(found, [own.mean(), (own > 0).mean(), own.mean()], rtol=1e-5)


def test_genes_on_the_map_are_counts_per_10000_of_all_genes_whether_the_model_reads_them_or_not(cells, tiny):
    cite = as_citeseq(cells)
    model = FusionTTT("fast", progress=False, **tiny | {"data": {"n_genes": 100}}).build(cite)
    other = next(name for name in cite.rna.var_names if name not in set(model.features.genes["name"]))
    analysis = analyze(model, cite, coords=np.zeros((len(cite.obs), 2)))
    drawn = next(one.table for one in map_section(analysis, [other]).map.values if one.heading == "gene")
    assert other in drawn and not set(drawn).isdisjoint(model.features.genes["name"])
    expected = 1e4 * cite.rna.to_df() / cite.rna.to_df().sum(axis=1).to_numpy()[:, None]
    np.testing.assert_allclose(np.expm1(drawn), expected[drawn.columns], rtol=1e-4)


def test_epochs_are_whole_numbers_beside_a_stage_without_validation():
    """The best epoch was 2.000."""
    history = pd.DataFrame({"stage": ["pretrain", "pretrain", "finetune"], "epoch": [1, 2, 1], "seconds": 60.0})
    history["train_loss"], history["val_loss"] = 1.0, [0.75, 0.5, np.nan]
    (table,) = _training_section(SimpleNamespace(history=history, classes=["B"])).tables
    assert table.body == [["pretrain", "2", "120", "0.500", "2"], ["finetune", "1", "60", "–", "–"]]
    assert table.numeric == [False, True, True, True, True]


def test_a_stage_that_ran_again_has_its_own_row():
    """The epochs of a second fine-tuning were not counted, but its seconds were."""
    history = pd.DataFrame({"stage": "finetune", "epoch": [1, 2, 1], "seconds": 60.0, "val_loss": [0.5, 0.25, 0.125]})
    (table,) = _training_section(SimpleNamespace(history=history, classes=["B"])).tables
    assert table.body == [["finetune", "2", "120", "0.250", "2"], ["finetune 2", "1", "60", "0.125", "1"]]


def test_the_cells_to_read_are_chosen_as_in_other_calls(trained, cells, tmp_path):
    """Errors advised `layer` and `cells`, which a report did not take."""
    with pytest.raises(InputDataError, match="RNA has no layer 'raw'"):
        write_report(trained.finetuned, cells, tmp_path / "r.html", layer="raw")
    with quiet():
        fewer = MuData({"rna": cells["rna"].copy(), "prot": cells["prot"][10:].copy()})
    with pytest.raises(InputDataError, match="use cells='overlap'"):
        write_report(trained.finetuned, fewer, tmp_path / "r.html")
    analysis = write_report(trained.finetuned, fewer, tmp_path / "r.html", cells="overlap")
    assert analysis.n_cells == 150


def test_missing_labels_and_genes_are_reported(trained, cells, tmp_path):
    with pytest.raises(LabelError, match="there is no obs\\['celltype'\\]; did you mean 'cell_type'"):
        write_report(trained.finetuned, cells, tmp_path / "r.html", labels_key="celltype")
    for genes in (["CD3Z9"], "CD3Z9"):  # of a name not in a list, it was "C, D, 3, Z, 9"
        with pytest.raises(FeatureError, match=r"^CD3Z9 is not among the genes of the input and the model; see"):
            write_report(trained.finetuned, cells, tmp_path / "r.html", genes=genes)
    with pytest.raises(LabelError, match="there is no obs\\['celltype'\\]"):
        write_report(trained.finetuned, cells, tmp_path / "r.html", color="celltype")
    with pytest.raises(FeatureError, match=r"CD34 is not among .*; see scfusionttt genes"):  # it was "coded by CD34"
        write_report(trained.finetuned, cells, tmp_path / "r.html", genes=["CD34"])
    with pytest.raises(FeatureError, match=r"CD25 is not among .*; that antigen is coded by IL2RA"):
        write_report(trained.finetuned, cells, tmp_path / "r.html", genes=["CD25"])
    with pytest.raises(LabelError, match="there is no obs\\['dai'\\]"):
        write_report(trained.finetuned, cells, tmp_path / "r.html", color=["dai"])
    for shape in ((2, 2), (160, 1), (160,)):
        with pytest.raises(InputDataError, match=re.escape(f"shape {shape}; give two numbers for each of 160")):
            write_report(trained.finetuned, cells, tmp_path / "r.html", coords=np.zeros(shape))
    with pytest.raises(SettingError, match="resolutions must be positive"):
        write_report(trained.finetuned, cells, tmp_path / "r.html", resolutions=[0])
    assert not list(tmp_path.iterdir())


def test_the_report_command_writes_the_page_with_its_commands(scfusionttt, trained, cells, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with quiet():
        cells.write_h5mu("cells.h5mu")
    trained.pretrained.save("m1")
    small = "--train-fraction 0.75"
    assert scfusionttt(f"finetune cells.h5mu --model m1 --labels cell_type {small} --out m2").code == 0
    (tmp_path / "map.csv").write_text("from,to\nB,T\n")
    result = scfusionttt("report cells.h5mu --model m2 --labels cell_type --label-map map.csv --out report.html")
    assert "the first line must name the columns label and class (found: from, to)" in result.err
    result = scfusionttt("report cells.h5mu --model m2 --labels cell_type --basis X_tsne --out report.html")
    assert "there are no coordinates obsm['X_tsne']" in result.err
    result = scfusionttt("report cells.h5mu --model m2 --labels cell_type --genes CD3E,CD4 --out report.html")
    assert result.code == 0, result.err
    assert "open it in a browser" in result.err
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "scfusionttt finetune cells.h5mu --model m1" in page
    assert "scfusionttt report cells.h5mu --model m2 --labels cell_type --genes CD3E,CD4" in page
