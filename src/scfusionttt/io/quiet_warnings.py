"""Third-party warnings that are irrelevant to users of this package."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

_KNOWN = (
    (FutureWarning, r"From 0\.4 \.update\(\) will not pull"),  # obs columns are joined in data.assemble, not by MuData
    (UserWarning, r"Cannot join columns with the same name"),
    (UserWarning, r"(Observation names|Variable names|obs_names|var_names) (is|are) not unique"),  # validate reports it
    (UserWarning, r"Suffix used .* to deduplicate index values"),  # a third antibody is named CD3-1
    (UserWarning, r"Duplicated var_names should not be present in different modalities"),  # CD4: gene and antibody
    (UserWarning, r"The HDF5 file was not created by muon/mudata"),
    (DeprecationWarning, r"The default value for `spmatrix` is changing"),
    (DeprecationWarning, r"This setting will be removed in 0\.14"),
    (UserWarning, r"Writing zarr v2 data will no longer be the default"),
    (UserWarning, r"zarr v3 autosharding will be the default"),
    (UserWarning, r"Consolidated metadata is currently not part in the Zarr format 3"),
)


@contextmanager
def quiet() -> Iterator[None]:
    """Ignore the known warnings of anndata, mudata, scanpy, scipy and zarr inside the block."""
    with warnings.catch_warnings():
        for category, message in _KNOWN:
            warnings.filterwarnings("ignore", message=message, category=category)
        yield
