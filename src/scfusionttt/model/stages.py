"""Train a stage and fit what is solved after training; part of the cells is held back for early stopping."""

import logging
from dataclasses import replace

import numpy as np
import pandas as pd
import torch

from scfusionttt.config import FinetuneConfig, PretrainConfig
from scfusionttt.data.loader import CellDataset
from scfusionttt.data.split import random_split, stratified_split
from scfusionttt.errors import SettingError
from scfusionttt.fitting.batch_correction import fit_batch_correction, fit_kinds, fit_landmarks, fit_new_batches
from scfusionttt.fitting.calibration import calibrate
from scfusionttt.fitting.kernel_head import fit_head
from scfusionttt.fitting.latent_scaling import scale_latent
from scfusionttt.fitting.pca_skip import fit_pca_skip
from scfusionttt.fitting.placement import fit_placement
from scfusionttt.fitting.protein_head import fit_protein_head
from scfusionttt.fitting.sample import read_sample
from scfusionttt.fitting.whitening import whiten
from scfusionttt.nn.networks import ClassifierNetwork, PretrainNetwork, TransferNetwork
from scfusionttt.training.classify import ClassifierModule
from scfusionttt.training.pretrain import PretrainModule
from scfusionttt.training.run import Run
from scfusionttt.training.trainer import fit

log = logging.getLogger("scfusionttt")


def train_pretraining(network: PretrainNetwork, cells: CellDataset, stage: PretrainConfig, run: Run) -> pd.DataFrame:
    """Run stage 1 on all cells with RNA except those held back for early stopping; return the training curves.

    Raises
    ------
    SettingError
        Batches are to be balanced, and there are none.
    """
    if stage.balance_batches:
        if not cells.batches.shape[1]:
            raise SettingError("pretrain.balance_batches needs batches: give batch_key, or leave the setting out")
        cells = cells.balanced()
    train, validation = cells.with_rna(), None
    if stage.validation_fraction and len(train) > 1:
        rows, others = random_split(len(train), fraction=1 - stage.validation_fraction, seed=run.seed)
        train, validation = train.subset(train.rows[rows]), train.subset(train.rows[others])
    history = fit(PretrainModule(network, stage, seed=run.seed), train, validation, stage, run, name="pretrain")
    fit_latent(network, cells, run)
    return history


def has_fits(network: PretrainNetwork) -> bool:
    """Return whether :func:`fit_latent` has anything to fit."""
    backbone = network.backbone
    is_scaled = backbone.representation.pools is not None
    return is_scaled or backbone.view is not None or bool(backbone.whitening) or backbone.correction is not None


def fit_latent(network: PretrainNetwork, cells: CellDataset, run: Run) -> None:
    """Fit latent scaling, PCA skip, batch correction and whitening, as far as the network has them.

    Cells without RNA add the effects of the batches that have no others.
    """
    backbone = network.backbone
    if not has_fits(network):
        return
    log.info("pretrain: fitting latent scaling, principal components and whitening")
    with_rna = cells.with_rna()
    sample = read_sample(network, with_rna, run.device, seed=run.seed)
    if not sample.is_finite:
        return
    if backbone.representation.pools is not None:
        sample = scale_latent(network, sample)
    if backbone.view is not None:
        fit_pca_skip(backbone.view, sample, seed=run.seed)
    if backbone.protein_head is not None:
        log.info("pretrain: fitting the imputation of proteins")
        fit_protein_head(backbone, sample, seed=run.seed)
    if backbone.placement is not None:
        fit_placement(backbone, sample)
    if backbone.correction is not None and not backbone.sizes.batch_levels:
        fit_kinds(backbone, backbone.correction, sample, seed=run.seed)
    elif backbone.correction is not None:
        log.info("pretrain: fitting the correction of batch effects")
        fit_batch_correction(network, backbone.correction, with_rna, run.device, seed=run.seed)
        levels, fitted = (np.unique(some.batches[some.rows, 0]) for some in (cells, with_rna))
        fit_new_batches(
            network, backbone.correction, cells, np.setdiff1d(levels, fitted).tolist(), run.device, seed=run.seed
        )  # fmt: skip
    if backbone.whitening:
        whiten(network, with_rna, sample, run.device, seed=run.seed)


def train_classifier(network: ClassifierNetwork, cells: CellDataset, stage: FinetuneConfig, run: Run) -> pd.DataFrame:
    """Run stage 2 or 3 on labelled cells.

    With ``classifier=finetune`` a part of each class is held back for early stopping and calibration; otherwise the
    head alone learns, from all cells.

    Parameters
    ----------
    network
        Its head has one output per class.
    cells
        Cells to learn from, every one labelled.
    stage
        Settings of the stage.

    Returns
    -------
    The training curves, one row per epoch.
    """
    codes = cells.labels[cells.rows]
    is_transfer = isinstance(network, TransferNetwork)
    name = "transfer" if is_transfer else "finetune"
    for values in (network.novelty.means, network.novelty.quantiles):
        values.fill_(torch.inf)  # without those of the model that a student comes from, unless calibrated again
    if stage.classifier != "finetune":
        hide_protein = 0.0 if is_transfer else stage.hide_protein
        log.info("%s: fitting the %s classifier to %d cells", name, stage.classifier, len(cells))
        fit_head(
            network, cells, run.device,
            hide_protein=hide_protein, class_balance=stage.class_balance, seed=run.seed,
        )  # fmt: skip
        return pd.DataFrame()
    train, validation = cells, None
    if stage.validation_fraction:
        # Another seed than that of the caller's own split, so that the two do not fall together.
        learn, held_out = stratified_split(codes, fraction=1 - stage.validation_fraction, seed=run.seed + 1)
        train, validation = cells.subset(cells.rows[learn]), cells.subset(cells.rows[held_out])
    counts = torch.from_numpy(np.bincount(train.labels[train.rows], minlength=network.head.out_features))
    module = ClassifierModule(network, stage, class_counts=counts, seed=run.seed)
    history = fit(module, train, validation, stage, run, name=name)
    if validation is not None and len(validation):
        log.info("%s: calibrating the probabilities on %d cells", name, len(validation))
        calibrate(network, train, validation, run.device)
    _fit_again(network, cells, run)
    return history


def _fit_again(network: ClassifierNetwork, cells: CellDataset, run: Run) -> None:
    """Fit anew what pretraining fitted to the bottleneck, which learning from labels has moved.

    The effects of batches stay, since the network has learned with them. A student reads RNA alone and places none.
    """
    backbone, is_student = network.backbone, isinstance(network, TransferNetwork)
    correction, placement = backbone.correction, None if is_student else backbone.placement
    if is_student and backbone.protein_encoder is None:  # only its head has learned
        return
    if correction is not None and not backbone.sizes.batch_levels:
        correction.counts.zero_()  # unless they are found again
    if placement is not None:
        placement.covariance.zero_()  # unless enough cells have proteins
    if correction is None and placement is None:
        return
    sample = read_sample(network, cells.with_rna(), run.device, seed=run.seed)
    if is_student:
        sample = replace(sample, bottleneck=sample.by_rna, proteins=np.full_like(sample.proteins, np.nan))
    if not sample.is_finite:
        return
    if placement is not None:
        fit_placement(backbone, sample)
    if correction is not None and not backbone.sizes.batch_levels:
        fit_kinds(backbone, correction, sample, seed=run.seed)
    elif correction is not None and correction.is_fitted:
        fit_landmarks(backbone, correction, sample, seed=run.seed)
