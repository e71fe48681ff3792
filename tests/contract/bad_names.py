"""Shapes, names and orders: few cells, doubled names, other species, cells that differ between the modalities."""

import numpy as np
import pandas as pd
from anndata import AnnData
from making import features, modalities, refused, rna_of, same, used
from mudata import MuData
from scipy import sparse

from scfusionttt.io.quiet_warnings import quiet
from scfusionttt.simulation.simulate import simulate

TOO_FEW_GENES = "of the model's 300 genes are in the input"
NO_NAMES = "the genes are neither human nor mouse"
#: Every verb that reads with a trained model.
BY_MODEL = ("finetune", "transfer", "embed", "predict")


def _cut(cells=slice(None), genes=slice(None), proteins=slice(None)):
    def make(data, folder):
        return modalities(lambda data: {"rna": data["rna"][cells, genes], "prot": data["prot"][cells, proteins]})(
            data, folder
        )

    return make


def _named(*names, modality=None):
    """Make by giving the first cells other names, in both modalities or in one."""

    def make(data, folder):
        def renamed(adata):
            adata = adata.copy()
            with quiet():
                adata.obs_names = [*names, *adata.obs_names[len(names) :]]
            return adata

        parts = {n: renamed(data[n]) if modality in (None, n) else data[n] for n in data.mod}
        if len(set(names)) < len(names):  # MuData itself cannot hold them
            adata = renamed(rna_of(data))
            adata.obsm["protein"] = pd.DataFrame(data["prot"].X, adata.obs_names, data["prot"].var_names)
            return adata
        with quiet():
            new = MuData(parts)
        new.obs["cell_type"] = [*data.obs["cell_type"], *["unknown"] * (new.n_obs - data.n_obs)]
        return new

    return make


def _numbered(data, folder):
    adata = rna_of(data)
    adata.obs_names = np.arange(adata.n_obs).astype(str)
    return adata


def _order(data, folder):
    backwards = np.arange(data.n_obs)[::-1]
    parts = {"rna": data["rna"], "prot": data["prot"][backwards]}
    return modalities(lambda data: parts)(data, folder)


def _overlap(rna, protein):
    return modalities(lambda data: {"rna": data["rna"][rna], "prot": data["prot"][protein]})


def _suffix(data, folder):
    protein = data["prot"].copy()
    protein.obs_names = protein.obs_names + "-1"
    return modalities(lambda data: {"rna": data["rna"], "prot": protein})(data, folder)


def _barnyard(data, folder):
    mouse = simulate(160, 120, 4, 3, species="mouse")["rna"]
    human = rna_of(data)
    both = AnnData(
        sparse.hstack([human.X, mouse.X], format="csr"), obs=human.obs,
        var=pd.DataFrame(index=[*("GRCh38_" + human.var_names), *("mm10_" + mouse.var_names)]),
    )  # fmt: skip
    return both


def _mouse(data, folder):
    return simulate(160, 300, 8, 3, species="mouse")


def _antibodies(data):
    adata = data["prot"].copy()
    adata.obs["cell_type"] = data.obs["cell_type"].to_numpy()
    return adata


def _in_obsm(key):
    def make(data, folder):
        adata = rna_of(data)
        adata.obsm[key] = data["prot"].to_df()
        return adata

    return make


def _other_ids(prefix):
    def make(data, folder):
        adata = data["rna"].copy()
        adata.var["gene_ids"] = [f"{prefix}{i:011d}" for i in range(adata.n_vars)]
        return modalities(lambda data: {"rna": adata, "prot": data["prot"]})(data, folder)

    return make


def _typed_modality(data, folder):
    both = _types("Gene Expression", "Antibody Capture")(data, folder)
    return modalities(lambda data: {"rna": both, "prot": data["prot"]})(data, folder)


