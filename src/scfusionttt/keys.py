"""The names that are read from or written to a user's AnnData or MuData, each defined once."""

#: obsm: the embedding, [n_cells, n_dimensions], arbitrary units.
X_FUSIONTTT = "X_fusionttt"
#: obsm: principal components, as scanpy writes them.
X_PCA = "X_pca"
#: obsm: imputed proteins, a DataFrame of log-ratios [n_cells, n_proteins].
PROTEIN_IMPUTED = "protein_imputed"
#: obsm: their standard deviations, and the ends of their 90 % intervals.
IMPUTED_INTERVALS = ("protein_imputed_sd", "protein_imputed_low", "protein_imputed_high")
#: obsm: denoised proteins, a DataFrame [n_cells, n_proteins]; uns: the units of denoised values.
PROTEIN_DENOISED, DENOISED = "protein_denoised", "denoised"
#: obsm: whether a cell has a protein, a DataFrame of bool [n_cells, n_proteins], and the probability (0 to 1).
PROTEIN_POSITIVE, PROTEIN_PROBABILITY = "protein_positive", "protein_positive_probability"
#: obsm and uns: surprise of each token [n_cells, n_tokens], in the format in which infercnvpy writes copy numbers, and
#: the first column of each chromosome.
X_SURPRISE = "X_surprise"
SURPRISE = "surprise"
#: obs: predicted class and its probability (0 to 1).
LABEL = "fusionttt_label"
PROBABILITY = "fusionttt_probability"
#: obs: Cell Ontology id of the predicted class, empty where unknown.
ONTOLOGY = "fusionttt_ontology_id"
#: obs: fraction of a reference's own cells that are at least as far from its landmarks as this one; small: unlike them.
P_VALUE = "fusionttt_p_value"
#: obs: surprise of a cell, the mean inner loss of its tokens.
CELL_SURPRISE = "surprise"
#: uns: the protocol under which an embedding can be scored, by what its model was trained on.
PROTOCOL = "fusionttt_protocol"
#: uns: differential expression, as scanpy writes it.
RANKED = "rank_genes_groups"
#: layers: raw counts, used instead of X if present.
COUNTS = "counts"

#: Names by which the two modalities of a MuData are recognised.
RNA_MODALITIES = ("rna", "gex")
PROTEIN_MODALITIES = ("prot", "protein", "adt")

#: var: 10x's column that distinguishes genes from antibodies, and its two values.
FEATURE_TYPES = "feature_types"
GENE_EXPRESSION = "Gene Expression"
ANTIBODY_CAPTURE = "Antibody Capture"

#: A store. Attribute of the group: its format; obs: the input of a cell, and its row among the cells of all inputs;
#: var: rna or protein; varm: whether a feature was measured in each input, bool [f, inputs].
STORE, INPUT, ROW, MODALITY, MEASURED = "scfusionttt_store", "store_input", "store_row", "modality", "store_measured"

#: The label of a cell that is unlike every known class.
UNKNOWN = "unknown"
