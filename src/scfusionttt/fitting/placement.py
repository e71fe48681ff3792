"""After pretraining: fit the prediction of where cells without RNA lie from their proteins."""

import numpy as np
import torch

from scfusionttt.fitting.pca_skip import PENALTIES
from scfusionttt.fitting.sample import Sample
from scfusionttt.nn.backbone import FusionBackbone

#: Fewest cells with RNA and proteins to fit to.
FEWEST_CELLS = 20


def fit_placement(backbone: FusionBackbone, sample: Sample) -> None:
    """Fit bottleneck and components to the proteins, as a ridge regression for any panel of them.

    Proteins that a cell lacks count as its RNA predicts them. Call it after the fit of the PCA skip.
    """
    from sklearn.linear_model import RidgeCV

    placement, skip = backbone.placement, backbone.view
    assert placement is not None and skip is not None
    rows = np.isfinite(sample.proteins).any(axis=1)
    if rows.sum() < FEWEST_CELLS:
        return
    bottleneck, by_rna, genes, proteins = (
        values[rows] for values in (sample.bottleneck, sample.by_rna, sample.genes, sample.proteins)
    )
    components = genes @ skip.axes.cpu().numpy()
    predicted = np.hstack([by_rna, components]) @ skip.fill.cpu().numpy() + skip.fill_bias.cpu().numpy()
    proteins = np.where(np.isfinite(proteins), proteins, predicted).astype(np.float64)
    values = np.hstack([bottleneck, components]).astype(np.float64)
    penalty = RidgeCV(PENALTIES).fit(proteins, values).alpha_ / len(values)
    center, bias = proteins.mean(axis=0), values.mean(axis=0)
    proteins, values = proteins - center, values - bias
    for parameter, result in (
        (placement.center, center),
        (placement.bias, bias),
        (placement.covariance, proteins.T @ proteins / len(values) + penalty * np.eye(len(center))),
        (placement.cross, proteins.T @ values / len(values)),
    ):
        parameter.copy_(torch.from_numpy(result))
