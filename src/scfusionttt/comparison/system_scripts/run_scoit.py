"""SCOIT (Wang et al. 2023), with the distribution, rate and epochs of its authors' script for CITE-seq."""

import numpy as np
from exchange import SEED, proteins, read, write
from scoit import sc_multi_omics

cells = read()
counts = cells.X.toarray()
genes = np.log1p(1e4 * counts / counts.sum(axis=1, keepdims=True))
model = sc_multi_omics(random_seed=SEED)
model.fit_list_complete(
    [genes, np.log1p(proteins(cells).X)], dist="gaussian", lr=1e-3, n_epochs=5000, device="cpu", verbose=False
)
write(model.C)
