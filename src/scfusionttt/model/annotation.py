"""Annotated cells: types with their Cell Ontology ids, and imputed proteins."""

from dataclasses import dataclass

import pandas as pd

from scfusionttt.keys import LABEL, ONTOLOGY, PROBABILITY
from scfusionttt.model.imputation import ImputedProteins, obsm_tables

#: Cell Ontology ids by the names of cell types, in lower case and without "cells".
CELL_ONTOLOGY = {
    "b": "CL:0000236",
    "cd14+ monocytes": "CL:0001054",
    "cd16+ monocytes": "CL:0002396",
    "cd4+ t": "CL:0000624",
    "cd8+ t": "CL:0000625",
    "dendritic": "CL:0000451",
    "monocytes": "CL:0000576",
    "nk": "CL:0000623",
    "plasma": "CL:0000786",
    "platelets": "CL:0000233",
    "t": "CL:0000084",
}


@dataclass(frozen=True, eq=False)
class Annotation:
    """What :meth:`scfusionttt.FusionTTT.annotate` found out about n cells.

    Attributes
    ----------
    cells
        DataFrame [n, ...]: label (categorical), probability (0 to 1), p_value (if cells could be labelled unknown), and
        ontology_id, empty where unknown.
    proteins
        Imputed proteins with their uncertainty; None if the model was trained without proteins.
    """

    cells: pd.DataFrame
    proteins: ImputedProteins | None

    @classmethod
    def of(cls, table: pd.DataFrame, proteins: ImputedProteins | None) -> "Annotation":
        """Make an annotation of the table that `predict` returns."""
        cells = table[[name for name in ("label", "probability", "p_value") if name in table]].copy()
        cells["ontology_id"] = pd.Categorical([ontology_id(name) for name in table["label"]])
        return cls(cells, proteins)

    def obs(self) -> pd.DataFrame:
        """Return the columns that are written to obs."""
        names = {"label": LABEL, "probability": PROBABILITY, "ontology_id": ONTOLOGY}
        return self.cells.rename(columns=names)[list(names.values())]

    def obsm(self) -> dict[str, pd.DataFrame]:
        """Return the tables that are written to obsm, by slot."""
        return {} if self.proteins is None else obsm_tables(self.proteins)


def ontology_id(name: object) -> str:
    """Return the Cell Ontology id of a cell type, empty if the table above lacks it."""
    key = str(name).strip().lower()
    return CELL_ONTOLOGY.get(key.removesuffix("cells").removesuffix("cell").strip(), "")
