"""MIDAS (He et al. 2024), with its defaults but for the epochs, of which it asks for 1,000 to 2,000."""

import lightning
import numpy as np
import pandas as pd
import scmidas
from anndata import AnnData
from exchange import SEED, proteins, read, write
from mudata import MuData


def measured(cells: AnnData) -> AnnData:
    """Return the cells of batches of which the modality was measured, with the mask that names their features."""
    counted = cells.obs["batch"][np.nansum(cells.to_df(), axis=1) > 0]
    cells = cells[cells.obs["batch"].isin(counted)].copy()
    for batch, values in cells.to_df().groupby(cells.obs["batch"]):
        if not (values.isna() == values.isna().iloc[0]).all(axis=None):
            raise ValueError(f"the cells of batch {batch} differ in what was measured, which MIDAS cannot handle")
        if values.isna().any(axis=None):
            cells.uns[f"mask_{batch}"] = values.notna().iloc[0].to_numpy(np.float32)
    cells.X = cells.to_df().fillna(0).to_numpy()
    return cells


lightning.seed_everything(SEED, verbose=False)
rna = read()
adt = proteins(rna)
if "batch" not in rna.obs:
    rna.obs["batch"] = "one"
adt.obs["batch"] = rna.obs["batch"]
mdata = MuData({"rna": measured(rna), "adt": measured(adt)})
scmidas.MIDAS.setup_mudata(mdata, batch_key="batch")
model = scmidas.MIDAS(mdata)
model.train(max_epochs=1000)
write(pd.DataFrame(model.get_latent_representation(), index=mdata.obs_names).loc[rna.obs_names])
