"""MIDAS (He et al. 2024), with its defaults but for the epochs, of which it asks for 1,000 to 2,000."""

import lightning
import scmidas
from exchange import SEED, proteins, read, write
from mudata import MuData

lightning.seed_everything(SEED, verbose=False)
rna = read()
adt = proteins(rna)
if "batch" not in rna.obs:
    rna.obs["batch"] = "one"
adt.obs["batch"] = rna.obs["batch"]
mdata = MuData({"rna": rna, "adt": adt})
scmidas.MIDAS.setup_mudata(mdata, batch_key="batch")
model = scmidas.MIDAS(mdata)
model.train(max_epochs=1000)
write(model.get_latent_representation())
