import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from scfusionttt.config import DataConfig
from scfusionttt.data.assemble import as_citeseq
from scfusionttt.data.cells import CiteSeq
from scfusionttt.data.features import choose_features, match_features
from scfusionttt.data.transforms import highly_variable
from scfusionttt.errors import FeatureError, InputFileError
from scfusionttt.genome import karyotypic_rank
from scfusionttt.io.quiet_warnings import quiet
from scfusionttt.simulation.simulate import simulate

KARYOTYPE = [*map(str, range(1, 23)), "X"]


@pytest.fixture(scope="module")
def cite():
    """Cells whose genes and proteins stand in no order."""
    cite = as_citeseq(simulate(120, 300, 8, 3, n_isotypes=2))
    rng = np.random.default_rng(0)
    return permuted(cite, rng.permutation(300), rng.permutation(10))


@pytest.fixture(scope="module")
def features(cite):
    return choose_features(cite, DataConfig())[0]


def permuted(cite, genes, proteins):
    return CiteSeq(cite.rna[:, genes].copy(), cite.protein[:, proteins].copy(), cite.obs)


def renamed(cite, *, genes=None, gene_ids=None, proteins=None):
    """Return the same cells under other names."""
    var = pd.DataFrame(index=list(cite.rna.var_names if genes is None else genes))
    if gene_ids is not None:
        var["gene_ids"] = list(gene_ids)
    panel = pd.DataFrame(index=list(cite.protein.var_names if proteins is None else proteins))
    with quiet():
        rna, protein = (
            AnnData(cite.rna.X.copy(), cite.rna.obs, var),
            AnnData(cite.protein.X.copy(), cite.rna.obs, panel),
        )
    return CiteSeq(rna, protein, cite.obs)


def in_genome_order(table):
    rank = karyotypic_rank(table["chromosome"])
    place = list(zip(rank, table["start"], strict=True))
    return place == sorted(place)


def test_genes_and_proteins_each_stand_in_genome_order(features):
    assert in_genome_order(features.genes)
    assert in_genome_order(features.proteins)
    assert features.genes["chromosome"].nunique() > 5
    assert (len(features.genes), len(features.proteins), features.species) == (300, 8, "human")
    assert list(features.table["modality"]) == ["rna"] * 300 + ["protein"] * 8


@pytest.mark.parametrize(
    ("order", "holds"),
    [
        ("reverse", lambda names, genome, mean: names == genome[::-1]),
        ("shuffled", lambda names, genome, mean: names != genome and sorted(names) == sorted(genome)),
        ("expression", lambda names, genome, mean: (np.diff(mean[names]) <= 0).all() and names != genome),
    ],
)
def test_other_orders_hold_for_both_modalities(cite, features, order, holds):
    found, _ = choose_features(cite, DataConfig(order=order))
    for part, genome, counts in (
        (found.genes, features.genes, cite.rna),
        (found.proteins, features.proteins, cite.protein),
    ):
        mean = pd.Series(np.asarray(counts.X.sum(axis=0)).ravel(), index=counts.var_names)
        assert holds(part["name"].tolist(), genome["name"].tolist(), mean)


def test_a_shuffled_order_depends_on_its_seed_alone(cite):
    orders = [choose_features(cite, DataConfig(order="shuffled", order_seed=seed))[0].table for seed in (1, 1, 2)]
    assert orders[0].equals(orders[1])
    assert not orders[0].equals(orders[2])


def test_a_protein_measured_in_no_cell_is_ordered_by_expression_without_a_warning(cite):
    unmeasured = renamed(cite)
    unmeasured.protein.X[:, 0] = np.nan
    found, _ = choose_features(unmeasured, DataConfig(order="expression", keep_isotypes=True))
    assert found.proteins["name"].iloc[-1] == cite.protein.var_names[0]


def test_a_listed_order_is_that_of_the_file_and_names_may_have_spaces(cite, features, tmp_path):
    """Names were cut at every blank: `HLA DR` was two unknown features."""
    spaced = renamed(cite, proteins=cite.protein.var_names.str.replace("CD", "CD "))
    genes = features.genes["name"].tolist()[::-1][:5]
    path = tmp_path / "order.txt"
    path.write_text("\n".join(["CD 19", *genes, "", "  CD 3  ", "unheard of"]) + "\n", encoding="utf-8")
    found, notes = choose_features(spaced, DataConfig(order="list", order_file=str(path)))
    assert found.proteins["name"].tolist()[:2] == ["CD 19", "CD 3"]
    assert found.genes["name"].tolist()[:5] == genes
    assert len(found.table) == 308
    assert any(note.startswith("order: 7 of 308 features as in") for note in notes)


