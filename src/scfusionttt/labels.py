"""Labels of cells: one text form for every dtype, and the obs columns that can serve as labels."""

from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from scfusionttt.errors import LabelError, SettingError, name_some
from scfusionttt.keys import UNKNOWN

#: Labels, in lower case, that mean "not labelled".
UNLABELLED = frozenset({"", "nan", "na", "none", UNKNOWN, "unassigned", "unlabelled", "unlabeled"})
#: A column with more distinct values than this holds barcodes or measurements rather than labels.
MAX_CLASSES = 200


def class_names(values: ArrayLike | pd.Series) -> np.ndarray:
    """Return values as text: stripped, whole numbers without a decimal point, missing values as "".

    1, 1.0 and "1" are the same class, and so are "B cell" and " B cell ", whatever the dtype.

    Parameters
    ----------
    values
        [n], of any dtype.

    Returns
    -------
    str objects, [n].
    """
    series = pd.Series(values).astype(object)
    return np.array([_text(value) if known else "" for value, known in zip(series, series.notna())], dtype=object)


def label_names(values: ArrayLike | pd.Series) -> np.ndarray:
    """Return `class_names` of labels [n], with "" for every value in `UNLABELLED` (in any case)."""
    names = class_names(values)
    return np.array(["" if name.lower() in UNLABELLED else name for name in names], dtype=object)


def is_labelled(labels: ArrayLike | pd.Series) -> np.ndarray:
    """Return which cells have a label, bool [n]."""
    return np.asarray(label_names(labels) != "", dtype=bool)


def label_columns(
    obs: pd.DataFrame, as_text: Callable[[pd.Series], np.ndarray] = label_names
) -> dict[str, dict[str, int]]:
    """Return the obs columns that could be labels, each with its classes and their numbers of cells.

    They are text, categorical or boolean, with 2 to 200 classes of those that `as_text` returns.
    """
    columns = {}
    for key in obs.columns:
        values = obs[key]
        if isinstance(values, pd.DataFrame) or (
            pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values)
        ):
            continue
        counts = _class_sizes(as_text(values))
        if 2 <= len(counts) <= MAX_CLASSES:
            columns[str(key)] = {str(name): int(n) for name, n in counts.items()}
    return columns


def usable_labels(obs: pd.DataFrame, key: str, *, learn: bool = True) -> tuple[np.ndarray, list[str]]:
    """Encode an obs column as class codes.

    Parameters
    ----------
    obs
        Metadata of the cells, [n, ...].
    key
        Column with the labels. Missing values and those in `UNLABELLED` (in any case) count as unlabelled.
    learn
        Whether the classes are to be learned, which takes two cells of each; to plot or score them takes one.

    Returns
    -------
    codes, classes
        int64 [n], -1 = unlabelled, and the sorted names of the classes.

    Raises
    ------
    LabelError
        The column does not exist, is not unique or holds measurements; it has fewer than two classes, or a class with
        a single cell where `learn` is set; or `key` is an array instead of a column name.
    """
    values = obs_column(obs, key)
    if pd.api.types.is_numeric_dtype(values) and values.nunique() > MAX_CLASSES:
        raise LabelError(
            f"obs['{key}'] looks continuous ({values.nunique()} distinct numbers); choose a column with cell types"
        )
    names = label_names(values)
    counts = _class_sizes(names).sort_index()
    if len(counts) < 2:
        content = f"a single class ({counts.index[0]})" if len(counts) else "no labelled cell"
        raise LabelError(f"obs['{key}'] has {content}; at least two classes are needed")
    single = list(counts.index[counts == 1])
    if single and learn:
        raise LabelError(
            f"obs['{key}'] has classes with only one cell: {name_some(single)}; "
            "merge each with another class, or label its cell 'unknown'"
        )
    classes = [str(name) for name in counts.index]
    return pd.Index(classes).get_indexer(pd.Index(names)).astype(np.int64), classes


def translated(labels: np.ndarray, label_map: Mapping[str, str], classes: Sequence[str]) -> np.ndarray:
    """Return labels [n] in the names of a model's classes; labels that are not in the map keep their names.

    Raises
    ------
    LabelError
        The map translates a label that no cell has, or leaves out all labels.
    SettingError
        The map translates to a name that is not a class of the model. A label is left out if its name is empty.
    """
    names = dict(zip(class_names(list(label_map)), label_names(list(label_map.values()))))
    if absent := sorted(names.keys() - set(labels)):
        present = name_some(sorted(set(labels) - {""}), 5)
        raise LabelError(f"label_map translates labels that no cell has: {name_some(absent)}; the labels are {present}")
    if foreign := sorted(set(names.values()) - {"", *classes}):
        known = f"its classes are {name_some(classes, 5)}" if classes else "it has none; run finetune first"
        raise SettingError(f"label_map translates to {name_some(foreign)}, not a class of this model; {known}")
    translation = np.array([names.get(label, label) for label in labels], dtype=object)
    if not (translation != "").any():
        raise LabelError("label_map leaves out all labelled cells; give at least one label a class")
    return translation


def obs_column(obs: pd.DataFrame, key: str, *, role: str = "labels") -> pd.Series:
    """Return one obs column; a LabelError suggests the closest name and lists the columns that could be labels.

    `role` names what the column is needed for: labels, batches or colours.
    """
    if not pd.api.types.is_hashable(key):
        name = {"labels": "cell_type"}.get(role, "donor")
        raise LabelError(
            f"{role} are chosen by the name of an obs column, not passed as a {type(key).__name__}; "
            f"set data.obs['{name}'] = ... and pass '{name}'"
        )
    if key in obs.columns:
        values = obs[key]
        if isinstance(values, pd.DataFrame):
            raise LabelError(f"there are {values.shape[1]} columns obs['{key}']; rename or drop all but one")
        return values
    by_lower = {str(column).lower(): str(column) for column in obs.columns}
    plain = str(key).lower().rpartition(":")[2]  # mdata.obs["rna:leiden"] is obs["leiden"] of the RNA
    names = [plain] if plain in by_lower else get_close_matches(str(key).lower(), by_lower, n=1)
    close = [by_lower[name] for name in names]
    hint = f"; did you mean '{close[0]}'?" if close else ";"
    candidates = ", ".join(label_columns(obs)) or "none"
    raise LabelError(f"there is no obs['{key}']{hint} columns that could be {role}: {candidates}")


def _text(value: Any) -> str:
    if isinstance(value, float | np.floating) and value.is_integer():
        value = int(value)
    return str(value).strip()


def _class_sizes(names: np.ndarray) -> pd.Series:
    return pd.Series(names[names != ""], dtype=object).value_counts()
