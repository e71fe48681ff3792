"""WNN and MOFA+ with the documented defaults of their libraries, which are imported when used."""

import warnings
from contextlib import redirect_stdout
from io import StringIO
from typing import Any

import numpy as np
from anndata import AnnData
from mudata import MuData
from scipy import sparse

from scfusionttt.comparison.cells import Cells
from scfusionttt.evaluation.baselines import pca, zscore
from scfusionttt.io.quiet_warnings import quiet

#: Candidate neighbours per modality; muon's default.
_CANDIDATES = 200


def wnn(cells: Cells, seed: int) -> sparse.csr_matrix:
    """Return muon's weighted nearest neighbour graph (Hao et al. 2021) of 50 components of RNA and the proteins."""
    import muon
    import scanpy as sc

    with quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        parts = {"rna": AnnData(pca(cells.rna, seed=seed)), "prot": AnnData(zscore(cells.protein))}
        for part in parts.values():
            sc.pp.neighbors(part, use_rep="X", random_state=seed)
        mdata = MuData(parts)
        # muon writes past its arrays if asked for more neighbours than there are cells
        muon.pp.neighbors(mdata, n_multineighbors=min(_CANDIDATES, mdata.n_obs - 1), random_state=seed)
    return sparse.csr_matrix(mdata.obsp["connectivities"])


def mofa(cells: Cells, seed: int) -> np.ndarray:
    """Return the factors of MOFA+ (Argelaguet et al. 2020) [n, 10], the modalities scaled to the same variance."""
    from mofapy2.run.entry_point import entry_point

    with redirect_stdout(StringIO()):  # it prints every step
        return _mofa(entry_point(), cells, seed)


def _mofa(model: Any, cells: Cells, seed: int) -> np.ndarray:
    model.set_data_options(scale_views=True)
    model.set_data_matrix([[zscore(cells.rna)], [zscore(cells.protein)]])
    model.set_model_options(factors=10)
    model.set_train_options(seed=seed, quiet=True, verbose=False)
    model.build()
    model.run()
    return np.asarray(model.model.nodes["Z"].getExpectation())
