"""Denoised genes and proteins: the cell as reconstructed from its bottleneck."""

from typing import Literal, get_args

import numpy as np
import pandas as pd
import torch
from anndata import AnnData

from scfusionttt import inference
from scfusionttt.data.cells import CiteSeq
from scfusionttt.data.inplace import write_tables
from scfusionttt.data.proteins import protein_columns
from scfusionttt.errors import SettingError
from scfusionttt.genome.names import as_text
from scfusionttt.io.quiet_warnings import quiet
from scfusionttt.keys import DENOISED, PROTEIN_DENOISED
from scfusionttt.model.dataset import dataset_for
from scfusionttt.model.state import TrainedState
from scfusionttt.nn.networks import PretrainNetwork

#: Units of denoised values.
DenoisedUnits = Literal["log", "counts"]


def require_denoising(state: TrainedState, units: str) -> None:
    """Raise SettingError, before the cells are read, if the model cannot denoise in these units."""
    if units not in get_args(DenoisedUnits):
        raise SettingError(f"units must be log or counts (got {units!r})")
    if not isinstance(state.network, PretrainNetwork):
        raise SettingError("denoise needs a pretrained model; finetune and transfer keep no decoders")
    if state.network.rebuilds_tokens:
        raise SettingError("this model rebuilds hidden tokens alone; pretrain one with pretrain.objective=bottleneck")


def denoise(state: TrainedState, cite: CiteSeq, device: torch.device, *, units: DenoisedUnits) -> AnnData:
    """Return the result of :meth:`scfusionttt.FusionTTT.denoise`."""
    network, preprocessing = state.network, state.preprocessing
    assert isinstance(network, PretrainNetwork)
    genes, proteins = state.features.genes, state.features.proteins
    batches = state.cohort.known_codes(cite.obs)  # decoders do not read them, but staining differs by batch
    cells = dataset_for(state, cite, batches=batches)
    values = inference.reconstructed(network, cells, device)
    rna = (values[:, : len(genes)] * preprocessing.rna.std + preprocessing.rna.mean).clip(min=0)
    rna = np.expm1(rna) if units == "counts" else rna
    with quiet():
        var = genes[["symbol", "gene_id"]].apply(as_text).set_axis(genes["name"].to_list())
        result = AnnData(rna.astype(np.float32), obs=cite.obs.copy(), var=var)
    if len(proteins):
        staining = preprocessing.staining_of(batches[:, 0]) if batches.shape[1] else np.zeros(len(proteins))
        ratios = preprocessing.unscaled_proteins(values[:, len(genes) :], staining, as_counts=units == "counts")
        columns = protein_columns(proteins["name"])
        write_tables(result, {PROTEIN_DENOISED: pd.DataFrame(ratios, columns=columns)})
    result.uns[DENOISED] = {"units": units, "target_sum": float(preprocessing.target_sum)}
    return result
