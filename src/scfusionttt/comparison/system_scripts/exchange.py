"""The files that a script exchanges with scfusionttt, which is not installed in its environment."""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import io, sparse

FOLDER, SEED = Path(sys.argv[1]), int(sys.argv[2])


def read(part: str = "cells") -> AnnData:
    """Return raw counts of genes in X, and if given, of proteins in ``obsm["protein"]``; obs "label" and "batch".

    Cells that lack RNA have no counts of it, proteins that were not measured are NaN.
    """
    folder = FOLDER / part
    counts = sparse.csr_matrix(io.mmread(folder / "rna.mtx"), dtype=np.float32)
    adata = AnnData(counts, obs=pd.DataFrame(index=[f"{part}{number}" for number in range(counts.shape[0])]))
    adata.var_names = _lines(folder / "genes.txt")
    adata.var_names_make_unique()
    if (folder / "protein.csv").exists():
        adata.obsm["protein"] = pd.read_csv(folder / "protein.csv").set_index(adata.obs_names).astype(np.float32)
    for name in ("label", "batch"):
        if (folder / f"{name}.txt").exists():
            adata.obs[name] = _lines(folder / f"{name}.txt")
    return adata


def has_query() -> bool:
    """Return whether there are cells of a query besides those to learn from."""
    return (FOLDER / "query").exists()


def proteins(adata: AnnData) -> AnnData:
    """Return the proteins as cells of their own."""
    return AnnData(adata.obsm["protein"].copy())


def write(table: "pd.DataFrame | np.ndarray") -> None:
    """Write the result, a row per cell: an embedding, proteins by name, or the column ``label``."""
    pd.DataFrame(table).to_csv(FOLDER / "result.csv", index=False)


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").split("\n")[:-1]
