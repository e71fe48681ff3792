import numpy as np

from scfusionttt.masks import measured_together


def test_features_are_grouped_by_the_cells_that_measured_them():
    mask = np.array([[1, 0, 1, 0, 1], [1, 1, 1, 1, 0], [0, 0, 0, 0, 1]], dtype=bool)
    groups = list(measured_together(mask))
    assert [features.tolist() for _, features in groups] == [[0, 2], [1, 3], [4]]
    assert [cells.tolist() for cells, _ in groups] == mask[:, [0, 1, 4]].T.tolist()


def test_no_features_have_no_groups():
    assert not list(measured_together(np.ones((3, 0), dtype=bool)))
