"""Labels that can be learned, and which cells to learn them on."""

import logging
from collections.abc import Sequence
from difflib import get_close_matches

import numpy as np
import pandas as pd

from scfusionttt.config_text import is_share, require
from scfusionttt.errors import InputDataError, LabelError, SettingError, name_some
from scfusionttt.keys import UNLABELLED

log = logging.getLogger("scfusionttt")

#: More classes than this are taken for something else than labels (barcodes, measurements).
MOST_CLASSES = 200


def label_columns(obs: pd.DataFrame) -> dict[str, dict[str, int]]:
    """Return the obs columns that could be labels, each with its classes and their numbers of cells.

    They are text, categorical or boolean, with 2 to 200 classes.
    """
    found = {}
    for column in obs.columns:
        values = obs[column]
        if isinstance(values, pd.DataFrame) or (
            pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values)
        ):
            continue
        names = _names(values)
        counts = names[names != ""].value_counts()
        if 2 <= len(counts) <= MOST_CLASSES:
            found[str(column)] = {str(name): int(n) for name, n in counts.items()}
    return found


def usable_labels(obs: pd.DataFrame, key: str, *, learn: bool = True) -> tuple[np.ndarray, list[str]]:
    """Turn an obs column into class codes.

    Parameters
    ----------
    obs
        Metadata of the cells, [n, ...].
    key
        Column with the labels. Missing values and those in `keys.UNLABELLED` (any case) count as unlabelled.
    learn
        Whether the classes are to be learned, which takes two cells of each; to show or score them takes one.

    Returns
    -------
    codes, classes
        int64 [n], -1 = unlabelled, and the sorted names of the classes.

    Raises
    ------
    LabelError
        No such column or several, values instead of a column's name, a measurement instead of labels, a single class,
        or a class with one cell, where it is to be learned.
    """
    values = _column(obs, key)
    if pd.api.types.is_numeric_dtype(values) and values.nunique() > MOST_CLASSES:
        raise LabelError(
            f"obs['{key}'] looks continuous ({values.nunique()} different numbers); name a column with cell types"
        )
    names = _names(values)
    counts = names[names != ""].value_counts().sort_index()
    if len(counts) < 2:
        told = f"a single class ({counts.index[0]})" if len(counts) else "no labelled cell"
        raise LabelError(f"obs['{key}'] has {told}; at least two classes are needed")
    lonely = list(counts.index[counts == 1])
    if lonely and learn:
        raise LabelError(
            f"obs['{key}'] has classes with one cell only: {name_some(lonely)}; "
            "merge each with another class, or drop it (label its cell 'unknown')"
        )
    classes = [str(name) for name in counts.index]
    return pd.Index(classes).get_indexer(pd.Index(names)).astype(np.int64), classes


