"""CellTypist (Dominguez Conde et al. 2022), trained on the reference with feature selection, then majority voting."""

import celltypist
import pandas as pd
import scanpy as sc
from exchange import read, write

reference, query = read(), read("query")
for cells in (reference, query):
    sc.pp.normalize_total(cells, target_sum=1e4)
    sc.pp.log1p(cells)
reference = reference[(reference.obs["label"] != "").to_numpy()].copy()
model = celltypist.train(reference, labels="label", feature_selection=True, n_jobs=1)
predicted = celltypist.annotate(query, model=model, majority_voting=True).predicted_labels
write(pd.DataFrame({"label": predicted["majority_voting"].astype(str)}))
