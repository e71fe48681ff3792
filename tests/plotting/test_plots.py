import numpy as np
import pandas as pd
import pytest
from anndata import AnnData, concat, read_h5ad
from matplotlib import pyplot
from matplotlib.colors import to_hex
from mudata import MuData

from scfusionttt import plot
from scfusionttt.errors import InputDataError, LabelError, SettingError
from scfusionttt.io.quiet_warnings import quiet
from scfusionttt.plotting import plots
from scfusionttt.plotting.figures.style import natural_key
from support import copied

ROWS = [
    {"protocol": protocol, "dataset": "pbmc", "method": method, "metric": metric, "mean": m, "low": m - 0.1, "high": m}
    for protocol in ("unsupervised", "held-out")
    for method, m in (("genome", 0.8), ("shuffled", 0.7))
    for metric in ("ARI", "NMI")
]


@pytest.fixture(autouse=True)
def closed():
    yield
    pyplot.close("all")


@pytest.fixture
def mapped(cells):
    """The cells with a UMAP and predictions."""
    data = copied(cells)
    rng = np.random.default_rng(0)
    data.obsm["X_umap"] = rng.normal(size=(data.n_obs, 2))
    data.obs["fusionttt_label"] = data.obs["cell_type"].to_numpy()
    data.obs["depth"] = rng.uniform(size=data.n_obs)
    return data


def titles(axes):
    return [ax.get_title(loc="left") for ax in axes]


def test_one_panel_per_class_column_number_gene_or_protein(mapped):
    gene, protein = mapped["rna"].var_names[3], mapped["prot"].var_names[0]
    colours = ["cell_type", "depth", gene, f"prot:{protein}"]
    axes = plot.umap(mapped, colours)
    assert titles(axes) == colours
    shown = axes[2].collections[0].get_array()
    np.testing.assert_allclose(np.sort(shown), np.sort(mapped["rna"][:, gene].X.toarray()[:, 0]))
    assert pyplot.get_fignums() == [axes[0].figure.number], "pyplot knows the figure, so a notebook shows it"


def test_panels_are_in_rows_of_ncols(mapped):
    axes = plot.umap(mapped, ["cell_type", "depth", "depth"], ncols=2)
    assert [ax.get_subplotspec().colspan.start for ax in axes] == [0, 1, 0]
    assert [ax.get_subplotspec().rowspan.start for ax in axes] == [0, 0, 1]


@pytest.fixture
def named_by_vendor(mapped):
    """The same cells with a vendor's names of antibodies, and imputed proteins."""
    with quiet():
        mapped.mod["prot"].var_names = [f"{name}_TotalSeqB" for name in mapped["prot"].var_names]
        mapped.update()
    imputed = pd.DataFrame(mapped["prot"].X + 0.5, index=mapped.obs_names, columns=mapped["prot"].var_names)
    mapped.obsm["protein_imputed"] = imputed
    return mapped


def test_an_antibody_is_found_by_its_antigen_as_in_explain(named_by_vendor):
    data = named_by_vendor
    for name, offset in (("CD3", 0), ("prot:CD3", 0), ("imputed:cd3", 0.5)):
        (ax,) = plot.umap(data, name)
        shown = np.sort(ax.collections[0].get_array())
        np.testing.assert_allclose(shown, np.sort(data["prot"][:, "CD3_TotalSeqB"].X[:, 0]) + offset)
    with pytest.raises(InputDataError, match="CD999 is not among the imputed proteins: "):
        plot.umap(data, "imputed:CD999")
    del data.obsm["protein_imputed"]
    with pytest.raises(InputDataError, match=r"no obsm\['protein_imputed'\]; run model.impute"):
        plot.umap(data, "imputed:CD3")


