"""sciPENN (Lakkis et al. 2022) with its defaults: its embedding of the cells or, of a query, the proteins."""

import random

import numpy as np
import pandas as pd
import torch
from exchange import SEED, has_query, proteins, read, write
from sciPENN.sciPENN_API import sciPENN_API

for seed in (random.seed, np.random.seed, torch.manual_seed):
    seed(SEED)
cells, query = read(), read("query") if has_query() else None
# every cell is asked for, so none may be filtered
model = sciPENN_API([cells], [proteins(cells)], query, use_gpu=False, min_cells=1, min_genes=0)
model.train(load=False)
if query is None:
    write(model.embed().X)
else:
    predicted = model.predict()
    write(pd.DataFrame(predicted.X, columns=predicted.var_names))
