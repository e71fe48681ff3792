"""Blood cell types and the surface proteins that distinguish them, for the simulation."""

from typing import NamedTuple

#: Cell types with their lineage, from trunk to leaf; types with more common lineage are more similar.
LINEAGE: dict[str, tuple[str, ...]] = {
    "CD4 naive T": ("lymphoid", "T", "CD4 T"),
    "CD14 monocyte": ("myeloid", "monocyte"),
    "CD4 memory T": ("lymphoid", "T", "CD4 T"),
    "NK": ("lymphoid",),
    "naive B": ("lymphoid", "B"),
    "CD8 naive T": ("lymphoid", "T", "CD8 T"),
    "CD8 memory T": ("lymphoid", "T", "CD8 T"),
    "memory B": ("lymphoid", "B"),
    "CD16 monocyte": ("myeloid", "monocyte"),
    "cDC": ("myeloid", "DC"),
    "regulatory T": ("lymphoid", "T", "CD4 T"),
    "pDC": ("myeloid", "DC"),
}


class SurfaceProtein(NamedTuple):
    """An antibody's target, its coding gene (empty if mouse has none) and its level, 0..1, by lineage or type."""

    name: str
    human: str
    mouse: str
    levels: dict[str, float]

    def gene(self, species: str) -> str:
        """Return the symbol of the coding gene, or an empty string."""
        return self.human if species == "human" else self.mouse

    def level(self, cell_type: str) -> float:
        """Return the level on a cell type: that of the most specific branch of its lineage with a level, else 0."""
        path = (*LINEAGE[cell_type], cell_type)
        return next((self.levels[branch] for branch in reversed(path) if branch in self.levels), 0.0)


