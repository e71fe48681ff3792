import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb

from scfusionttt.plotting.figures.style import (
    MISSING,
    PALETTE,
    class_colours,
    encode_labels,
    natural_key,
    shorten,
    shorten_all,
    without_overlap,
)

# Machado, Oliveira and Fernandes 2009, severity 1, on linear RGB.
VISIONS = {
    "normal": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
}
TO_LMS = [[0.4122214708, 0.5363325363, 0.0514459929], [0.2119034982, 0.6806995451, 0.1073969566]]
TO_LMS += [[0.0883024619, 0.2817188376, 0.6299787005]]
TO_LAB = [[0.2104542553, 0.793617785, -0.0040720468], [1.9779984951, -2.428592205, 0.4505937099]]
TO_LAB += [[0.0259040371, 0.7827717662, -0.808675766]]


def oklab(colours, vision="normal"):
    rgb = np.array([to_rgb(colour) for colour in colours])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    seen = np.clip(linear @ np.transpose(VISIONS[vision]), 0, 1)
    return np.cbrt(seen @ np.transpose(TO_LMS)) @ np.transpose(TO_LAB)


def nearest_pair(colours, vision):
    lab = oklab(colours, vision)
    apart = np.linalg.norm(lab[:, None] - lab[None], axis=2)
    return apart[np.triu_indices(len(lab), 1)].min()


@pytest.mark.parametrize("n, normal, deficient", [(8, 0.15, 0.075), (20, 0.10, 0.042), (36, 0.085, 0.038)])
def test_colours_are_distinct_under_every_vision(n, normal, deficient):
    for vision in VISIONS:
        assert nearest_pair(PALETTE[:n], vision) > (normal if vision == "normal" else deficient), vision


def test_no_class_has_the_colour_of_missing_values_or_background():
    lab = oklab(PALETTE)
    for other in (MISSING, "white"):
        assert np.linalg.norm(lab - oklab([other]), axis=1).min() > 0.06


def test_given_class_colours_are_used():
    assert class_colours(["a", "b"], {"b": "#000000"}) == {"a": PALETTE[0], "b": "#000000"}
    assert len(class_colours([str(i) for i in range(100)])) == 100


def test_numbers_in_names_are_sorted_by_value():
    assert sorted(["10", "2", "B 10", "B 9", "a", ""], key=natural_key) == ["", "2", "10", "a", "B 9", "B 10"]


def test_names_that_differ_in_case_alone_have_one_order():
    """It was that of a set, so that the colours of such classes changed from run to run."""
    names = ["Nk", "NK", "nk", "1", "01"]
    assert sorted(names, key=natural_key) == sorted(names[::-1], key=natural_key) == ["01", "1", "NK", "Nk", "nk"]


def test_labels_keep_category_order_without_unlabelled_values():
    labels = pd.Categorical(["T", "B", None, "unknown", "T"], categories=["T", "never", "unknown", "B"])
    codes, classes = encode_labels(labels)
    assert classes == ["T", "B"]
    assert codes.tolist() == [0, 1, -1, -1, 0]
    alphabetical = encode_labels(pd.Categorical(["10", "2", "1"]))
    assert alphabetical[1] == ["1", "2", "10"]
    codes, classes = encode_labels(np.array(["b", "nan", "a"]))
    assert (classes, codes.tolist()) == (["a", "b"], [1, -1, 0])
    codes, classes = encode_labels([10, 2, 2])
    assert (classes, codes.tolist()) == (["2", "10"], [1, 0, 0])


def test_long_and_odd_names_are_shortened():
    assert shorten("x" * 40, 10) == "x" * 9 + "…"
    assert shorten("two\nlines") == "two lines"
    assert shorten("bad\udce9byte") == "bad?byte"


def test_long_names_that_begin_alike_stay_apart():
    """Types of the Cell Ontology were one and the same name in legends and on the map of the report."""
    memory = "effector memory CD8-positive, alpha-beta T cell"
    final = f"{memory}, terminally differentiated"
    assert shorten_all(["B cell", memory, "x" * 40]) == ["B cell", "effector memory CD8-positiv…", "x" * 27 + "…"]
    assert shorten_all([memory, final], 20) == ["effector m…ta T cell", "effector m…rentiated"]
    middles = ["begins alike, differs here (1), ends alike", "begins alike, differs here (2), ends alike"]
    assert shorten_all(middles, 20) == middles


def test_names_of_neighbours_do_not_overlap_and_stay_at_their_genes():
    """The name of the last of several neighbours had been written 40 million base pairs to the right of its gene."""
    centers, widths = np.array([10.0, 11, 12, 40, 90, 91]), np.array([4.0, 6, 4, 4, 4, 4])
    at = without_overlap(centers, widths)
    assert (np.diff(at) >= (widths[1:] + widths[:-1]) / 2 - 1e-9).all()
    np.testing.assert_allclose(at, [6, 11, 16, 40, 88.5, 92.5])
    np.testing.assert_allclose(without_overlap(centers, widths, (4, 92)), [6, 11, 16, 40, 86, 90])
    assert without_overlap(np.empty(0), np.empty(0)).size == 0
