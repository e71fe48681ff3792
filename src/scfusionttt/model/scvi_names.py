"""Names that users of scvi-tools try first, and what to use instead."""

_EPOCHS = "FusionTTT(pretrain={'epochs': 10}), or finetune={'epochs': 10} for the later stages"
_DEVICE = "FusionTTT(device='cuda')"
_DATA = "the first argument without a name: pretrain(data)"

METHODS = {
    "train": "pretrain(data)",
    "setup_anndata": "pretrain(data); no set-up is needed",
    "setup_mudata": "pretrain(data); no set-up is needed",
    "get_latent_representation": "embed(data)",
    "get_normalized_expression": "impute(data, transform_batch=...) for proteins",
}
ARGUMENTS = {
    "max_epochs": _EPOCHS,
    "n_epochs": _EPOCHS,
    "lr": "FusionTTT(pretrain={'lr': 1e-3})",
    "batch_size": "FusionTTT(pretrain={'batch_size': 64})",
    "n_latent": "FusionTTT(network={'latent': 64})",
    "accelerator": _DEVICE,
    "use_gpu": _DEVICE,
    "adata": _DATA,
    "mdata": _DATA,
    "rna_layer": "layer",
    "protein_layer": "layer",
    "protein_expression_obsm_key": "protein_modality",
}
