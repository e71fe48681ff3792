"""Draw the figure of the README from a file written by `scfusionttt embed`.

python docs/make_images.py fused.h5mu --labels-key cell_type
"""

import argparse
from pathlib import Path

from scfusionttt.evaluation import cluster, umap
from scfusionttt.io.read import read
from scfusionttt.keys import X_FUSIONTTT
from scfusionttt.plotting.figures import umap as draw
from scfusionttt.plotting.figures.style import new_axes

IMAGES = Path(__file__).parent / "images"


def main() -> None:
    """Draw UMAPs of the embedding, coloured by cell type and by clusters."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("input", help="file with obsm['X_fusionttt']")
    parser.add_argument("--labels-key", required=True, help="obs column with cell types")
    parser.add_argument("--out", type=Path, default=IMAGES / "pbmc10k_umap.png")
    given = parser.parse_args()
    data = read(given.input)
    z, labels = data.obsm[X_FUSIONTTT], data.obs[given.labels_key]
    axes = new_axes(11, 4.4, panels=2)
    coords = umap(z)
    draw(coords, labels, title="known cell types", ax=axes[0])
    clusters = cluster(z, labels.nunique()).labels.astype(str)
    draw(coords, clusters, title="clusters found without labels", ax=axes[1])
    axes[0].figure.savefig(given.out, dpi=110)


if __name__ == "__main__":
    main()
