"""Draw the figures of real cells on the page of the plots, from a fine-tuned model and its cells.

python docs/make_gallery.py typed pbmc.h5mu --labels-key cell_type --explained CD3.csv
"""

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import pandas as pd
import scanpy as sc

from scfusionttt import FusionTTT, keys, plot
from scfusionttt.io.read import read


def main() -> None:
    """Write one figure per function, named after it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("input", type=Path)
    parser.add_argument("--labels-key", required=True, help="obs column with cell types")
    parser.add_argument("--explained", type=Path, help="table of scfusionttt explain, named after its target")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "images" / "plot")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)

    def keep(name: str, axes) -> None:
        axes.figure.savefig(given.out / f"{name}.png", dpi=110)

    model, data = FusionTTT.load(given.model), read(given.input)
    model.embed(data, inplace=True)
    model.predict(data, inplace=True)
    sc.pp.neighbors(data, use_rep=keys.X_FUSIONTTT)
    sc.tl.umap(data)
    keep("umap", plot.umap(data, [given.labels_key, keys.PROBABILITY])[0])
    keep("confusion", plot.confusion(data, given.labels_key))
    model.impute(data, inplace=True)
    rna = data["rna"] if hasattr(data, "mod") else data
    sc.pp.normalize_total(rna, target_sum=1e4)
    sc.pp.log1p(rna)
    keep("dotplot", plot.dotplot(data, ["CD3D", "CD8A", "MS4A1", "LYZ", "NKG7", "prot:CD4"], given.labels_key))
    keep("violin", plot.violin(data, ["imputed:CD3", "imputed:CD19"], given.labels_key)[0])
    keep("genome_strip", plot.genome_strip(data, data.obs_names[0]))
    keep("chromosomes", plot.chromosomes(data, given.labels_key))
    if given.explained:
        keep("contributions", plot.contributions(pd.read_csv(given.explained), title=given.explained.stem))


if __name__ == "__main__":
    main()
