"""Count known gene-protein pairs among the top 50 by contribution, by correlation and by totalVI.

A pair is known if the gene encodes the protein or is a marker of the cells that carry it. Each protein is predicted
with its own value hidden. Pairs of all proteins are ranked together: by share, by the correlation (over the same cells)
of the log-normalised gene with the log-ratio of the protein, and by totalVI's feature correlation (`--totalvi`: trained
with its defaults on all cells and the same genes, evaluated on the same cells). `by chance` is the expectation for a
random order.

python benchmarks/attribution.py pbmc10k.h5mu --json attribution.json
"""

import sys

if not __package__:
    sys.path[0] += "/.."  # run as a file: `operator` must not shadow the standard library's

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.measure import print_table, write_json
from scfusionttt.comparison.scvi_baselines import trained_totalvi
from scfusionttt.data.assemble import as_citeseq
from scfusionttt.data.cells import CiteSeq
from scfusionttt.data.features import match_features
from scfusionttt.io.read import read
from scfusionttt.model.fusionttt import FusionTTT

#: Markers by the gene that encodes the protein, which itself is known, too.
MARKERS = {
    "CD3E": "CD3D CD3G CD247 TRAC TRBC1 TRBC2 TRAT1 IL32 BCL11B CD2 LCK",
    "CD4": "IL7R MAL TRAC LTB TSHZ2",
    "CD8A": "CD8B GZMK GZMA GZMH CCL5 CST7 NKG7 LINC02446",
    "CD14": "LYZ S100A8 S100A9 S100A12 VCAN FCN1 CST3 MNDA CSTA CD36",
    "ITGAX": "LYZ FCN1 CST3 LST1 AIF1 MNDA SERPINA1 CSTA",
    "CD19": "CD79A CD79B MS4A1 BANK1 TCL1A IGHM IGHD IGKC LINC00926 VPREB3 HLA-DQA1",
    "MS4A1": "CD79A CD79B CD19 BANK1 TCL1A IGHM IGHD IGKC LINC00926 VPREB3",
    "NCAM1": "GNLY NKG7 KLRF1 KLRD1 KLRC1 PRF1 SPON2 GZMB FGFBP2 CLIC3 IL2RB TRDC",
    "FCGR3A": "GNLY NKG7 KLRF1 PRF1 SPON2 FGFBP2 CDKN1C MS4A7 RHOC LST1",
    "PTPRC": "CCR7 SELL LEF1 TCF7 S100A4 ANXA1",
    "IL7R": "CCR7 LTB LEF1 TCF7 MAL TRAC LDHB",
    "IL2RA": "FOXP3 CTLA4 TIGIT RTKN2 IKZF2",
    "PDCD1": "TIGIT CTLA4 GZMK",
    "TIGIT": "CTLA4 FOXP3 GZMK RTKN2",
    "FUT4": "S100A8 S100A9 S100A12 VCAN CSF3R",
}


def main() -> None:
    """Train, rank, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("input", help="human CITE-seq of blood")
    parser.add_argument("--model", help="pretrained model folder (default: train a new model)")
    parser.add_argument("--preset", default="default")
    parser.add_argument("--cells", type=int, default=500, help="cells to explain")
    parser.add_argument("--first", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--totalvi", action="store_true", help="also totalVI (scvi-tools)")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    cite = as_citeseq(read(given.input))
    if given.model:
        model = FusionTTT.load(given.model, progress=False)
    else:
        model = FusionTTT(given.preset, seed=given.seed, progress=False).pretrain(cite)
    rows = np.sort(np.random.default_rng(given.seed).permutation(cite.rna.n_obs)[: given.cells])
    ranked = pairs(model, cite[rows])
    if given.totalvi:
        ranked["totalVI"] = totalvi(cite, rows, ranked, given.seed)
    known = ranked["known"].to_numpy()
    row: dict[str, float] = {"pairs": len(ranked), "known": int(known.sum()), "by chance": known.mean()}
    scores = ranked.columns.intersection(["share", "correlation", "totalVI"])
    row |= {name: known[np.argsort(-ranked[name], kind="stable")[: given.first]].mean() for name in scores}
    table = pd.DataFrame([row], index=[Path(given.input).stem])
    print_table(table, f"precision of the top {given.first} gene-protein pairs")
    best = ranked.sort_values("share", ascending=False).head(given.first)
    print_table(best.set_index("protein"), "the top pairs by share")
    write_json(given.json, precision=table, first=best)


def pairs(model: FusionTTT, cells: CiteSeq) -> pd.DataFrame:
    """Return every pair of a protein and a gene: their names, share, correlation, and whether it is known."""
    match = match_features(cells, model.features)
    rna = model.preprocessing.log_normalized(cells, match).toarray()
    protein = model.preprocessing.log_ratios(cells, match)
    tables = []
    for number, (name, coding) in enumerate(zip(model.features.proteins["name"], model.features.proteins["symbol"])):
        explained = model.explain(cells, name, n_cells=cells.rna.n_obs, masked=0, permutations=1, level=1.0)
        explained = explained[explained["modality"] == "rna"].set_index("name")
        genes = model.features.genes
        marks = {coding, *MARKERS.get(str(coding), "").split()}
        table = pd.DataFrame({"protein": name, "gene": genes["name"].to_numpy()})
        table["share"] = explained.attrs["explained"] * explained["share"].reindex(genes["name"]).to_numpy()
        table["correlation"] = _correlation(rna, protein[:, number])
        table["known"] = genes["symbol"].isin(marks).to_numpy()
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def totalvi(cite: CiteSeq, rows: np.ndarray, pairs: pd.DataFrame, seed: int) -> np.ndarray:
    """Return totalVI's correlation of the gene and protein of each pair over some cells, after training on all."""
    assert cite.protein is not None
    cells = cite.rna[:, pairs["gene"].unique()].copy()
    cells.obsm["protein"] = cite.protein.to_df()[pairs["protein"].unique()]
    matrix = trained_totalvi(cells, seed).get_feature_correlation_matrix(indices=rows)
    matrix = matrix.iloc[: cells.n_vars, cells.n_vars :]
    gene, protein = (
        matrix.index.get_indexer_for(pairs["gene"]),
        matrix.columns.get_indexer_for(pairs["protein"]),
    )
    return np.nan_to_num(matrix.to_numpy()[gene, protein])


def _correlation(rna: np.ndarray, protein: np.ndarray) -> np.ndarray:
    centered, target = rna - rna.mean(axis=0), protein - protein.mean()
    return target @ centered / np.maximum(np.linalg.norm(centered, axis=0) * np.linalg.norm(target), 1e-9)


if __name__ == "__main__":
    main()
