"""Functions that make the inputs of the catalogue from valid cells."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from mudata import MuData
from scipy import sparse

from scfusionttt.io.quiet_warnings import quiet

#: Makes an input from a copy of the valid cells: changes them in place, or returns other data or the path of a file.
Make = Callable[[MuData, Path], "MuData | AnnData | Path | None"]


def refused(message: str, make: Make, **more: Any) -> dict[str, Any]:
    """Expect a refusal: one line, exit code 2."""
    return {"make": make, "refused": True, "message": message, **more}


def used(make: Make, message: str = "", **more: Any) -> dict[str, Any]:
    """Expect a correct result, and a warning if `message` is set."""
    return {"make": make, "refused": False, "message": message, **more}


def same(make: Make, message: str = "", **more: Any) -> dict[str, Any]:
    """Expect, bit for bit, the result of the valid cells."""
    return used(make, message, same=True, **more)


def write(data: MuData | AnnData, path: Path) -> Path:
    """Write as .h5mu or .h5ad."""
    with quiet():
        if isinstance(data, MuData):
            data.write_h5mu(path.with_suffix(".h5mu"))
            return path.with_suffix(".h5mu")
        data.write_h5ad(path.with_suffix(".h5ad"))
        return path.with_suffix(".h5ad")


def rna_of(data: MuData) -> AnnData:
    """Return the RNA with the labels."""
    adata = data["rna"].copy()
    adata.obs = data.obs.loc[adata.obs_names].copy()
    return adata


def matrix(change: Callable[[Any], Any], modality: str = "rna") -> Make:
    """Make by changing a matrix."""

    def make(data: MuData, folder: Path) -> None:
        data[modality].X = change(data[modality].X)

    return make


def entry(value: float, modality: str = "rna", dtype: type = np.float64) -> Make:
    """Make by setting one count of the first cell."""

    def change(x: Any) -> Any:
        x = (x.toarray() if sparse.issparse(x) else x).astype(dtype)
        x[0, 3] = value
        return sparse.csr_matrix(x) if modality == "rna" else x

    return matrix(change, modality)


def block(value: float, cells: Any = slice(None), features: Any = slice(None), modality: str = "rna") -> Make:
    """Make by setting all counts of some cells and features."""

    def change(x: Any) -> Any:
        x = x.toarray() if sparse.issparse(x) else x.copy()
        x[cells, features] = value
        return sparse.csr_matrix(x) if modality == "rna" else x

    return matrix(change, modality)


def modalities(change: Callable[[MuData], dict[str, AnnData]]) -> Make:
    """Make a new MuData of other modalities, the labels kept."""

    def make(data: MuData, folder: Path) -> MuData:
        with quiet():
            new = MuData({name: adata.copy() for name, adata in change(data).items()})
        new.obs["cell_type"] = pd.Categorical(data.obs["cell_type"].reindex(new.obs_names))
        return new

    return make


def features(change: Callable[[pd.Index], Any], modality: str = "rna", ids: bool = True) -> Make:
    """Make by renaming a modality's features; without `ids`, the column with Ensembl ids goes."""

    def make(data: MuData, folder: Path) -> MuData:
        adata = data[modality].copy()
        adata.var_names = pd.Index(change(adata.var_names))
        if not ids:
            del adata.var["gene_ids"]
        parts = {name: data[name] for name in data.mod} | {modality: adata}
        return modalities(lambda whole: parts)(data, folder)

    return make
