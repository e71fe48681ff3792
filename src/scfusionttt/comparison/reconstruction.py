"""What a pretrained model knows of cells that it was not trained on: hidden genes and proteins, proteins from RNA."""

from dataclasses import replace

import numpy as np
import pandas as pd

from scfusionttt.data.cells import CiteSeq
from scfusionttt.evaluation import mean_correlation, r_squared
from scfusionttt.inference import HIDDEN_PARTS, read_cells, reconstructed_proteins, reconstructed_when_hidden
from scfusionttt.model.dataset import make_dataset
from scfusionttt.model.fusionttt import FusionTTT
from scfusionttt.nn.networks import PretrainNetwork
from scfusionttt.training.machine import choose_device


def reconstruction_scores(model: FusionTTT, cite: CiteSeq, *, seed: int) -> dict[str, float]:
    """Return how well a pretrained model reconstructs cells that it was not trained on.

    Every gene and protein is hidden once, together with a seventh of the others, which `seed` draws. What is drawn does
    not depend on the order of the features, unless tokens of several genes are hidden whole (objective masked with a
    patch above 1).

    Returns
    -------
    ``hidden_gene_r2`` and, with proteins, ``hidden_protein_r2`` and ``protein_from_rna_r``: see
    :data:`scfusionttt.evaluation.METRICS`. Values are scaled as the model reads them.
    """
    network, device = model.network, choose_device(model.device)
    assert isinstance(network, PretrainNetwork)
    cells = make_dataset(cite, model.features, model.preprocessing)
    parts = _parts(model, seed)
    rebuilt = reconstructed_when_hidden(network, cells, device, parts)
    rna = read_cells(network, cells, device, lambda inputs: inputs.rna.where(inputs.rna_present, np.nan))
    protein = read_cells(network, cells, device, lambda inputs: inputs.protein.where(inputs.protein_present, np.nan))
    n_genes = rna.shape[1]
    scores = {"hidden_gene_r2": r_squared(rebuilt[:, :n_genes], rna)}
    if protein.shape[1]:
        scores["hidden_protein_r2"] = r_squared(rebuilt[:, n_genes:], protein)
        by_rna = make_dataset(replace(cite, protein=None), model.features, model.preprocessing)
        scores["protein_from_rna_r"] = mean_correlation(reconstructed_proteins(network, by_rna, device), protein)
    return scores


def _parts(model: FusionTTT, seed: int) -> np.ndarray:
    """Deal the features to parts by name, so that another order hides the same ones; return their parts [g + p]."""
    patch = 1 if model.config.pretrain.objective == "bottleneck" else model.config.network.patch
    genes, proteins = (_dealt(table["name"], seed) for table in (model.features.genes, model.features.proteins))
    return np.concatenate([np.repeat(genes[::patch], patch)[: len(genes)], proteins])


def _dealt(names: pd.Series, seed: int) -> np.ndarray:
    """Return the part of each name, [f]."""
    dealt = np.random.default_rng(seed).permutation(len(names)) % HIDDEN_PARTS
    return dealt[names.rank(method="first").to_numpy(dtype=int) - 1]