def test_the_byte_order_mark_of_windows_is_no_part_of_the_first_name(cite, features, tmp_path):
    """The first gene of the list came after all others."""
    genes = features.genes["name"].tolist()[::-1][:3]
    path = tmp_path / "order.txt"
    path.write_text("\r\n".join(genes), encoding="utf-8-sig")
    found, _ = choose_features(cite, DataConfig(order="list", order_file=str(path)))
    assert found.genes["name"].tolist()[:3] == genes


def test_a_list_of_genes_alone_leaves_the_proteins_in_genome_order(cite, features, tmp_path):
    """It was refused, for naming no protein."""
    coding = set(features.proteins["symbol"])
    genes = [name for name in features.genes["name"] if name not in coding][::-1]
    path = tmp_path / "order.txt"
    path.write_text("\n".join(genes), encoding="utf-8")
    found, _ = choose_features(cite, DataConfig(order="list", order_file=str(path)))
    assert found.genes["name"].tolist()[: len(genes)] == genes
    assert found.proteins["name"].tolist() == features.proteins["name"].tolist()


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        (None, InputFileError, "cannot be read"),
        (b"\xff\xfe\x00", InputFileError, "is not a text file"),
        (b"", FeatureError, "none of its names"),
        (b"A1\nB2\n", FeatureError, "none of its names is in the input"),
    ],
)
def test_a_list_that_cannot_be_used_is_refused_by_its_name(cite, tmp_path, content, error, message):
    path = tmp_path / "order.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(error, match=f"order.txt: {message}"):
        choose_features(cite, DataConfig(order="list", order_file=str(path)))


def test_a_listed_order_needs_a_file(cite):
    with pytest.raises(FeatureError, match=r"needs data\.order_file"):
        choose_features(cite, DataConfig(order="list"))


def test_controls_and_hashtags_are_left_out_and_the_user_is_told(cite):
    names = [f"Hashtag {i}" if i < 2 else name for i, name in enumerate(cite.protein.var_names)]
    controls = [name for name in names if name.startswith("IgG")]
    tagged = renamed(cite, proteins=names)
    found, notes = choose_features(tagged, DataConfig())
    assert set(found.proteins["name"]) == set(names) - {*controls, "Hashtag 0", "Hashtag 1"}
    assert f"proteins: {len(controls)} isotypes left out: {', '.join(controls)}" in notes
    assert "proteins: 2 hashtags left out: Hashtag 0, Hashtag 1" in notes
    kept, notes = choose_features(tagged, DataConfig(keep_isotypes=True))
    assert set(kept.proteins["name"]) == set(names) - {"Hashtag 0", "Hashtag 1"}
    assert kept.proteins["name"].tolist()[-len(controls) :] == controls  # unplaced: the last block, as given
    assert not any("isotype" in note for note in notes)


def test_a_panel_of_controls_alone_leaves_a_model_without_proteins(cite):
    found, notes = choose_features(renamed(cite, proteins=[f"Hashtag {i}" for i in range(10)]), DataConfig())
    assert len(found.proteins) == 0
    assert "proteins: 0 of 0 placed at their coding gene" in notes


def test_only_the_most_variable_genes_become_features(cite, features):
    found, notes = choose_features(cite, DataConfig(n_genes=40))
    assert set(found.genes["name"]) == set(cite.rna.var_names[highly_variable(cite.rna.X, n_top=40)])
    assert in_genome_order(found.genes)
    assert len(found.proteins) == 8
    assert "genes: using the 40 most variable of 300" in notes
    everything, _ = choose_features(cite, DataConfig(n_genes=None))
    assert everything.table.equals(features.table)


def test_rna_alone_gives_a_model_of_genes(cite, features):
    found, _ = choose_features(CiteSeq(cite.rna, None, cite.obs), DataConfig())
    assert len(found.proteins) == 0
    assert found.genes.equals(features.genes)
    match = match_features(CiteSeq(cite.rna, None, cite.obs), features)
    assert (match.proteins == -1).all()


