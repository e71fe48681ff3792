import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scfusionttt.errors import FeatureError, SettingError
from scfusionttt.genome import karyotypic_rank, order_features, resolve_antibodies, resolve_genes

places = st.lists(
    st.tuples(st.sampled_from(["1", "2", "10", "X", "Y", "MT", "GL000220.1", None]), st.integers(1, 50)), max_size=30
)


def features(rows):
    table = pd.DataFrame(rows, columns=["chromosome", "start"]).astype({"chromosome": object})
    table["start"] = table["start"].where(table["chromosome"].notna()).astype("Int64")
    return table.assign(name=[f"f{i}" for i in range(len(table))], symbol="S")


def test_chromosomes_rank_by_number_and_scaffolds_after_them():
    given_order = ["MT", "GL000220.1", "X", "10", "2", None, "22", "Y", "1", "AC1.1"]
    order = np.argsort(karyotypic_rank(pd.Series(given_order, dtype=object)), kind="stable")
    assert [given_order[i] for i in order] == ["1", "2", "10", "22", "X", "Y", "MT", "AC1.1", "GL000220.1", None]


@given(places, st.integers(0, 9))
def test_every_order_is_a_permutation(rows, seed):
    table = features(rows)
    mean = np.random.default_rng(seed).random(len(table))
    options = {"expression": {"expression": mean}, "shuffled": {"seed": seed}, "chromosomes": {"seed": seed}}
    for kind in ("genome", "reverse", "shuffled", "chromosomes", "family", "expression"):
        order = order_features(table, kind, **options.get(kind, {}))
        inverse = np.argsort(order)
        assert np.array_equal(np.sort(order), np.arange(len(table)))
        assert np.array_equal(order[inverse], np.arange(len(table)))
        assert table.iloc[order].iloc[inverse].equals(table)


@given(places)
def test_genome_order_is_sorted_and_reverse_mirrors_it(rows):
    table = features(rows)
    genome, reverse = order_features(table, "genome"), order_features(table, "reverse")
    n_placed = table["chromosome"].notna().sum()
    ranks = list(zip(karyotypic_rank(table["chromosome"])[genome], table["start"].iloc[genome], strict=True))[:n_placed]
    assert ranks == sorted(ranks)
    assert np.array_equal(genome[:n_placed][::-1], reverse[:n_placed])
    unplaced = np.flatnonzero(table["chromosome"].isna())
    assert np.array_equal(genome[n_placed:], unplaced)
    assert np.array_equal(reverse[n_placed:], unplaced)


def test_protein_stands_at_its_coding_gene():
    genes = resolve_genes(["CD4", "nonsense", "CD3D", "PTPRC", "CD3G"], species="human").table
    proteins = resolve_antibodies(["CD3", "CD45RA", "IgG1_control"]).table
    both = pd.concat([genes, proteins], ignore_index=True)
    order = order_features(both, "genome")
    named = both["name"].iloc[order].tolist()
    assert named == ["PTPRC", "CD45RA", "CD3", "CD3D", "CD3G", "CD4", "nonsense", "IgG1_control"]


def test_the_seed_decides_a_shuffled_order():
    table = features([("1", i) for i in range(1, 40)])
    assert np.array_equal(order_features(table, "shuffled", seed=3), order_features(table, "shuffled", seed=3))
    assert not np.array_equal(order_features(table, "shuffled", seed=3), order_features(table, "shuffled", seed=4))


def test_chromosomes_are_kept_and_shuffled_within():
    table = features([("2", i) for i in range(20)] + [(None, 1)] + [("1", i) for i in range(20)])
    orders = [order_features(table, "chromosomes", seed=seed) for seed in (3, 3, 4)]
    assert np.array_equal(orders[0], orders[1]) and not np.array_equal(orders[0], orders[2])
    assert table["chromosome"].iloc[orders[0]].fillna("").tolist() == ["1"] * 20 + ["2"] * 20 + [""]
    assert not np.array_equal(orders[0][:20], np.arange(21, 41))


def test_families_share_the_letters_of_their_symbols():
    names = ["RPL13A", "CD3E", "RPL3", "Cd3d", "RPS2", "nameless", "RPL4"]
    table = features([("1", 1)] * 7).assign(symbol=[*names[:5], None, "RPL4"], name=names)
    order = order_features(table, "family")
    assert [names[i] for i in order] == ["Cd3d", "CD3E", "nameless", "RPL3", "RPL4", "RPL13A", "RPS2"]


def test_expression_highest_first_missing_last():
    table = features([("1", 1)] * 4)
    assert order_features(table, "expression", expression=[1.0, np.nan, 5.0, 1.0]).tolist() == [2, 0, 3, 1]


def test_list_by_name_or_symbol_others_last():
    table = features([("1", 1)] * 4).assign(symbol=["A", "B", "C", "D"])
    assert order_features(table, "list", names=["D", "f1", "unheard"]).tolist() == [3, 1, 0, 2]


@pytest.mark.parametrize(
    ("kind", "options", "error", "message"),
    [
        ("alphabet", {}, SettingError, "order must be one of genome"),
        ("expression", {}, SettingError, r"one mean for each of 2 features \(got none\)"),
        ("expression", {"expression": [1.0]}, SettingError, r"2 features \(got 1\)"),
        ("list", {}, SettingError, "needs the names"),
        ("list", {"names": ["unheard"]}, FeatureError, "none of its 1 names"),
    ],
)
def test_orders_that_cannot_be_made_are_refused(kind, options, error, message):
    with pytest.raises(error, match=message):
        order_features(features([("1", 1), ("2", 1)]), kind, **options)
