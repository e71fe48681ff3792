"""Labels of every kind."""

import numpy as np
import pandas as pd
from making import refused, used


def _labels(values, *, key="label"):
    def make(data, folder):
        column = values(data.obs["cell_type"].astype(str).to_numpy(), len(data.obs))
        data.obs[key] = column.set_axis(data.obs_names) if isinstance(column, pd.Series) else column

    return make


def _case(verdict, key="label"):
    return verdict | {"labels": key}


def _first(name, n=1):
    return lambda types, size: np.array([*[name] * n, *types[n:]], dtype=object)


def _whole(value):
    return lambda types, size: [value] * size


def _unused(types, size):
    return pd.Series(pd.Categorical(types, categories=["no cell has it", *np.unique(types)[::-1]], ordered=False))


def _usual(types, size):
    return types


CASES = {
    "no such key": _case(refused("no obs['cell_typ']", lambda data, folder: None), "cell_typ"),
    "numbers": _case(used(_labels(lambda types, size: np.arange(size) % 3))),
    "whole numbers as floats, some missing": _case(
        used(_labels(lambda types, size: np.where(np.arange(size) % 10, np.arange(size) % 3, np.nan)))
    ),
    "true and false": _case(used(_labels(lambda types, size: np.arange(size) % 2 == 0))),
    "a measurement": _case(
        refused("only one cell: 0", _labels(lambda types, size: np.linspace(0, 1, size)), verbs={"evaluate": ""})
    ),
    "some missing": _case(
        used(_labels(lambda types, size: pd.Series(types, dtype=object).where(np.arange(size) % 4 > 0)))
    ),
    "some unknown, in any case": _case(used(_labels(_first("Unknown", 20)))),
    "all missing": _case(refused("no labelled cell", _labels(_whole(np.nan)))),
    "all unknown": _case(refused("no labelled cell", _labels(_whole("unknown")))),
    "a single class": _case(refused("a single class (T)", _labels(_whole("T")))),
    "a class of one cell": _case(refused("only one cell: lonely", _labels(_first("lonely")), verbs={"evaluate": ""})),
    "every cell a class": _case(
        refused("only one cell", _labels(lambda types, size: [f"c{i}" for i in range(size)]), verbs={"evaluate": ""})
    ),
    "unordered and unused categories": _case(used(_labels(_unused))),
    "ordered categories": _case(used(_labels(lambda types, size: pd.Series(pd.Categorical(types, ordered=True))))),
    "spaces around the names": _case(used(_labels(lambda types, size: [f" {name} " for name in types]))),
    "classes with slashes, quotes, commas and tags": _case(
        used(_labels(lambda types, size: [f'{name}/"x",<b>\n' for name in types]))
    ),
    "classes in other alphabets": _case(used(_labels(lambda types, size: [f"Zelle α {name} 細胞" for name in types]))),
    "classes called label and probability": _case(
        used(_labels(lambda types, size: np.where(np.arange(size) % 2, "label", "probability")))
    ),
    "a key with spaces": _case(used(_labels(_usual, key="cell type (fine)")), "cell type (fine)"),
    "a key in another alphabet": _case(used(_labels(_usual, key="Zelltyp_ä細胞")), "Zelltyp_ä細胞"),
    "a key with a modality's prefix, which is left away": _case(
        refused("did you mean 'label'?", _labels(_usual, key="rna:label"), verbs={"evaluate": ""}), "rna:label"
    ),
}
