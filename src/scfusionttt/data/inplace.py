"""The objects of a caller that results can be written into."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from anndata import AnnData
from mudata import MuData

from scfusionttt.data.cells import CiteSeq
from scfusionttt.data.proteins import protein_columns
from scfusionttt.data.store.stored import StoredCiteSeq
from scfusionttt.errors import InputDataError
from scfusionttt.keys import IMPUTED_INTERVALS, PROTEIN_IMPUTED


def inplace_target(data: AnnData | MuData | CiteSeq, cells: pd.Index, *, subset: bool = False) -> AnnData | MuData:
    """Return the caller's object if its rows are `cells` or, with `subset`, if these are among its rows.

    Raises
    ------
    InputDataError
        They are not, or nothing can be written into the object.
    """
    target = writable(data)
    own = target.obs_names.astype(str)  # which may be numbers or of pandas' string type
    if own.equals(cells) or (subset and cells.isin(own).all()):
        return target
    if isinstance(target, MuData):
        names = [part.obs_names.to_numpy(str) for part in target.mod.values()]
        if len(pd.Index(np.unique(np.concatenate(names))).symmetric_difference(own)):
            raise InputDataError("the MuData was not updated after its modalities changed; call data.update() first")
    raise _not_inplace(f"{type(target).__name__} with {target.n_obs} cells, of which {len(cells)} were used")


def writable(data: AnnData | MuData | CiteSeq) -> AnnData | MuData:
    """Return the caller's object; raise an InputDataError if nothing can be written into it."""
    if isinstance(data, StoredCiteSeq):
        raise _not_inplace("a store, which is read-only")
    if isinstance(data, CiteSeq):
        raise _not_inplace("a CiteSeq, which has counts only")
    if data.is_view and data.isbacked:
        raise _not_inplace("a view of a file on disk")
    return data


def write_tables(target: AnnData | MuData, tables: Mapping[str, pd.DataFrame]) -> None:
    """Write tables of proteins [n, p], rows in the order of the target's cells, to the slots of obsm that they name.

    ``CD66a/c/e`` becomes ``CD66a_c_e``: HDF5 and Zarr have no slashes in names, and the target is to be saved. New
    imputed proteins replace earlier ones together with their intervals.
    """
    for key in IMPUTED_INTERVALS if PROTEIN_IMPUTED in tables else ():
        target.obsm.pop(key, None)
    for key, table in tables.items():
        names = protein_columns(table.columns.str.replace("/", "_"))
        target.obsm[key] = table.set_axis(target.obs_names).set_axis(names, axis=1)


def _not_inplace(what: str) -> InputDataError:
    return InputDataError(f"cannot write results into {what}; set inplace=False and use the returned value")