def test_the_gene_and_the_antibody_of_one_name_are_two_features(cite, features):
    rows = features.table[features.table["name"] == "CD4"]
    assert rows["modality"].tolist() == ["rna", "protein"]
    assert rows["gene_id"].nunique() == 1
    match = match_features(cite, features)
    gene, protein = (part["name"].tolist().index("CD4") for part in (features.genes, features.proteins))
    assert cite.rna.var_names[match.genes[gene]] == cite.protein.var_names[match.proteins[protein]] == "CD4"


def test_features_are_found_in_columns_of_any_order(cite, features):
    rng = np.random.default_rng(1)
    other = permuted(cite, rng.permutation(300), rng.permutation(10))
    match = match_features(other, features)
    assert other.rna.var_names[match.genes].tolist() == features.genes["name"].tolist()
    assert other.protein.var_names[match.proteins].tolist() == features.proteins["name"].tolist()


def as_versioned_ids(cite):
    return {"genes": cite.rna.var["gene_ids"] + ".7"}


def as_ids_beside_other_names(cite):
    return {"genes": [f"locus{i}" for i in range(300)], "gene_ids": cite.rna.var["gene_ids"]}


def as_prefixed_lower_case(cite):
    return {"genes": "GRCh38_" + cite.rna.var_names.str.lower()}


def as_made_unique(cite):
    return {"genes": cite.rna.var_names + "-1"}


@pytest.mark.parametrize("names", [as_versioned_ids, as_ids_beside_other_names, as_prefixed_lower_case, as_made_unique])
def test_genes_are_found_under_what_their_names_resolve_to(cite, features, names):
    there = match_features(renamed(cite, **names(cite)), features).genes
    assert np.array_equal(there, match_features(cite, features).genes)


def test_genes_are_found_by_previous_symbols(cite, features):
    """MINDY1 was FAM63A once; the model knows today's name."""
    old = {"MINDY1": "FAM63A", "PRUNE1": "PRUNE"}
    assert set(old) <= set(cite.rna.var_names)
    there = match_features(
        renamed(cite, genes=cite.rna.var_names.map(lambda name: old.get(name, name))), features
    ).genes
    assert np.array_equal(there, match_features(cite, features).genes)


def test_missing_genes_are_minus_one_and_half_of_them_is_the_limit(cite, features):
    some = CiteSeq(cite.rna[:, :150].copy(), cite.protein, cite.obs)
    match = match_features(some, features)
    lacking = ~features.genes["name"].isin(cite.rna.var_names[:150]).to_numpy()
    assert np.array_equal(match.genes < 0, lacking)
    assert "genes: 150 of the model's 300 matched; the others count as not measured" in match.notes
    too_few = CiteSeq(cite.rna[:, :149].copy(), cite.protein, cite.obs)
    with pytest.raises(FeatureError, match="only 149 of the model's 300 genes are in the input") as error:
        match_features(too_few, features)
    assert "\n" not in str(error.value)


def test_genes_that_only_the_input_has_are_no_matter(cite, features):
    more = renamed(cite, genes=[f"X{i}" if i < 30 else name for i, name in enumerate(cite.rna.var_names)])
    assert (match_features(more, features).genes >= 0).sum() == 270


@pytest.mark.parametrize("with_ids", [True, False])
def test_the_other_species_is_refused_in_one_line(cite, with_ids):
    """In any case, most symbols of man and mouse are the same: human cells passed for mouse cells."""
    human = cite if with_ids else renamed(cite)
    mouse = renamed(cite, genes=cite.rna.var_names.str.capitalize())
    features, _ = choose_features(mouse, DataConfig())
    assert features.species == "mouse"
    with pytest.raises(
        FeatureError, match=r"the input's genes are human .* the model is for mouse; use mouse data"
    ) as error:
        match_features(human, features)
    assert "\n" not in str(error.value)


def test_repeated_names_are_told_apart_by_their_ids(cite):
    """Both found the first column: its counts were in the model twice, the other's never."""
    names = ["MATR3", "MATR3", *cite.rna.var_names[2:]]
    ids = ["ENSG00000280987", "ENSG00000015479", *cite.rna.var["gene_ids"].iloc[2:]]
    twice = renamed(cite, genes=names, gene_ids=ids)
    features, _ = choose_features(twice, DataConfig())
    match = match_features(twice, features)
    assert sorted(match.genes) == list(range(300))
    for column in (0, 1):
        assert features.genes["gene_id"].iloc[match.genes.tolist().index(column)] == ids[column]


