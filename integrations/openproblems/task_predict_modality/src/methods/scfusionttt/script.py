"""Proteins of cells whose RNA alone is given, in the normalisation of the training proteins."""

import anndata as ad
import mudata
import numpy as np

import scfusionttt

## VIASH START
par = {
    "input_train_mod1": "train_mod1.h5ad",
    "input_train_mod2": "train_mod2.h5ad",
    "input_test_mod1": "test_mod1.h5ad",
    "output": "output.h5ad",
    "preset": "default",
}
meta = {"name": "scfusionttt"}
## VIASH END

rna, prot, test = (ad.read_h5ad(par[f"input_{name}"]) for name in ("train_mod1", "train_mod2", "test_mod1"))
if rna.n_vars < prot.n_vars:
    raise SystemExit("scfusionttt predicts proteins from RNA, not the reverse")

model = scfusionttt.FusionTTT(par["preset"]).pretrain(mudata.MuData({"rna": rna, "prot": prot}))
# The model's unit is log-ratios of counts; a line for each protein leads to that of the task.
seen, predicted = (model.impute(cells).reindex(columns=prot.var_names) for cells in (rna, test))
target = np.asarray(prot.layers["normalized"].todense() if hasattr(prot.layers["normalized"], "todense")
                    else prot.layers["normalized"], dtype=float)  # fmt: skip
mean = target.mean(axis=0)
centred = seen.to_numpy() - seen.to_numpy().mean(axis=0)
slope = (centred * (target - mean)).sum(axis=0) / np.maximum((centred**2).sum(axis=0), 1e-12)
values = mean + slope * (predicted.to_numpy() - seen.to_numpy().mean(axis=0))
# Proteins that the model leaves out, such as isotype controls, get their mean.
values = np.where(np.isnan(values), mean, values)

ad.AnnData(
    layers={"normalized": values},
    obs=test.obs,
    var=prot.var,
    uns={"dataset_id": rna.uns["dataset_id"], "method_id": meta["name"]},
).write_h5ad(par["output"], compression="gzip")