def _types(of_genes, of_proteins, column="feature_types"):
    def make(data, folder):
        adata = rna_of(data)
        with quiet():
            both = AnnData(
                sparse.hstack([adata.X, data["prot"].X], format="csr"), obs=adata.obs,
                var=pd.DataFrame(
                    {
                        "gene_ids": [*adata.var["gene_ids"], *data["prot"].var_names],
                        column: [of_genes] * 300 + [of_proteins] * 9,
                    },
                    index=[*adata.var_names, *data["prot"].var_names],
                ),
            )  # fmt: skip
        return both

    return make


def _ids(share=1.0, version=""):
    def make(data, folder):
        adata = data["rna"].copy()
        n = int(share * adata.n_vars)
        adata.var_names = [*(adata.var["gene_ids"][:n] + version), *adata.var_names[n:]]
        del adata.var["gene_ids"]
        return modalities(lambda data: {"rna": adata, "prot": data["prot"]})(data, folder)

    return make


def _whole_index(names):
    return [str(i) for i in range(len(names))]


CASES = {
    "one cell": used(
        _cut(cells=slice(1)),
        "the input has only 1 cell",
        verbs={"finetune": "a single class", "transfer": "a single class", "evaluate": "a single class"},
    ),
    "two cells of two types": used(
        _cut(cells=[0, 1]),
        "the input has only 2 cells",
        verbs={"finetune": "only one cell", "transfer": "only one cell"},
    ),
    "no cell": refused("the input has 0 cells", _cut(cells=slice(0)), verbs={"evaluate": "no labelled cell"}),
    "one gene, which most cells lack": refused("no RNA counts in 159 cells", _cut(genes=[5])),
    "no gene": refused("the input has 160 cells and 0 genes", _cut(genes=slice(0))),
    "half of the genes": used(_cut(genes=slice(0, None, 2)), "the input has only 150 genes"),
    "a third of the genes": used(_cut(genes=slice(0, None, 3)), verbs=dict.fromkeys(BY_MODEL, TOO_FEW_GENES)),
    "one protein": used(_cut(proteins=[2])),
    "no protein": used(_cut(proteins=slice(0))),
    "more proteins than cells": used(
        _cut(cells=slice(0, 160, 40)),
        "the input has only 4 cells",
        verbs={"finetune": "only one cell", "transfer": "only one cell"},
    ),
    "isotype controls alone": used(_cut(proteins=["IgG1_control"])),
    "a cell name twice": refused("1 cell name (again) occurs more than once", _named("again", "again")),
    "a blank cell name": used(_named(" "), "1 cell name ( ) is blank or not text"),
    "cell names in other alphabets": same(_named("細胞", "κύτταρο", "a b", "x/y", "<b>")),
    "cell names that are numbers": used(_numbered),
    "cells in another order in the proteins": same(_order),
    "proteins of some of the cells": refused(
        "RNA has 160 cells and proteins 150, 150 in both; use --cells overlap",
        _overlap(slice(None), slice(10, None)),
        verbs={"transfer": ""},
    ),
    "RNA of some of the cells": refused(
        "RNA has 150 cells and proteins 160, 150 in both",
        _overlap(slice(10, None), slice(None)),
        verbs={"transfer": ""},
    ),
    "partial overlap, --cells overlap": used(_overlap(slice(0, 150), slice(10, None)), options="--cells overlap"),
    "partial overlap, --cells rna": used(
        _overlap(slice(0, 150), slice(10, None)), "proteins not measured (NaN) in 10 cells", options="--cells rna"
    ),
    "partial overlap, --cells all": used(
        _overlap(slice(0, 150), slice(10, None)), "10 with proteins alone", options="--cells all"
    ),
    "no cell in both": refused("0 in both", _overlap(slice(0, 80), slice(80, None)), verbs={"transfer": ""}),
    "no cell in both, --cells overlap": refused(
        "0 in both", _overlap(slice(0, 80), slice(80, None)), options="--cells overlap"
    ),
    "a suffix -1 in one modality": refused("they need the same cell names", _suffix, verbs={"transfer": ""}),
    "a gene name twice": used(
        features(lambda names: [*names[:-1], names[0]]), "1 gene name (SETDB1) occurs more than once"
    ),
    "a protein name twice": used(
        features(lambda names: ["CD3", "CD3", *names[2:]], "prot", True), "1 protein name (CD3) occurs more than once"
    ),
    "a blank gene name": used(features(lambda names: ["", *names[1:]]), "is blank or not text"),
    "a gene called nan": used(features(lambda names: ["nan", *names[1:]]), "is blank or not text"),
    "a gene called <script>": used(features(lambda names: ["<script>alert(1)</script>", *names[1:]])),
    "a gene called ../../x": used(features(lambda names: ["../../x", *names[1:]])),
    "gene names in other alphabets": used(features(lambda names: ["遺伝子", "ген", *names[2:]])),
    "genes numbered": refused(
        NO_NAMES, features(_whole_index, ids=False), verbs=dict.fromkeys(BY_MODEL, TOO_FEW_GENES)
    ),
    "genes numbered, with Ensembl ids in var": used(features(_whole_index)),
    "Ensembl ids": used(_ids()),
    "Ensembl ids with versions": used(_ids(version=".7")),
    "symbols and Ensembl ids mixed": used(_ids(0.5)),
    "lower-case symbols": used(features(lambda names: names.str.lower(), ids=False)),
    "symbols with a prefix hg19_": used(features(lambda names: "hg19_" + names, ids=False)),
    "symbols with a prefix HUMAN_": used(features(lambda names: "HUMAN_" + names, ids=False)),
    "symbols with a prefix GRCh38-, as Seurat writes it": used(features(lambda names: "GRCh38-" + names, ids=False)),
    "genes of two species": used(
        _barnyard,
        "300 human and 120 mouse genes by prefix; keep the genes and cells of one species",
        verbs=dict.fromkeys(("validate", "pretrain"), "a mixture of 300 human and 120 mouse genes"),
    ),
    "mouse, to a human model": used(_mouse, verbs=dict.fromkeys(BY_MODEL, "use human data")),
    "a gene and a protein of one name": used(_types("Gene Expression", "Antibody Capture")),
    "feature types in lower case": used(_types("gene expression", "antibody capture")),
    "feature types unknown": refused("no RNA found: the feature types are Peaks", _types("Peaks", "Peaks")),
    "feature types in a column Type": used(_types("Gene Expression", "Antibody Capture", column="Type")),
    "proteins of the feature type Custom": used(
        _types("Gene Expression", "Custom"),
        "if they are proteins, choose them with",
    ),
    "genes and antibodies in one matrix, not distinguished": used(
        _types("Gene Expression", "Gene Expression"), "read as antibodies; if so, mark them as 'Antibody Capture'"
    ),
    "antibodies alone, as genes": refused(
        "no RNA found: the input has only antibodies", lambda data, folder: _antibodies(data)
    ),
    "feature types in the RNA modality": same(_typed_modality),
    "proteins in obsm['X_adt']": used(_in_obsm("X_adt"), "choose it with --protein-modality X_adt"),
    "macaque genes": refused("from Macaca mulatta (ENSMMUG)", _other_ids("ENSMMUG")),
    "zebrafish genes": refused("from Danio rerio (ENSDARG)", _other_ids("ENSDARG")),
    "a row 'unmapped' among the proteins": used(features(lambda names: [*names[:-1], "unmapped"], "prot")),
    "proteins with unknown names": used(features(lambda names: [f"AB_{i}" for i in range(len(names))], "prot")),
    "proteins with a vendor's suffix": used(features(lambda names: names + "_TotalSeqB", "prot")),
    "hashtags alone": used(features(lambda names: [f"Hashtag_{i}" for i in range(len(names))], "prot")),
}
