"""Write a tiny model in the current format, with cells and its results, to test that old models still load.

python tools/make_model_fixture.py tests/model/folders/format-6

Run this once when a format version is released; never overwrite the folder afterwards.
"""

import argparse
from pathlib import Path

import numpy as np

from scfusionttt import FusionTTT
from scfusionttt.simulation.simulate import simulate

SETTINGS = {
    "network": {"width": 8, "encoder_blocks": 1, "latent": 4, "patch": 10},
    "pretrain": {"epochs": 1},
}


def main() -> None:
    """Train and save a model, and store its results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    cells = simulate(60, 60, 4, 2, n_batches=2)
    model = FusionTTT("fast", device="cpu", progress=False, **SETTINGS).pretrain(cells, batch_key="batch")
    model.finetune(cells, labels_key="cell_type").save(folder)
    np.savez_compressed(
        folder / "cells.npz",
        genes=cells["rna"].var_names.to_numpy(str), rna=cells["rna"].X.toarray().astype(np.uint16),
        proteins=cells["prot"].var_names.to_numpy(str), protein=np.asarray(cells["prot"].X).astype(np.uint16),
        batch=cells.obs["batch"].to_numpy(str), z=model.embed(cells),
        label=model.predict(cells)["label"].to_numpy(str),
        probability=model.predict(cells)["probability"].to_numpy(),
    )  # fmt: skip


if __name__ == "__main__":
    main()