def split_by_key(obs: pd.DataFrame, key: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the positions of the cells whose obs column says ``train`` and ``test`` (any case).

    Unlabelled cells are in neither part; any other value is a LabelError.
    """
    names = _names(_column(obs, key)).str.lower()
    other = sorted(set(names) - {"train", "test", ""})
    if other:
        raise LabelError(f"obs['{key}'] must say train or test; it also has {name_some(other)}")
    parts = np.flatnonzero(names == "train"), np.flatnonzero(names == "test")
    for name, part in zip(("train", "test"), parts, strict=True):
        if not len(part):
            raise LabelError(f"obs['{key}'] has no cell that says {name}; both train and test are needed")
    return parts


def random_split(n: int, *, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Split n cells at random; returns ascending positions, `fraction` of them in the first part, none empty."""
    _check_fraction(fraction)
    if n < 2:
        raise InputDataError(f"{n} cell cannot be split into two parts; give at least two cells")
    shuffled = np.random.default_rng(seed).permutation(n)
    n_train = int(np.clip(round(fraction * n), 1, n - 1))
    return np.sort(shuffled[:n_train]), np.sort(shuffled[n_train:])


def stratified_split(labels: np.ndarray, *, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Split labelled cells so that each class has the same share in both parts.

    Parameters
    ----------
    labels
        Class of each cell, [n]; negative codes (unlabelled) are in neither part.
    fraction
        Share of the cells in the first part (train), between 0 and 1.
    seed
        Same seed, same split.

    Returns
    -------
    train, test
        Ascending positions. A class with two cells or more is in both parts, one with a single cell in train.
        The sizes are those of the fraction but for that rule.
    """
    _check_fraction(fraction)
    labels = np.asarray(labels)
    labelled = np.flatnonzero(labels >= 0) if labels.dtype.kind in "if" else np.arange(len(labels))
    if len(labelled) < 2:
        raise LabelError(f"{len(labelled)} labelled cell cannot be split into two parts; label at least two")
    codes, sizes = np.unique(labels[labelled], return_inverse=True, return_counts=True)[1:]
    share = fraction * sizes
    n_train = np.floor(share).astype(int)
    missing = round(fraction * len(labelled)) - n_train.sum()
    n_train[np.argsort(n_train - share, kind="stable")[:missing]] += 1
    n_train = np.clip(n_train, 1, np.maximum(sizes - 1, 1))

    rng = np.random.default_rng(seed)
    train = [rng.permutation(labelled[codes == code])[: n_train[code]] for code in range(len(sizes))]
    chosen = np.sort(np.concatenate(train))
    return chosen, np.setdiff1d(labelled, chosen)


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

    Classes of which `split` holds out every cell are logged: they are scored, but cannot be learned.

    Parameters
    ----------
    obs, codes
        Metadata of the cells, and their classes, [n]; negative codes (unlabelled) are in neither part.
    train_fraction
        Share of each class to train on; None or 1: every labelled cell, none held out.
    split
        Instead, the obs column that says train or test.
    classes
        Names of the codes.
    """
    if train_fraction is not None and split is not None:
        raise SettingError("give train_fraction or split, not both")
    if split is not None:
        train, held_out = (part[codes[part] >= 0] for part in split_by_key(obs, split))
        if len(np.unique(codes[train])) < 2:
            raise LabelError(
                f"the labelled cells whose obs['{split}'] says train are of fewer than two classes; add some"
            )
        _tell_unlearnable(codes, train, held_out, split, classes)
        return train, held_out
    if train_fraction is not None and train_fraction != 1:
        return stratified_split(codes, fraction=train_fraction, seed=seed)
    return np.flatnonzero(codes >= 0), np.array([], dtype=int)


def _tell_unlearnable(
    codes: np.ndarray, train: np.ndarray, held_out: np.ndarray, split: str, classes: Sequence[str]
) -> None:
    """Log the classes that are held out whole."""
    whole = np.setdiff1d(codes[held_out], codes[train])
    if len(whole):
        names = [classes[code] for code in whole]
        log.warning(
            "warning: obs['%s'] holds out every cell of some classes, which cannot be learned: %s; "
            "let some of their cells say train", split, name_some(names),
        )  # fmt: skip


def _column(obs: pd.DataFrame, key: str) -> pd.Series:
    if not pd.api.types.is_hashable(key):
        raise LabelError(
            f"the labels are named by an obs column, not given as a {type(key).__name__}; "
            "write data.obs['cell_type'] = ... and give 'cell_type'"
        )
    if key in obs.columns:
        values = obs[key]
        if isinstance(values, pd.DataFrame):
            raise LabelError(f"there are {values.shape[1]} columns obs['{key}']; rename or drop all but one")
        return values
    columns = [str(column) for column in obs.columns]
    lower = {column.lower(): column for column in columns}
    close = [lower[name] for name in get_close_matches(str(key).lower(), lower, n=1)]
    hint = f"; did you mean '{close[0]}'?" if close else ";"
    could = ", ".join(label_columns(obs)) or "none"
    raise LabelError(f"there is no obs['{key}']{hint} columns that could be labels: {could}")


def _names(values: pd.Series) -> pd.Series:
    """Return labels as text, "" where unlabelled; whole numbers without a decimal point."""
    missing = values.isna()
    if pd.api.types.is_float_dtype(values) and (values.dropna() % 1 == 0).all():
        values = values.astype("Int64")
    names = values.astype(object).where(~missing, "").astype(str).str.strip()
    return names.where(~names.str.lower().isin(UNLABELLED), "")


def _check_fraction(fraction: float) -> None:
    require(is_share(fraction), f"the train fraction must lie between 0 and 1 (it is {fraction!r})")
