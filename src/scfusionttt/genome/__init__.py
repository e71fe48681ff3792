"""Positions of genes and of the antigens of antibodies: tables, names, species, orders."""

from scfusionttt.genome.antibodies import resolve_antibodies
from scfusionttt.genome.chromosomes import karyotypic_rank
from scfusionttt.genome.describe import describe
from scfusionttt.genome.orders import order_features
from scfusionttt.genome.resolve import Resolution, resolve_genes
from scfusionttt.genome.species import SpeciesMixtureError, infer_species
from scfusionttt.genome.tables import ASSEMBLIES, load_genes

__all__ = [
    "ASSEMBLIES",
    "Resolution",
    "SpeciesMixtureError",
    "describe",
    "infer_species",
    "karyotypic_rank",
    "load_genes",
    "order_features",
    "resolve_antibodies",
    "resolve_genes",
]
