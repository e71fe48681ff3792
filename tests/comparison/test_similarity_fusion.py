import numpy as np
import pytest

from scfusionttt.comparison import similarity_fusion
from scfusionttt.comparison.cells import Cells
from scfusionttt.comparison.similarity_fusion import affinity, fuse, proportionality, snf
from scfusionttt.data.assemble import as_citeseq
from scfusionttt.errors import InputDataError
from scfusionttt.evaluation import evaluate_graph


def test_the_fusion_is_that_of_citefuse():
    """The numbers are from its functions in R (sigma 0.45, K 30 and 20, t 10); snfpy scales networks differently."""
    places = np.arange(60.0)
    values = places % 7 + places / 50, places % 11 - places / 70
    fused = fuse([affinity(np.abs(np.subtract.outer(one, one))) for one in values])
    expected = [0.5, 0.0143546, 0.02583503, 0.01824993, 0.0046347]
    np.testing.assert_allclose(fused[0, [0, 1, 7, 11, 30]], expected, rtol=1e-6)
    np.testing.assert_allclose(fused, fused.T)


def test_proportional_cells_have_a_rho_of_one_and_the_depth_does_not_matter():
    counts = np.array([[10, 200, 3], [100, 2000, 30], [200, 10, 3]])
    rho = proportionality(counts)
    assert rho[0, 1] == pytest.approx(1)
    assert rho[0, 2] < 0
    np.testing.assert_allclose(np.diag(rho), 1)


def test_clusters_of_the_fused_graph_are_cell_types(cells, monkeypatch):
    dataset = Cells("sim", as_citeseq(cells), "cell_type")
    graph = snf(dataset, 0)
    assert graph.shape == (160, 160) and graph.diagonal().max() == 0
    assert (graph != graph.T).nnz == 0
    assert evaluate_graph(graph, dataset.labels).mean["ARI"] > 0.3
    monkeypatch.setattr(similarity_fusion, "MOST_CELLS", 100)
    with pytest.raises(InputDataError, match=r"at most 100 \(got 160\)"):
        snf(dataset, 0)