def test_groups_are_compared_by_dots_and_violins(named_by_vendor):
    data, types = named_by_vendor, sorted(named_by_vendor.obs["cell_type"].unique(), key=natural_key)
    gene = data["rna"].var_names[3]
    ax = plot.dotplot(data, [gene, "CD3"], "cell_type")
    assert [label.get_text() for label in ax.get_yticklabels()] == types
    fractions = [float((data["rna"][(data.obs["cell_type"] == one).to_numpy(), gene].X > 0).mean()) for one in types]
    np.testing.assert_allclose(ax.collections[0].get_sizes()[::2], 90 * np.array(fractions))
    assert len(plot.dotplot(data, "imputed:CD3", "cell_type").collections[0].get_array()) == len(types)
    axes = plot.violin(data, [gene, "imputed:CD3", "depth"], "cell_type", ncols=2)
    assert titles(axes) == [gene, "imputed:CD3", "depth"]
    medians = data.obs.groupby("cell_type", observed=True)["depth"].median()[types]
    np.testing.assert_allclose(axes[2].get_lines()[0].get_ydata(), medians)
    with pytest.raises(SettingError, match="features is empty"):
        plot.dotplot(data, [], "cell_type")


def test_cells_in_which_a_protein_was_not_measured_do_not_count_in_its_dots(mapped):
    """They counted as cells without it: a protein of all cells was drawn in half of them."""
    protein = mapped["prot"].var_names[0]
    values = mapped["prot"].X + 1
    values[::2, 0] = np.nan
    mapped["prot"].X = values
    ax = plot.dotplot(mapped, f"prot:{protein}", "cell_type")
    np.testing.assert_allclose(ax.collections[0].get_sizes(), 90)


def test_repeated_names_of_cells_and_genes(mapped):
    """Cells joined without new names, some of them unlabelled, and repeated genes ended in errors of pandas."""
    data = AnnData(mapped["rna"].X, obs=mapped.obs, var=mapped["rna"].var)
    gene, repeated = data.var_names[:2]
    data.obs_names = ["cell"] * data.n_obs
    data.obs["cell_type"] = data.obs["cell_type"].astype(str).where(np.arange(data.n_obs) > 9, None)
    shown = data.obs["cell_type"].notna().to_numpy()
    means = pd.Series(data.X[shown, 0].toarray().ravel()).groupby(data.obs["cell_type"].to_numpy()[shown]).mean()
    ax = plot.dotplot(data, gene, "cell_type")
    means = means[[text.get_text() for text in ax.get_yticklabels()]]
    np.testing.assert_allclose(ax.collections[0].get_array(), (means - means.min()) / np.ptp(means), rtol=1e-5)
    data.var_names = [gene, *[repeated] * (data.n_vars - 1)]
    with pytest.raises(InputDataError, match=f"features are called {repeated}; call var_names_make"):
        plot.violin(data, repeated, "cell_type")


def test_contributions_are_coloured_by_direction():
    table = pd.DataFrame({"name": ["CD3D", "CD14"], "modality": ["rna", "protein"], "share": [0.4, 0.1]})
    ax = plot.contributions(table.assign(score=[0.8, -0.5]).set_index("name"))
    assert [label.get_text() for label in ax.get_yticklabels()] == ["CD3D", "CD14 (protein)"]
    assert [bar.get_width() for bar in ax.patches] == [0.4, 0.1]
    assert ax.patches[0].get_facecolor() != ax.patches[1].get_facecolor()
    empty = plot.contributions(table.assign(score=0.0).iloc[:0])
    assert empty.texts[0].get_text() == "no feature contributes more than expected by chance"
    with pytest.raises(SettingError, match="table must be the result of explain"):
        plot.contributions(table)


def test_given_axes_are_used(mapped):
    own = pyplot.figure().subplots(1, 2)
    assert plot.umap(mapped, ["cell_type", "depth"], axes=own)[1] is own[1]
    assert plot.confusion(mapped, "cell_type", ax=own[0]) is own[0]
    with pytest.raises(SettingError, match="1 colours but 2 axes"):
        plot.umap(mapped, "depth", axes=own)


