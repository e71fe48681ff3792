"""Features whose inner products are a Gaussian kernel, by way of landmark cells (Nystroem)."""

import numpy as np
import torch
from torch import Tensor

from scfusionttt.nn.heads import gaussian_similarity

#: Smallest eigenvalue of the landmarks' kernel; smaller ones are rounding noise.
FLOOR = 1e-6


def draw_landmarks(n_cells: int, n_landmarks: int, seed: int) -> np.ndarray:
    """Return the rows of the landmarks among `n_cells`; some more than once if there are too few cells."""
    return np.random.default_rng(seed).choice(n_cells, n_landmarks, replace=n_cells < n_landmarks)


def kernel_features(z: np.ndarray, landmarks: Tensor, *, sharpness: float) -> tuple[np.ndarray, np.ndarray, float]:
    """Return features of cells whose inner products are the kernel, and the map to them.

    Parameters
    ----------
    z
        Cells, [n, l].
    landmarks
        Landmark cells, [m, l].
    sharpness
        The kernel falls to exp(-sharpness) at the median distance between landmarks.

    Returns
    -------
    features [n, m]; ``back`` [m, m] with ``features = similarity @ back.T``; gamma of the kernel.
    """
    landmarks = landmarks.cpu().double()  # Apple's GPUs have no float64
    squares = torch.cdist(landmarks, landmarks).square()
    apart = squares[squares > 0]
    gamma = torch.tensor(sharpness / float(apart.median()) if len(apart) else 1.0).double()
    scale, axes = torch.linalg.eigh((-gamma * squares).exp())
    back = (axes / scale.clamp(min=FLOOR).sqrt()).T
    features = gaussian_similarity(torch.from_numpy(z).double(), landmarks, gamma) @ back.T
    return features.numpy(), back.numpy(), float(gamma)