#: Most informative first: a panel of p proteins has the first p.
PROTEINS = tuple(
    SurfaceProtein(*row)
    for row in (
        ("CD3", "CD3E", "Cd3e", {"T": 1}),
        ("CD4", "CD4", "Cd4", {"CD4 T": 1, "monocyte": 0.25, "DC": 0.2}),
        ("CD8a", "CD8A", "Cd8a", {"CD8 T": 1, "NK": 0.2}),
        ("CD14", "CD14", "Cd14", {"CD14 monocyte": 1, "CD16 monocyte": 0.1}),
        ("CD19", "CD19", "Cd19", {"B": 1}),
        ("CD56", "NCAM1", "Ncam1", {"NK": 1, "CD8 memory T": 0.1}),
        ("CD16", "FCGR3A", "Fcgr3", {"NK": 0.8, "CD16 monocyte": 1}),
        ("CD45RA", "PTPRC", "", {"lymphoid": 0.9, "CD4 memory T": 0.1, "regulatory T": 0.2, "CD8 memory T": 0.3}),
        ("CD45RO", "PTPRC", "", {"CD4 memory T": 1, "regulatory T": 0.8, "CD8 memory T": 0.6, "monocyte": 0.4}),
        ("CD127", "IL7R", "Il7r", {"T": 0.8, "CD4 memory T": 1, "regulatory T": 0.1}),
        ("CD25", "IL2RA", "Il2ra", {"regulatory T": 1, "CD4 memory T": 0.2}),
        ("PD-1", "PDCD1", "Pdcd1", {"CD4 memory T": 0.6, "CD8 memory T": 0.7, "regulatory T": 0.3}),
        ("TIGIT", "TIGIT", "Tigit", {"regulatory T": 1, "NK": 0.6, "CD8 memory T": 0.5}),
        ("HLA-DR", "HLA-DRA", "", {"B": 0.8, "myeloid": 1, "CD14 monocyte": 0.6}),
        ("CD11c", "ITGAX", "Itgax", {"monocyte": 0.7, "cDC": 1}),
        ("CD11b", "ITGAM", "Itgam", {"monocyte": 1, "NK": 0.3, "CD16 monocyte": 0.5}),
        ("CD20", "MS4A1", "Ms4a1", {"B": 1}),
        ("CD27", "CD27", "Cd27", {"T": 0.8, "memory B": 1, "CD8 memory T": 0.3}),
        ("CD123", "IL3RA", "Il3ra", {"pDC": 1, "monocyte": 0.2}),
        ("CD28", "CD28", "Cd28", {"T": 0.8, "CD8 memory T": 0.3}),
        ("CD197", "CCR7", "Ccr7", {"CD4 naive T": 1, "CD8 naive T": 1}),
        ("CD62L", "SELL", "Sell", {"CD4 naive T": 1, "CD8 naive T": 1, "CD14 monocyte": 0.5, "naive B": 0.6}),
        ("IgD", "IGHD", "Ighd", {"naive B": 1}),
        ("CD1c", "CD1C", "", {"cDC": 1, "naive B": 0.2}),
        ("CD303", "CLEC4C", "", {"pDC": 1}),
        ("CD33", "CD33", "Cd33", {"myeloid": 0.8}),
        ("CD64", "FCGR1A", "Fcgr1", {"CD14 monocyte": 1}),
        ("CD5", "CD5", "Cd5", {"T": 1, "naive B": 0.1}),
        ("CD7", "CD7", "Cd7", {"T": 0.7, "NK": 1}),
        ("CD2", "CD2", "Cd2", {"T": 0.8, "NK": 0.7, "CD4 memory T": 1}),
        ("CD57", "B3GAT1", "B3gat1", {"NK": 0.6, "CD8 memory T": 0.5}),
        ("CD161", "KLRB1", "Klrb1c", {"NK": 1, "CD4 memory T": 0.3}),
        ("CD183", "CXCR3", "Cxcr3", {"CD8 memory T": 1, "CD4 memory T": 0.5, "pDC": 0.8}),
        ("CD278", "ICOS", "Icos", {"regulatory T": 1, "CD4 memory T": 0.8, "CD4 naive T": 0.2}),
        ("CD39", "ENTPD1", "Entpd1", {"regulatory T": 0.8, "B": 0.6, "monocyte": 1}),
        ("CD38", "CD38", "Cd38", {"NK": 0.8, "pDC": 1, "monocyte": 0.6, "naive B": 0.4}),
        ("CD21", "CR2", "Cr2", {"B": 1}),
        ("CD22", "CD22", "Cd22", {"B": 1}),
        ("CD40", "CD40", "Cd40", {"B": 1, "DC": 0.6}),
        ("CD86", "CD86", "Cd86", {"monocyte": 1, "cDC": 0.8}),
        ("CD36", "CD36", "Cd36", {"CD14 monocyte": 1, "pDC": 0.5}),
        ("CD69", "CD69", "Cd69", {"NK": 0.4, "CD8 memory T": 0.3}),
        ("CD31", "PECAM1", "Pecam1", {"myeloid": 1, "CD4 naive T": 0.5, "CD8 naive T": 0.7, "B": 0.3}),
        ("CD49d", "ITGA4", "Itga4", {"lymphoid": 0.5, "CD4 memory T": 0.8, "myeloid": 0.8}),
        ("CD29", "ITGB1", "Itgb1", {"CD4 memory T": 0.8, "CD8 memory T": 0.8, "myeloid": 1}),
        ("CD11a", "ITGAL", "Itgal", {"lymphoid": 0.5, "CD8 memory T": 1, "NK": 1, "monocyte": 0.8}),
        ("CD44", "CD44", "Cd44", {"lymphoid": 0.6, "CD4 memory T": 1, "myeloid": 1}),
        ("CD45", "PTPRC", "Ptprc", {"lymphoid": 1, "myeloid": 0.8}),
    )
)

#: Antibodies that bind nothing, so that their counts are background.
ISOTYPES = ("IgG1_control", "IgG2a_control", "IgG2b_control")
