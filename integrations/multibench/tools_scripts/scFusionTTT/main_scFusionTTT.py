"""Embedding of paired RNA and proteins for scMultiBench (multibench-sc), in the way of its `tools_scripts`."""

import argparse
from pathlib import Path

import anndata
import h5py
import mudata
import numpy as np
from scipy.sparse import csr_matrix

import scfusionttt


def read(path: str) -> anndata.AnnData:
    """Read counts in the benchmark's format: ``matrix/data`` is [features, cells]."""
    with h5py.File(path) as file:
        counts = csr_matrix(file["matrix/data"][:].T.astype(np.float32))
        names = {part: file[f"matrix/{part}"].asstr()[:] for part in ("barcodes", "features")}
    cells = anndata.AnnData(counts)
    cells.obs_names, cells.var_names = names["barcodes"], names["features"]
    return cells


def read_batches(paths: list[str]) -> anndata.AnnData:
    """Read the files of one modality, a batch each, one after the other."""
    batches = {str(number): read(path) for number, path in enumerate(paths)}
    cells = anndata.concat(batches, label="batch", join="inner")
    if not cells.obs_names.is_unique:
        cells.obs_names = cells.obs_names + "-" + cells.obs["batch"].astype(str)
    return cells


def main() -> None:
    """Pretrain on all cells and write ``embedding.h5`` with ``data`` [cells, dimensions]."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--path1", nargs="+", required=True, help="RNA, one file per batch")
    parser.add_argument("--path2", nargs="+", required=True, help="proteins, one file per batch")
    parser.add_argument("--save_path", type=Path, required=True)
    parser.add_argument("--preset", default="default")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()

    data = mudata.MuData({"rna": read_batches(args.path1), "prot": read_batches(args.path2)})
    data.obs["batch"] = data["rna"].obs["batch"]
    batch_key = "batch" if len(args.path1) > 1 else None
    model = scfusionttt.FusionTTT(args.preset, seed=args.seed).pretrain(data, batch_key=batch_key)
    args.save_path.mkdir(parents=True, exist_ok=True)
    with h5py.File(args.save_path / "embedding.h5", "w") as file:
        file["data"] = model.embed(data)


if __name__ == "__main__":
    main()