def test_axes_basis_and_colours_as_in_scanpy(mapped):
    own = pyplot.figure().subplots(2, 2)
    assert plot.umap(mapped, "depth", basis="umap", ax=own[0, 0])[0] is own[0, 0]
    assert plot.umap(mapped, ["depth"] * 4, axes=own)[3] is own[1, 1]
    mapped.obs["cell_type"] = mapped.obs["cell_type"].astype("category")
    mapped.uns["cell_type_colors"] = ["#111111", "#222222", "#333333"]
    legend = plot.umap(mapped, "cell_type", axes=own[0, 1])[0].get_legend()
    drawn = {
        text.get_text().split(" (")[0]: dot.get_color() for text, dot in zip(legend.get_texts(), legend.legend_handles)
    }
    assert drawn == dict(zip(mapped.obs["cell_type"].cat.categories, mapped.uns["cell_type_colors"]))


def test_axes_are_named_after_the_basis(mapped):
    """Principal components were called UMAP."""
    mapped.obsm["X_pca"] = mapped.obsm["mine"] = np.hstack([mapped.obsm["X_umap"]] * 2)
    for basis, space in {"umap": "UMAP", "X_pca": "PC", "mine": "mine"}.items():
        for ax in plot.umap(mapped, ["cell_type", "depth"], basis=basis):
            assert (ax.get_xlabel(), ax.get_ylabel()) == (f"{space} 1", f"{space} 2")


def test_colours_are_those_of_the_modality_with_the_column(mapped):
    """scanpy clusters a modality, and stores the colours there; they were ignored."""
    mapped["rna"].obs["leiden"] = pd.Categorical(np.where(np.arange(mapped.n_obs) % 2, "T cells", "B cells"))
    mapped["rna"].uns["leiden_colors"] = ["#112233", "#445566"]
    legend = plot.umap(mapped, "leiden")[0].get_legend()
    assert {dot.get_color() for dot in legend.legend_handles} == {"#112233", "#445566"}


def test_colours_of_numbers_are_found(mapped):
    """Those of the categories 0.0 and 1.0, which are drawn as 0 and 1, were ignored."""
    mapped.obs["group"] = pd.Categorical(np.arange(mapped.n_obs) % 2 * 1.0)
    mapped.uns["group_colors"] = ["#112233", "#445566"]
    ax = plot.umap(mapped, "group")[0]
    assert {to_hex(colour) for colour in ax.collections[0].get_facecolors()} == {"#112233", "#445566"}


def test_all_plots_have_one_order_and_one_colour_of_groups(mapped):
    """Only the UMAP had the order of the categories and the stored colours."""
    order = sorted(mapped.obs["cell_type"].unique())[::-1]
    mapped.obs["cell_type"] = pd.Categorical(mapped.obs["cell_type"], categories=["of no cell", *order])
    mapped.uns["cell_type_colors"] = ["#000000", "#111111", "#222222", "#333333"]
    violins = plot.violin(mapped, "depth", "cell_type")[0]
    assert [text.get_text() for text in violins.get_xticklabels()] == order
    drawn = [to_hex(body.get_facecolor()[0]) for body in violins.collections]
    assert drawn == ["#111111", "#222222", "#333333"]
    for ax in (plot.dotplot(mapped, "depth", "cell_type"), plot.chromosomes(mapped, "cell_type")):
        assert [text.get_text() for text in ax.get_yticklabels()] == order
    rows = plot.confusion(mapped, "cell_type").get_yticklabels()
    assert [text.get_text().split(" (")[0] for text in rows] == order


def test_a_gene_that_one_group_lacks_does_not_squeeze_a_volcano():
    """Its fold change is about 2 to the power of 30, and all other genes were drawn in the middle tenth."""
    table = pd.DataFrame(
        {"group": "B", "names": ["a", "b", "c"], "logfoldchanges": [28.0, 1.5, -2.0], "pvals_adj": [1e-9, 1e-4, 0.2]}
    )
    ax = plot.volcano(table, "B")
    assert ax.get_xlim()[1] < 12
    assert ax.get_xlabel() == "log2 fold change (beyond 10: at the edge)"
    assert {text.get_text() for text in ax.texts} == {"a", "b"}


@pytest.mark.parametrize("group", [1, 1.0, "1"])
def test_a_group_is_found_by_its_number(group):
    """Clusters are often numbered, and group 1 was not found though the result had it."""
    table = pd.DataFrame({"group": ["1", "2"], "names": ["a", "b"], "logfoldchanges": 2.0, "pvals_adj": 1e-9})
    assert titles([plot.volcano(table, group)]) == ["1"]


