"""The names of real data sets: how many are placed."""

import h5py
import pytest

from scfusionttt.genome import resolve_antibodies, resolve_genes


def read_names(path, group="var"):
    with h5py.File(path) as file:
        var = file[group]
        return [name.decode() for name in var[var.attrs["_index"]][:]]


@pytest.mark.parametrize(
    ("file", "group", "species", "least"),
    [
        ("pbmc10k.h5mu", "mod/rna/var", "human", 0.999),
        ("malt_subset.h5mu", "mod/rna/var", "human", 0.995),
        ("citefuse_ctcl.h5mu", "mod/rna/var", "human", 0.999),
        ("mosaic_224adt.h5mu", "mod/rna/var", "human", 1.0),
        ("pbmc3k.h5ad", "var", "human", 0.999),
        ("sln111_d2_mouse.h5ad", "var", "mouse", 0.99),
    ],
)
def test_genes_are_placed(real_data, file, group, species, least):
    names = read_names(real_data / file, group)
    found = resolve_genes(names)
    assert found.species == species
    assert found.table["name"].tolist() == names
    assert found.table["start"].notna().sum() == found.counts["matched"] >= least * len(names)


@pytest.mark.parametrize(
    ("file", "modality", "matched", "isotypes"),
    [
        ("pbmc10k.h5mu", "prot", 14, []),
        ("malt_subset.h5mu", "prot", 14, ["IgG2a-control", "IgG1-control", "IgG2b-control"]),
        ("citefuse_ctcl.h5mu", "prot", 47, ["IgG1", "IgG2a"]),
        ("mosaic_224adt.h5mu", "adt", 224, []),
    ],
)
def test_proteins_are_placed(real_data, file, modality, matched, isotypes):
    found = resolve_antibodies(read_names(real_data / file, f"mod/{modality}/var"))
    assert found.counts["matched"] == matched
    assert found.table.loc[found.table["kind"] == "isotype", "name"].tolist() == isotypes
    assert len(found.table) == matched + len(isotypes)


def test_hashtags_are_told(real_data):
    found = resolve_antibodies(read_names(real_data / "citefuse_ctcl.h5mu", "mod/hto/var"))
    assert found.table["kind"].tolist() == ["hashtag"] * 4
