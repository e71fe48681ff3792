"""The network that each stage of training starts from."""

from copy import deepcopy
from dataclasses import replace

import torch

from scfusionttt.config import Config, Sizes
from scfusionttt.data.cohort import Cohort
from scfusionttt.data.features import Features
from scfusionttt.data.preprocess import SAMPLE_CELLS
from scfusionttt.fitting.batch_correction import n_kinds
from scfusionttt.model.state import TrainedState
from scfusionttt.nn.backbone import FusionBackbone
from scfusionttt.nn.heads import KernelHead
from scfusionttt.nn.networks import ClassifierNetwork, PretrainNetwork, TransferNetwork, carry_over

#: Landmark cells of the protein head.
PROTEIN_LANDMARKS = 1000


def pretrain_network(
    features: Features, config: Config, cohort: Cohort | None = None, *, n_cells: int = 0
) -> PretrainNetwork:
    """Return the network of stage 1 with random weights; `n_cells` are those that batch effects are estimated from."""
    has_skip = len(features.proteins) > 0 and config.network.components > 0
    sizes = Sizes(protein_landmarks=PROTEIN_LANDMARKS, placement=has_skip)
    if cohort is not None and cohort.n_levels:
        sizes = replace(
            sizes, batch_levels=cohort.n_levels, batch_kinds=n_kinds(n_cells),
            protein_batches=len(cohort.first),
        )  # fmt: skip
    elif config.network.latent:
        sizes = replace(sizes, batch_kinds=n_kinds(min(n_cells, SAMPLE_CELLS)))
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        return PretrainNetwork(len(features.genes), len(features.proteins), config.network, sizes)


def finetune_network(state: TrainedState, classes: list[str]) -> ClassifierNetwork:
    """Return the network of stage 2: the trained backbone and a new head."""
    backbone = deepcopy(state.network.backbone)
    with torch.random.fork_rng():
        torch.manual_seed(state.config.seed)
        return ClassifierNetwork(backbone, len(classes), kernel=state.config.finetune.classifier == "kernel")


def transfer_network(state: TrainedState, classes: list[str], *, keep_head: bool = False) -> TransferNetwork:
    """Return the network of stage 3: the trained backbone, and a head with the weights of the classes it shares.

    The head is of the kind that the settings name or, with `keep_head`, of the kind that `state` has.
    """
    kernel = state.config.finetune.classifier == "kernel"
    if keep_head and isinstance(state.network, ClassifierNetwork):
        kernel = isinstance(state.network.head, KernelHead)
    n_genes, n_proteins = len(state.features.genes), len(state.features.proteins)
    with torch.random.fork_rng():
        torch.manual_seed(state.config.seed)
        backbone = FusionBackbone(n_genes, n_proteins, state.config.network, state.network.backbone.sizes)
        network = TransferNetwork(backbone, len(classes), kernel=kernel)
    carry_over(state.network, state.classes, network, classes)
    return network