def test_cells_without_a_label_are_no_group_along_the_genome(mapped):
    """Cells labelled unknown were drawn as a row of their own, and counted in the mean over groups."""
    mapped.obs["known"] = mapped.obs["cell_type"].astype(str)
    some = mapped.obs_names[::3]
    mapped.obs.loc[some, "known"] = "unknown"
    ax = plot.chromosomes(mapped, "known")
    assert "unknown" not in [text.get_text() for text in ax.get_yticklabels()]
    mapped.obs.loc[some, "known"] = None
    missing = plot.chromosomes(mapped, "known")
    np.testing.assert_array_equal(ax.collections[0].get_array(), missing.collections[0].get_array())


def test_the_legend_of_sixty_classes_does_not_shrink_the_map(mapped):
    """The legend had left only a strip for the map."""
    mapped.obs["many"] = [f"cluster {i % 60}" for i in range(mapped.n_obs)]
    widths = []
    for name in ("cell_type", "many"):
        ax = plot.umap(mapped, name)[0]
        ax.figure.draw_without_rendering()
        widths.append(ax.get_window_extent().width)
    assert widths[1] == pytest.approx(widths[0], rel=0.1)


def test_confusion_of_right_predictions_is_a_diagonal(mapped):
    ax = plot.confusion(mapped, "cell_type")
    recall = [text.get_text() for text in ax.texts if text.get_text() == "1.00"]
    assert len(recall) == mapped.obs["cell_type"].nunique()


def test_the_genome_of_one_cell_and_of_groups(mapped):
    cell = mapped.obs_names[5]
    assert titles([plot.genome_strip(mapped, cell)]) == [cell]
    ax = plot.chromosomes(mapped, "cell_type")
    assert len(ax.get_yticklabels()) == mapped.obs["cell_type"].nunique()
    alone = AnnData(mapped["rna"].X, var=mapped["rna"].var, obs=mapped.obs)
    plot.genome_strip(alone, cell, named=0).figure.draw_without_rendering()


def test_antibodies_are_not_drawn_as_genes(mapped):
    """Those of an AnnData with feature types were, where their names are genes', such as CD4."""
    parts = [mapped["rna"], mapped["prot"]]
    with quiet():
        adata = concat(parts, axis=1)
    adata.obs["cell_type"] = mapped.obs["cell_type"]
    adata.var["feature_types"] = np.repeat(["Gene Expression", "Antibody Capture"], [part.n_vars for part in parts])
    drawn = [plot.chromosomes(data, "cell_type").collections[0].get_array() for data in (mapped, adata)]
    np.testing.assert_array_equal(*drawn)
    with pytest.raises(InputDataError, match="CD14 is in rna and prot; write rna:CD14 or prot:CD14"):
        plot.violin(adata, "CD14", "cell_type")
    assert titles(plot.violin(adata, ["rna:CD14", "prot:CD14"], "cell_type")) == ["rna:CD14", "prot:CD14"]


def test_genes_in_raw_alone_are_found(cells):
    """An object of variable genes, as scanpy makes it, has the others in raw: they were said to be no genes."""
    rna = copied(cells["rna"])
    rna.obs["cell_type"] = cells.obs["cell_type"]
    rna.raw = rna
    few, gene = rna[:, :5].copy(), rna.var_names[9]
    drawn = plot.violin(few, gene, "cell_type")[0].get_ylabel()
    assert "as in raw" in drawn
    values = plots._values(few, gene)[0]
    np.testing.assert_array_equal(values, np.ravel(rna[:, gene].X.toarray()))


