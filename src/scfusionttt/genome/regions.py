"""Arms of the human chromosomes."""

import pandas as pd

#: Where the q arm begins, in units of 100,000 base pairs: UCSC's cytobands of GRCh38, from p11 to q11. GRCh37 differs
#: by up to 4 million, with few genes in between. The short arms of 13, 14, 15, 21 and 22 have hardly any genes.
CENTROMERES = {
    "1": 1234, "2": 939, "3": 909, "4": 500, "5": 488, "6": 598, "7": 601, "8": 452, "9": 430, "10": 398, "11": 534,
    "12": 355, "13": 177, "14": 172, "15": 190, "16": 368, "17": 251, "18": 185, "19": 262, "20": 281, "21": 120,
    "22": 150, "X": 610, "Y": 104,
}  # fmt: skip


def arms(genes: pd.DataFrame) -> pd.Series:
    """Return the arm of each gene, [g], such as ``1q``; the mitochondrial chromosome is one.

    Parameters
    ----------
    genes
        chromosome (without ``chr``) and start (base pairs), none missing; human.
    """
    chromosome = genes["chromosome"].astype(str)
    border = chromosome.map(CENTROMERES).astype("Float64") * 100_000
    arm = (genes["start"].astype("Float64") < border).map({True: "p", False: "q"})
    return chromosome + arm.fillna("").astype(str)
