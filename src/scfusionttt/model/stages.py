"""A stage from the network and the cells to the history: which cells learn, which steer early stopping."""

import numpy as np
import pandas as pd
import torch

from scfusionttt.config import FinetuneConfig, PretrainConfig, TransferConfig
from scfusionttt.data.loader import CellDataset
from scfusionttt.data.split import random_split, stratified_split
from scfusionttt.fitting.calibration import calibrate
from scfusionttt.fitting.kernel_head import fit_head
from scfusionttt.fitting.latent_scaling import scale_latent
from scfusionttt.fitting.pca_skip import fit_pca_skip
from scfusionttt.fitting.whitening import whiten
from scfusionttt.nn.networks import ClassifierNetwork, PretrainNetwork
from scfusionttt.training.finetune import FinetuneModule
from scfusionttt.training.pretrain import PretrainModule
from scfusionttt.training.trainer import Run, fit
from scfusionttt.training.transfer import TransferModule


def train_pretraining(network: PretrainNetwork, cells: CellDataset, stage: PretrainConfig, run: Run) -> pd.DataFrame:
    """Run stage 1 on all cells but those held back for early stopping; returns the training curves."""
    train, validation = cells, None
    if stage.validation_fraction and len(cells) > 1:
        rows, others = random_split(len(cells), fraction=1 - stage.validation_fraction, seed=run.seed)
        train, validation = cells.subset(cells.rows[rows]), cells.subset(cells.rows[others])
    history = fit(PretrainModule(network, stage, seed=run.seed), train, validation, stage, run, name="pretrain")
    if stage.balance and stage.bottleneck_weight and network.backbone.representation.pools is not None:
        scale_latent(network, cells, run.device)
    if network.backbone.view is not None:
        fit_pca_skip(network, network.backbone.view, cells, run.device, seed=run.seed)
    if network.backbone.whitening:
        whiten(network, cells, run.device, seed=run.seed)
    return history


def train_classifier(
    network: ClassifierNetwork, cells: CellDataset, stage: FinetuneConfig | TransferConfig, run: Run
) -> pd.DataFrame:
    """Run stage 2 or 3 on labelled cells.

    Where the stage has steps, a part of each class is held back for early stopping and calibration; where it has none,
    the head alone learns, from all cells.

    Parameters
    ----------
    network
        Its head has one output per class.
    cells
        Cells to learn from, every one labelled.
    stage
        A FinetuneConfig for stage 2, a TransferConfig for stage 3.

    Returns
    -------
    The training curves, one row per epoch.
    """
    codes = cells.labels[cells.rows]
    train, validation = cells, None
    if stage.has_steps and stage.validation_fraction:
        # Another seed than that of the caller's own split, so that the two do not fall together.
        learn, steer = stratified_split(codes, fraction=1 - stage.validation_fraction, seed=run.seed + 1)
        train, validation = cells.subset(cells.rows[learn]), cells.subset(cells.rows[steer])
    if stage.probe:
        hide_protein = stage.hide_protein if isinstance(stage, FinetuneConfig) else 0.0
        fit_head(
            network, train, run.device,
            hide_protein=hide_protein, class_balance=stage.class_balance, seed=run.seed,
        )  # fmt: skip
    if not stage.has_steps:
        return pd.DataFrame()
    counts = torch.from_numpy(np.bincount(train.labels[train.rows], minlength=network.head.out_features))
    if isinstance(stage, FinetuneConfig):
        module = FinetuneModule(network, stage, class_counts=counts, seed=run.seed)
        history = fit(module, train, validation, stage, run, name="finetune")
    else:
        student = TransferModule(network, stage, class_counts=counts, seed=run.seed)
        history = fit(student, train, validation, stage, run, name="transfer")
    if validation is not None and len(validation):
        calibrate(network, train, validation, run.device)
    return history
