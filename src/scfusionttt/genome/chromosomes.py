"""Names of chromosomes and their order."""

import numpy as np
import pandas as pd

_SEX_AND_MITOCHONDRIAL = {"X": 1000, "Y": 1001, "MT": 1002}
_FIRST_CONTIG = 1003
_MAIN = {str(number) for number in range(1, 100)} | set(_SEX_AND_MITOCHONDRIAL)

#: Rank of a feature that has no chromosome.
UNPLACED = np.iinfo(np.int64).max


def plain_names(chromosomes: pd.Series) -> pd.Series:
    """Write chromosomes as Ensembl does: no ``chr``, and ``MT`` for the mitochondrial one."""
    plain = chromosomes.astype(str).str.replace(r"(?i)^chr(?=[\dXYM]|MT$)", "", regex=True)
    return plain.replace({"M": "MT", "x": "X", "y": "Y", "mt": "MT"})


def is_main(chromosomes: pd.Series) -> pd.Series:
    """Return True for assembled chromosomes (``1``, ``X``, ``MT``), False for contigs and patches."""
    return chromosomes.isin(_MAIN)


def karyotypic_rank(chromosomes: pd.Series) -> np.ndarray:
    """Rank chromosomes in karyotypic order.

    Parameters
    ----------
    chromosomes
        Chromosome names, [n]; missing for features without a position.

    Returns
    -------
    int64 array [n] to sort by: 1..22 (1..19 in mouse), X, Y, MT, then contigs by name, then `UNPLACED`.
    """
    names = pd.Index(chromosomes.dropna().unique())
    contigs = sorted(names[~is_main(names.to_series())])
    ranks = {contig: _FIRST_CONTIG + i for i, contig in enumerate(contigs)} | _SEX_AND_MITOCHONDRIAL
    ranks |= {name: int(name) for name in names if name not in ranks}
    return np.array([ranks.get(name, UNPLACED) for name in chromosomes], dtype=np.int64)