def test_no_column_is_used_twice(cite):
    """Names made unique resolve to the gene of the plain name."""
    names = ["MATR3", "MATR3-1", *cite.rna.var_names[2:]]
    features, _ = choose_features(renamed(cite, genes=names), DataConfig())
    same = match_features(renamed(cite, genes=["MATR3", "MATR3.1", *cite.rna.var_names[2:]]), features)
    assert sorted(same.genes) == list(range(300))
    single = match_features(renamed(cite, genes=["MATR3", "none", *cite.rna.var_names[2:]]), features)
    assert sorted(single.genes) == [-1, 0, *range(2, 300)]


def test_proteins_are_found_under_what_vendors_make_of_their_names(cite, features):
    style = ["{}_TotalSeqB", "anti-human {}", "adt_{}", "Hu.{}"]
    names = [style[i % 4].format(name) for i, name in enumerate(cite.protein.var_names)]
    there = match_features(renamed(cite, proteins=names), features).proteins
    assert np.array_equal(there, match_features(cite, features).proteins)


def test_the_user_learns_which_proteins_are_known_by_another_name_and_which_are_not_measured(cite, features):
    names = [{"CD56": "NCAM", "CD19": "unheard of"}.get(name, name) for name in cite.protein.var_names]
    note = match_features(renamed(cite, proteins=names), features).notes[1]
    n = len(features.proteins)
    assert note == (f"proteins: {n - 1} of the model's {n} matched (CD56 as NCAM); not measured: CD19")


def test_isoforms_of_one_gene_are_never_taken_for_each_other(cite, features):
    names = cite.protein.var_names.str.replace("CD45RA", "CD45RO_TotalSeqB")
    there = match_features(renamed(cite, proteins=names), features).proteins
    expected = match_features(cite, features).proteins
    lacking = (features.proteins["name"] == "CD45RA").to_numpy()
    assert np.array_equal(there, np.where(lacking, -1, expected))


MACAQUE = [f"ENSMMUG{i:011d}" for i in range(300)]


def test_an_unsupported_species_is_refused_unless_asked_for(cite, features):
    """Macaque genes with human symbols and no known id were trained on as human, none of them placed."""
    macaque = renamed(cite, gene_ids=MACAQUE)
    with pytest.raises(FeatureError, match=r"Macaca mulatta \(ENSMMUG\), not human or mouse; .* choose species"):
        choose_features(macaque, DataConfig())
    with pytest.raises(FeatureError, match=r"Macaca mulatta \(ENSMMUG\), the model is for human; .* remove"):
        match_features(macaque, features)
    own, _ = choose_features(macaque, DataConfig(), species="human")
    assert own.genes["chromosome"].notna().all()
    assert (match_features(macaque, own).genes >= 0).all()
    assert (match_features(renamed(cite), features).genes >= 0).all()


def test_the_species_that_was_chosen_is_doubted_if_the_genes_look_like_the_other(cite):
    """--species mouse trained on human cells: 3294 of 4000 names match if their case is ignored."""
    human = renamed(cite)
    notes = choose_features(human, DataConfig(), species="mouse")[1]
    assert any(note.startswith("warning: the genes look human (") and "species='mouse'" in note for note in notes)
    for species in ("human", None):
        assert not any("look" in note for note in choose_features(human, DataConfig(), species=species)[1])


def test_genes_without_a_place_are_refused(cite):
    unknown = renamed(cite, genes=[f"gene-{i}" for i in range(290)] + list(cite.rna.var_names[:10]))
    with pytest.raises(FeatureError, match=r"only \d+ of 300 genes have a place in the human genome \(gene-0"):
        choose_features(unknown, DataConfig(), species="human")


def test_rows_of_counting_tools_are_left_out(cite):
    """'unmapped' of CITE-seq-Count became a protein of the model."""
    panel = renamed(cite, proteins=["unmapped", "total_reads", *cite.protein.var_names[2:]])
    chosen, notes = choose_features(panel, DataConfig())
    assert not chosen.proteins["name"].isin(["unmapped", "total_reads"]).any()
    assert "proteins: 2 bookkeeping rows left out: unmapped, total_reads" in notes
