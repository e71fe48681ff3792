from dataclasses import replace

import numpy as np
import pytest
from scipy import sparse

from scfusionttt.comparison.cells import Cells, fingerprint
from scfusionttt.data.assemble import as_citeseq
from scfusionttt.errors import LabelError
from scfusionttt.labels import usable_labels


def test_a_class_of_one_cell_is_left_out(cells, caplog):
    """The whole data set was refused for it."""
    cite = as_citeseq(cells)
    names = cite.obs["cell_type"].astype(str).to_numpy(object)
    names[:3] = "a lonely one", "unknown", "the last one"
    with caplog.at_level("INFO", "scfusionttt"):
        left = Cells("sim", replace(cite, obs=cite.obs.assign(cell_type=names)), "cell_type")
        assert left.classes.tolist() == sorted(set(names[3:]))
    assert caplog.messages == ["sim: classes with only one cell are left out: a lonely one, the last one"]
    assert left.codes[:3].tolist() == [-1, -1, -1]
    assert (left.labels[3:] == names[3:]).all()
    # rows of our model failed, since it refuses to learn such a class
    codes, classes = usable_labels(left.with_split(np.arange(3, 60)).obs, "cell_type")
    np.testing.assert_array_equal(codes, left.codes)
    assert classes == left.classes.tolist()
    names[3:] = "the same"
    with pytest.raises(LabelError, match="only one cell"):
        _ = Cells("sim", replace(cite, obs=cite.obs.assign(cell_type=names)), "cell_type").codes


def test_the_halves_of_the_counts_add_up_and_differ_like_two_samples(dataset):
    first, second = dataset.halves(3)
    for modality in ("rna", "protein"):
        whole, one, other = (
            np.asarray(sparse.csr_array(getattr(cells.cite, modality).X).todense())
            for cells in (dataset, first, second)
        )
        np.testing.assert_array_equal(one + other, whole)
        assert (one >= 0).all() and (other >= 0).all()
        counts, halves = whole[whole > 0], one[whole > 0]
        # A half of c counts is binomial: of mean c / 2 and variance c / 4.
        assert np.mean((2 * halves - counts) ** 2 / counts) == pytest.approx(1, abs=5 * (2 / len(counts)) ** 0.5)
    assert not np.array_equal(first.cite.rna.X.data, dataset.halves(4)[0].cite.rna.X.data)


def test_changed_counts_are_other_cells(cells):
    """Rows and pretrained models of a file were reused after its columns were corrected, since only sums were read."""

    def changed(change):
        cite = as_citeseq(cells)
        change(cite.rna, cite.protein)
        return fingerprint(cite)

    def permute(rna, protein):
        rna.X = rna.X[:, np.random.default_rng(0).permutation(rna.n_vars)]

    def correct(rna, protein):  # the sum of the cell is NaN before and after
        protein.X[0, 0] = np.nan
        protein.X[0, 1] += 1

    def lack(rna, protein):
        protein.X[0, 0] = np.nan

    def store_otherwise(rna, protein):
        """Keep the same counts in columns that are not sorted, as two addends and with zeros."""
        counts = rna.X.tocoo()
        one = np.arange(counts.nnz) % 2
        data = np.concatenate([counts.data, one, -one], dtype=np.float32)
        row, column = (np.tile(places, 3)[::-1] for places in (counts.row, counts.col))
        order = np.argsort(row, kind="stable")
        indptr = np.append(0, np.cumsum(np.bincount(row, minlength=rna.n_obs)))
        rna.X = sparse.csr_matrix((data[::-1][order], column[order], indptr), shape=rna.shape)

    assert len({changed(each) for each in (lambda *_: None, permute, correct, lack)}) == 4
    assert changed(store_otherwise) == fingerprint(as_citeseq(cells))
