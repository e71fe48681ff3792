"""Splits of the cells into those to train on and those held out."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from scfusionttt.errors import InputDataError, LabelError, SettingError, name_some, require_fraction
from scfusionttt.labels import label_names, obs_column, usable_labels

log = logging.getLogger("scfusionttt")


@dataclass(frozen=True)
class Labels:
    """Classes of n cells, and which cells are trained on.

    Attributes
    ----------
    codes
        Class of each cell, [n]; -1: unlabelled.
    classes
        Names of the codes.
    train, held_out
        Positions of the cells to train on and of those to score.
    """

    codes: np.ndarray
    classes: list[str]
    train: np.ndarray
    held_out: np.ndarray


def split_by_key(obs: pd.DataFrame, key: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the positions of the cells whose obs column is ``train`` and of those where it is ``test`` (any case).

    Unlabelled cells are in neither part; any other value is a LabelError.
    """
    names = np.array([name.lower() for name in label_names(obs_column(obs, key))], dtype=object)
    other = sorted(set(names) - {"train", "test", ""})
    if other:
        raise LabelError(f"obs['{key}'] must be 'train' or 'test' in every cell; it also has {name_some(other)}")
    parts = np.flatnonzero(names == "train"), np.flatnonzero(names == "test")
    for name, part in zip(("train", "test"), parts, strict=True):
        if not len(part):
            raise LabelError(f"obs['{key}'] is '{name}' in no cell; both 'train' and 'test' are needed")
    return parts


def random_split(n: int, *, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Split n cells at random into two non-empty parts; return ascending positions, `fraction` of them in the first."""
    require_fraction("train_fraction", fraction, example=0.75)
    if n < 2:
        raise InputDataError(f"cannot split {n} cell into two parts; at least two cells are needed")
    shuffled = np.random.default_rng(seed).permutation(n)
    n_train = int(np.clip(round(fraction * n), 1, n - 1))
    return np.sort(shuffled[:n_train]), np.sort(shuffled[n_train:])


def stratified_split(labels: np.ndarray, *, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Split labelled cells so that each class has the same proportion in both parts.

    Parameters
    ----------
    labels
        Class of each cell, [n]; negative codes (unlabelled) are in neither part.
    fraction
        Fraction of the cells in the first part (train), between 0 and 1.
    seed
        Seed of the random number generator.

    Returns
    -------
    train, test
        Ascending positions. A class with at least two cells is in both parts, a class with one cell in train; apart
        from that, the parts have the sizes that the fraction asks for.
    """
    require_fraction("train_fraction", fraction, example=0.75)
    labels = np.asarray(labels)
    labelled = np.flatnonzero(labels >= 0) if labels.dtype.kind in "if" else np.arange(len(labels))
    if len(labelled) < 2:
        raise LabelError(f"cannot split {len(labelled)} labelled cell into two parts; label at least two cells")
    codes, sizes = np.unique(labels[labelled], return_inverse=True, return_counts=True)[1:]
    exact = fraction * sizes
    n_train = np.floor(exact).astype(int)
    missing = round(fraction * len(labelled)) - n_train.sum()
    n_train[np.argsort(n_train - exact, kind="stable")[:missing]] += 1
    n_train = np.clip(n_train, 1, np.maximum(sizes - 1, 1))

    rng = np.random.default_rng(seed)
    train = [rng.permutation(labelled[codes == code])[: n_train[code]] for code in range(len(sizes))]
    chosen = np.sort(np.concatenate(train))
    return chosen, np.setdiff1d(labelled, chosen)


def split_labels(obs: pd.DataFrame, key: str, *, train_fraction: float | None, split: str | None, seed: int) -> Labels:
    """Read the labels of an obs column, and split the labelled cells into those to train on and those to score."""
    codes, classes = usable_labels(obs, key)
    if n_unlabelled := int((codes < 0).sum()):
        log.info("obs['%s']: %d of %d cells are unlabelled and left out", key, n_unlabelled, len(codes))
    train, held_out = train_and_held_out(
        obs, codes, train_fraction=train_fraction, split=split, seed=seed, classes=classes
    )
    return Labels(codes, classes, train, held_out)


def train_and_held_out(
    obs: pd.DataFrame,
    codes: np.ndarray,
    *,
    train_fraction: float | None,
    split: str | None,
    seed: int,
    classes: Sequence[str],
) -> tuple[np.ndarray, np.ndarray]:
    """Return the positions of the labelled cells to train on and of those held out.

    A warning is logged for classes that `split` holds out completely: they are scored but cannot be learned.

    Parameters
    ----------
    obs, codes
        Metadata of the cells, and their classes, [n]; negative codes (unlabelled) are in neither part.
    train_fraction
        Fraction of each class to train on; None or 1 trains on every labelled cell.
    split
        obs column with ``train`` or ``test``, instead of a random split.
    classes
        Names of the codes.
    """
    if train_fraction is not None and split is not None:
        raise SettingError("give train_fraction or split, not both")
    if split is not None:
        train, held_out = (part[codes[part] >= 0] for part in split_by_key(obs, split))
        if len(np.unique(codes[train])) < 2:
            raise LabelError(
                f"the labelled cells with obs['{split}'] == 'train' have fewer than two classes; add cells of another"
            )
        _warn_of_unlearnable(codes, train, held_out, split, classes)
        return train, held_out
    if train_fraction is not None and train_fraction != 1:
        return stratified_split(codes, fraction=train_fraction, seed=seed)
    return np.flatnonzero(codes >= 0), np.array([], dtype=int)


def _warn_of_unlearnable(
    codes: np.ndarray, train: np.ndarray, held_out: np.ndarray, split: str, classes: Sequence[str]
) -> None:
    """Log a warning with the classes that have no training cell."""
    whole = np.setdiff1d(codes[held_out], codes[train])
    if len(whole):
        names = [classes[code] for code in whole]
        log.warning(
            "warning: obs['%s'] holds out every cell of these classes, which cannot be learned: %s; "
            "assign some of their cells to 'train'", split, name_some(names),
        )  # fmt: skip