def test_proteins_of_a_table_in_obsm_are_found(mapped):
    """They were said to be neither a gene nor a protein."""
    adata, proteins = mapped["rna"].copy(), mapped["prot"].to_df()
    adata.obsm = {"X_umap": mapped.obsm["X_umap"], "protein_expression": proteins.add_suffix("_TotalSeqB")}
    (ax,) = plot.umap(adata, "CD3")
    assert ax.figure.axes[-1].get_ylabel() == "prot, as in obsm"
    gene, protein = (plot.umap(adata, name)[0].collections[-1].get_array() for name in ("CD14", "prot:CD14"))
    np.testing.assert_allclose(np.sort(gene), np.sort(mapped["rna"][:, "CD14"].X.toarray().ravel()))
    np.testing.assert_allclose(np.sort(protein), np.sort(proteins["CD14"]))


def test_modalities_are_found_in_any_case_as_in_training(mapped):
    with quiet():
        data = MuData({"GEX": mapped["rna"].copy(), "ADT": mapped["prot"].copy()})
        data["ADT"].var_names = [f"{name}_TotalSeqB" for name in data["ADT"].var_names]
        data.update()
    data.obs["cell_type"] = mapped.obs["cell_type"]
    plot.chromosomes(data, "cell_type")
    assert titles(plot.violin(data, "CD3", "cell_type")) == ["CD3"]


def test_training_curves_of_a_model_and_of_its_history(trained):
    assert titles(plot.training_curves(trained.finetuned)) == titles(plot.training_curves(trained.finetuned.history))


def test_methods_and_orders_are_compared_within_one_protocol():
    axes = plot.comparison(pd.DataFrame(ROWS), protocol="held-out")
    assert titles(axes) == ["ARI", "NMI"]
    assert titles(plot.comparison(pd.DataFrame(ROWS), protocol="held-out", metrics="ARI")) == ["ARI"]
    ax = plot.order_study(pd.DataFrame(ROWS), protocol="unsupervised", metric="ARI")
    assert [label.get_text() for label in ax.get_yticklabels()] == ["shuffled", "genome"]


@pytest.mark.parametrize(
    ("draw", "error", "message"),
    [
        (
            lambda data: plot.umap(data, "nothing"),
            InputDataError,
            "nothing is neither a gene nor a protein, and there is no",
        ),
        (lambda data: plot.umap(data, "depth", basis="X_pca"), InputDataError, r"no obsm\['X_pca'\]; compute it with"),
        (lambda data: plot.umap(data, []), SettingError, "color is empty"),
        (lambda data: plot.umap(data, None), SettingError, "color is empty"),
        (lambda _: plot.training_curves(pd.DataFrame()), SettingError, "no training was recorded; train the model"),
        (
            lambda _: plot.comparison("results.csv", protocol="paper"),
            SettingError,
            "summary must be a table as in results.csv",
        ),
        (lambda data: plot.confusion(data, "type"), LabelError, r"no obs\['type'\]; the columns are"),
        (lambda data: plot.genome_strip(data, "c"), InputDataError, "no cell 'c'"),
        (lambda data: plot.violin(data, "cell_type", "cell_type"), InputDataError, "is not a column of numbers"),
        (
            lambda data: plot.umap(
                AnnData(obs=data.obs, var=data["prot"].var, obsm={"X_umap": data.obsm["X_umap"]}), "CD3"
            ),
            InputDataError,
            "there is no X",
        ),
        (lambda _: plot.comparison(pd.DataFrame(ROWS), protocol="paper"), SettingError, "no paper row has ARI, NMI"),
        (
            lambda _: plot.comparison(pd.DataFrame([*ROWS, {**ROWS[0], "dataset": "malt"}]), protocol="unsupervised"),
            SettingError,
            "several data sets",
        ),
    ],
)
def test_missing_data_are_reported(draw, error, message, mapped):
    with pytest.raises(error, match=message):
        draw(mapped)


def test_cells_on_disk_are_drawn_along_the_genome(mapped, tmp_path):
    rna = mapped["rna"].copy()
    rna.obs["cell_type"] = mapped.obs["cell_type"]
    rna.write_h5ad(tmp_path / "rna.h5ad")
    drawn = [plot.chromosomes(one, "cell_type") for one in (rna, read_h5ad(tmp_path / "rna.h5ad", backed="r"))]
    np.testing.assert_array_equal(*(ax.collections[0].get_array() for ax in drawn))
