import numpy as np
import pandas as pd

from scfusionttt.plotting.figures.track import Track


def genes(*places):
    return pd.DataFrame(places, columns=["chromosome", "start"])


def test_karyotypic_order_then_start_scaffolds_and_unplaced_last():
    table = genes(
        ("X", 5), (None, np.nan), ("10", 1), ("2", 9), ("2", 3), ("MT", 1), ("KI270711.1", 4), ("chr1", 7),
        ("Y", 1), ("", 1),
    )  # fmt: skip
    track = Track(table)
    assert [name for name, _, _ in track.bands] == ["1", "2", "10", "X", "Y", "MT", "scaffolds", "unplaced"]
    assert track.order.tolist() == [7, 4, 3, 2, 0, 8, 5, 6, 9, 1]
    assert track.bands[1] == ("2", 1, 3)
    assert track.parity.tolist() == [0, 1, 1, 0, 1, 0, 1, 0, 1, 1]


def test_features_are_located_at_or_between_genes():
    track = Track(genes(("1", 10), ("1", 20), ("2", 5), ("2", 30)))
    proteins = genes(("1", 20), ("2", 5), ("2", 17), ("7", 3), (None, None))
    assert track.locate(proteins).tolist() == [1.5, 2.5, 3.5, 3.5, 3.5]


def test_chromosome_names_of_other_kinds():
    track = Track(genes(("M", 1), (1, 5), (pd.NA, 3)))
    assert [name for name, _, _ in track.bands] == ["1", "MT", "unplaced"]
