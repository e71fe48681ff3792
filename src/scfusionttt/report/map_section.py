"""Section with the interactive map: what the reader can colour the cells by, and search for."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from scfusionttt.data.cells import CiteSeq, feature_panels
from scfusionttt.data.features import Features
from scfusionttt.data.preprocess import present_genes
from scfusionttt.data.transforms import library_sizes, log_normalize
from scfusionttt.errors import FeatureError, SettingError, name_some
from scfusionttt.genome.antibody_names import antigen
from scfusionttt.genome.antigens import known_antigens
from scfusionttt.keys import CELL_SURPRISE
from scfusionttt.labels import MAX_CLASSES, class_names, label_columns, obs_column
from scfusionttt.report.analysis import Analysis
from scfusionttt.report.cell_map import CellMap, Values
from scfusionttt.report.html import Section

#: Maximum number of genes on the map besides the requested ones, so that a page of 10,000 cells stays below 8 MB.
MAX_MAP_GENES = 150
#: Maximum number of requested genes.
MAX_REQUESTED = 1000
#: Top genes of each cluster on the map.
_GENES_PER_CLUSTER = 3


def map_section(analysis: Analysis, genes: Sequence[str] = (), color: Sequence[str] = ()) -> Section:
    """Return the interactive map, coloured by label, cluster, prediction, obs columns, proteins and selected genes."""
    categories, headings = _categories(analysis, color)
    expression = _expression(analysis, genes)
    proteins = pd.DataFrame(analysis.log_ratios, columns=analysis.features.proteins["name"].to_numpy())
    which = "The given coordinates" if analysis.own_coords else "UMAP of the embedding"
    caption = f"{which} of {analysis.n_cells:,} cells. Nearby cells are similar; large distances mean little."
    n_genes = analysis.cite.rna.n_vars
    return Section(
        "Cells",
        map=CellMap(
            analysis.coords,
            analysis.cite.rna.obs_names.tolist(),
            categories,
            [
                *_cell_values(analysis, color),
                Values("protein", "centred log-ratio", proteins.dropna(axis=1, how="all"), _other_names(analysis)),
                Values("gene", f"log1p counts per {analysis.preprocessing.target_sum:,.0f}", expression),
            ],
            caption,
            headings=headings,
            alike=[name for name, heading in headings.items() if heading == "type"],
            absent=f"{expression.shape[1]} of {n_genes:,} genes are on this page; --genes NAME adds others.",
        ),
    )


def find_genes(cite: CiteSeq, features: Features, names: Sequence[str]) -> dict[str, tuple[bool, int]]:
    """Return where each gene is: whether among the model's genes, and its column there or in the input.

    Raises
    ------
    FeatureError
        Neither the model nor the input has the gene; the message names the genes of an antigen.
    SettingError
        There are more than `MAX_REQUESTED` names.
    """
    if len(names) > MAX_REQUESTED:
        raise SettingError(f"genes has {len(names):,} names; a page takes at most {MAX_REQUESTED:,} besides its own")
    own = {name: (True, i) for column in ("symbol", "name") for i, name in enumerate(features.genes[column])}
    known = {name: (False, i) for i, name in reversed(list(enumerate(cite.rna.var_names)))} | own
    if missing := [name for name in names if name not in known]:
        antigens = known_antigens(missing, species=features.species)
        coding = [gene for one in antigens for gene in one.values() if gene not in missing]
        hint = f"that antigen is coded by {name_some(coding)}" if coding else "see scfusionttt genes"
        raise FeatureError(f"{name_some(missing)} is not among the genes of the input and the model; {hint}")
    return {name: known[name] for name in names}


def _categories(analysis: Analysis, color: Sequence[str]) -> tuple[dict[str, np.ndarray | pd.Series], dict[str, str]]:
    """Return the classes to colour by, the most informative first, and the heading of each."""
    types = {} if analysis.truth is None else {f"label ({analysis.labels_key})": analysis.truth}
    if analysis.predictions is not None:
        types["predicted type"] = analysis.predictions["label"].astype(str).to_numpy()
    groups: dict[str, Mapping[str, np.ndarray | pd.Series]] = {
        "type": types,
        "cluster": {f"cluster (leiden {one:g})": cells for one, cells in analysis.clusterings.items()},
        "batch": analysis.batches,
        "obs column": _obs_classes(analysis, color),
        "quality": _flags(analysis.quality),
    }
    own = groups["type"].keys() | groups["cluster"].keys() | groups["quality"].keys()
    categories: dict[str, np.ndarray | pd.Series] = {}
    headings: dict[str, str] = {}
    for heading, group in groups.items():
        for column, values in group.items():
            name = f"{column} (obs)" if heading in ("batch", "obs column") and column in own else column
            if name not in categories:  # a batch key is an obs column as well
                categories[name], headings[name] = values, heading
    return categories, headings


def _obs_classes(analysis: Analysis, color: Sequence[str]) -> dict[str, np.ndarray | pd.Series]:
    """Return the obs columns that hold classes, "none" among them, and those of `color` that hold no measurements."""
    obs = analysis.cite.obs
    asked = [key for key in color if not _is_measurement(obs_column(obs, key, role="colours"))]
    many = [key for key in asked if len(set(class_names(obs[key]))) > MAX_CLASSES]
    if many:
        raise SettingError(f"obs['{many[0]}'] has more than {MAX_CLASSES} classes; colour by another column")
    names = {str(key): key for key in obs.columns}  # those of some columns are numbers
    shown = dict.fromkeys([*map(str, asked), *label_columns(obs), *label_columns(obs, class_names)])
    return {key: obs[names[key]] for key in shown if names[key] != analysis.labels_key}


def _flags(quality: pd.DataFrame) -> dict[str, np.ndarray]:
    """Return why each cell is flagged, by heading; cells that are not are drawn in grey, below the others."""
    flags = quality["reason"].mask(quality["predicted_doublet"], "doublet").to_numpy(dtype=object)
    return {"quality flag": flags} if (flags != "").any() else {}


def _is_measurement(values: pd.Series) -> bool:
    """Return whether numbers are measurements, rather than the numbers of some clusters or days."""
    numeric = pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values)
    return numeric and (pd.api.types.is_float_dtype(values) or values.nunique() > MAX_CLASSES // 4)


def _cell_values(analysis: Analysis, color: Sequence[str]) -> list[Values]:
    """Return numbers per cell: those of model and counts, surprise if it was computed, and measurements in obs."""
    obs = analysis.cite.obs
    columns = {"RNA counts": ("log10", np.log10(np.maximum(analysis.quality["total_counts"].to_numpy(), 1)))}
    if analysis.mapped is not None:
        columns["p-value (mapping)"] = ("0 to 1", analysis.mapped.cells["p_value"].to_numpy())
    if analysis.quality["doublet_score"].notna().any():
        columns["doublet score"] = ("standard deviations", analysis.quality["doublet_score"].to_numpy())
    if analysis.predictions is not None:
        columns = {"probability": ("0 to 1", analysis.predictions["probability"].to_numpy())} | columns
    measured = {CELL_SURPRISE: "inner loss"} if CELL_SURPRISE in obs else {}
    for key in dict.fromkeys([*measured, *color]):
        if _is_measurement(obs[key]):
            name = f"{key} (obs)" if key in columns else key
            columns[name] = (measured.get(key, "as in obs"), obs[key].to_numpy(dtype=float, na_value=np.nan))
    return [Values("cell", unit, pd.DataFrame({name: column})) for name, (unit, column) in columns.items()]


def _expression(analysis: Analysis, requested: Sequence[str]) -> pd.DataFrame:
    """Return log-normalised values of the requested genes, coding genes of proteins, and top genes of the clusters.

    Values are NaN where a gene was not measured; of the genes that the input lacks, only requested ones are returned.
    """
    own, in_input = analysis.features.genes["name"].to_numpy(), analysis.match.genes >= 0
    index = {name: i for column in ("symbol", "name") for i, name in enumerate(analysis.features.genes[column])}
    best = [name for names in analysis.top_genes.values() for name in names[:_GENES_PER_CLUSTER]]
    coding = [name for name in analysis.features.proteins["symbol"].dropna() if name in index and in_input[index[name]]]
    places = find_genes(analysis.cite, analysis.features, list(dict.fromkeys(requested)))
    chosen = list(dict.fromkeys(index[name] for name in [*coding, *best]))[:MAX_MAP_GENES]
    chosen = list(dict.fromkeys([*(i for is_own, i in places.values() if is_own), *chosen]))
    panel, measured = present_genes(analysis.cite, analysis.match)
    values = pd.DataFrame(analysis.lognorm[:, chosen].toarray(), columns=own[chosen])
    table = values.where(measured[:, chosen][panel])
    others = [i for is_own, i in places.values() if not is_own]
    if others:
        rna, scale = analysis.cite.rna, analysis.preprocessing.target_sum
        lognorm = log_normalize(rna.X[:, others], target_sum=scale, library_size=library_sizes(rna.X))
        panel, measured = feature_panels(rna)
        values = pd.DataFrame(lognorm.toarray(), columns=rna.var_names[others])
        table = pd.concat([values.where(measured[:, others][panel]), table], axis=1)
    return table


def _other_names(analysis: Analysis) -> dict[str, list[str]]:
    """Return other names of each protein: its antigen, without what vendors add, and its coding gene."""
    table = analysis.features.proteins
    pairs = zip(table["name"], table["symbol"])
    return {name: [antigen(name), *([symbol] if isinstance(symbol, str) else [])] for name, symbol in pairs}
