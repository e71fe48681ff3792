"""Every name that we read from or write to a user's AnnData or MuData, once."""

#: obsm: the fused representation, [n_cells, n_latent], arbitrary units.
X_FUSIONTTT = "X_fusionttt"
#: obsm and uns: surprise of each token [n_cells, n_tokens] as infercnvpy writes copy numbers, and chromosomes' places.
X_SURPRISE = "X_surprise"
SURPRISE = "surprise"
#: obs: predicted class and its probability (0..1).
LABEL = "fusionttt_label"
PROBABILITY = "fusionttt_probability"
#: obs: how much a cell surprised the model, mean inner loss; coloured by where it is there.
CELL_SURPRISE = "surprise"
#: layers: where raw counts are looked for before X.
COUNTS = "counts"

#: Names under which the two modalities are found in a MuData.
RNA_MODALITIES = ("rna", "gex")
PROTEIN_MODALITIES = ("prot", "protein", "adt")

#: var: 10x's column that tells genes from antibodies, and its two values.
FEATURE_TYPES = "feature_types"
GENE_EXPRESSION = "Gene Expression"
ANTIBODY_CAPTURE = "Antibody Capture"

#: A store. Attribute of the whole: its format; obs: the input that a cell comes from, and its row among the cells of
#: all inputs; var: rna or protein; varm: whether a feature was measured in each input, bool [f, inputs].
STORE, INPUT, ROW, MODALITY, MEASURED = "scfusionttt_store", "store_input", "store_row", "modality", "store_measured"

#: The label of a cell unlike any known class.
UNKNOWN = "unknown"
