"""Symphony (Kang et al. 2021) by symphonypy: the query is mapped to the reference's components, neighbours vote."""

import pandas as pd
import scanpy as sc
import symphonypy as sp
from exchange import SEED, read, write

reference, query = read(), read("query")
for cells in (reference, query):
    sc.pp.normalize_total(cells, target_sum=1e4)
    sc.pp.log1p(cells)
reference = reference[(reference.obs["label"] != "").to_numpy()].copy()
sc.pp.highly_variable_genes(reference, n_top_genes=min(2000, reference.n_vars))
reference.raw = reference
reference = reference[:, reference.var["highly_variable"]].copy()
sc.pp.scale(reference, max_value=10)
sc.pp.pca(reference, n_comps=30, zero_center=False, random_state=SEED)
if "batch" not in reference.obs:
    reference.obs["batch"] = "one"
sp.pp.harmony_integrate(reference, key="batch", random_seed=SEED)
sp.tl.map_embedding(query, reference)
sp.tl.transfer_labels_kNN(query, reference, "label")
write(pd.DataFrame({"label": query.obs["label"].astype(str)}))
