import numpy as np
import pandas as pd
import pytest
import torch

from scfusionttt.errors import InputDataError, SettingError
from scfusionttt.explain import as_track, by_region, relative, write_track
from scfusionttt.genome.regions import arms
from scfusionttt.model.fusionttt import FusionTTT
from scfusionttt.nn.layers import TTTMixer, inner_losses
from scfusionttt.ttt import dispatch

GENES = pd.DataFrame(
    {
        "name": ["a", "b", "c", "d", "e"],
        "chromosome": ["1", "1", "1", "2", None],
        "start": pd.array([10_000, 124_000_000, 200_000_000, 5_000, None], dtype="Int64"),
    }
)


@pytest.fixture
def track():
    """Two cells, tokens of two genes: a b, c d, e."""
    return as_track(np.array([[1.0, 2, 9], [3, 6, 9]]), GENES, pd.Index(["x", "y"]), patch=2)


def test_a_token_is_placed_where_most_of_its_genes_are(track):
    assert track.var["chromosome"].tolist()[:2] == ["chr1", "chr1"]
    assert track.var["start"].tolist()[:2] == [10_000, 200_000_000]
    assert track.var["end"].tolist()[:2] == [124_000_000, 200_000_000]
    assert track.var["genes"].tolist() == ["a;b", "c;d", "e"]
    assert track.var.loc["token-2", ["chromosome", "start"]].isna().all()


def test_a_region_is_the_mean_of_its_genes_also_of_tokens_across_a_border(track):
    assert by_region(track).loc["x"].to_dict() == pytest.approx({"1": 4 / 3, "2": 2})
    assert by_region(track, "arm").loc["x"].to_dict() == pytest.approx({"1p": 1, "1q": 1.5, "2p": 2})
    bands = pd.DataFrame({"name": ["late"], "chromosome": ["chr1"], "start": [150_000_000], "end": [250_000_000]})
    assert by_region(track, bands)["late"].tolist() == [2, 6]


def test_only_human_chromosomes_have_arms_here(track):
    """Chromosomes of the mouse, which have no short arm, were cut at human centromeres."""
    mouse = as_track(np.asarray(track.X), GENES, track.obs_names, patch=2, species="mouse")
    assert by_region(mouse).columns.tolist() == ["1", "2"]
    with pytest.raises(InputDataError, match="the genes are of mouse; use 'chromosome'"):
        by_region(relative(mouse), "arm")
    del track.uns["species"]  # of an earlier version
    assert by_region(track, "arm").columns.tolist() == ["1p", "1q", "2p"]


def test_surprise_is_standardised_by_reference_cells(track):
    assert np.allclose(relative(track).X, [[-1, -1, 0], [1, 1, 0]])
    track.X[1, 2] = 10
    assert relative(track, np.array([True, False])).X[0].tolist() == [0, 0, 0]
    with pytest.raises(InputDataError, match="surprise needs at least one reference cell with RNA"):
        relative(track, np.array([False, False]))


def test_cells_without_rna_are_no_reference(track):
    """A single one had made the surprise of all cells NaN."""
    with_another = as_track(np.vstack([track.X, np.full(3, np.nan)]), GENES, pd.Index(["x", "y", "z"]), patch=2)
    standardized = relative(with_another).X
    np.testing.assert_array_equal(standardized[:2], relative(track).X)
    assert np.isnan(standardized[2]).all()
    with pytest.raises(InputDataError, match="at least one reference cell with RNA"):
        relative(with_another, np.array([False, False, True]))


def test_tokens_that_were_not_measured_are_left_out_of_means(track):
    track.X[0, 0] = np.nan
    np.testing.assert_array_equal(relative(track).X, [[np.nan, -1, 0], [0, 1, 0]])
    np.testing.assert_allclose(by_region(track), [[2, 2], [4, 6]])  # a and b, c; d
    track.X[0] = np.nan
    assert by_region(track).isna().all(axis=1).tolist() == [True, False]


def test_arms_are_separated_by_the_centromere():
    genes = pd.DataFrame({"chromosome": ["17", "17", "X", "MT"], "start": [7_668_421, 43_044_295, 100_000, 5]})
    assert arms(genes).tolist() == ["17p", "17q", "Xp", "MT"]


def test_the_track_is_written_as_infercnvpy_writes_copy_numbers(track, cells):
    target = cells["rna"][:2].copy()
    write_track(target, track)
    assert target.obsm["X_surprise"].shape == (2, 2)  # the token without a place is left out
    assert target.uns["surprise"]["chr_pos"] == {"chr1": 0}
    assert target.uns["surprise"]["var"].columns.tolist() == ["chromosome", "start", "end"]


def test_tokens_of_a_shuffled_order_get_no_positions_of_chromosomes(cells, caplog):
    """infercnvpy drew all tokens up to the next first one of a chromosome as that chromosome's."""
    genes = pd.DataFrame({"name": list("abc"), "chromosome": ["1", "2", "1"], "start": [5, 5, 9]})
    target = cells["rna"][:2].copy()
    write_track(target, as_track(np.ones((2, 3)), genes, target.obs_names, patch=1))
    assert target.obsm["X_surprise"].shape == (2, 3)
    assert target.uns["surprise"].keys() == {"var"}
    assert len(caplog.messages) == 1 and "does not read genes in genome order" in caplog.text


def test_embedding_is_the_same_with_surprise_and_the_loss_is_that_of_the_layer(cells, trained, monkeypatch):
    model, asked = trained.pretrained, []
    plain = model.embed(cells)

    def remember(*arguments, **options):
        result = linear(*arguments, **options)
        asked.extend([] if result.loss is None else [result.loss])  # embed also reads cells without it
        return result

    linear = dispatch.ttt_linear
    layers = [layer for layer in model.network.backbone.rna_encoder.modules() if isinstance(layer, TTTMixer)]
    for layer in layers:
        monkeypatch.setattr(layer, "operator", remember)
    z, track = model.embed(cells, surprise=True)
    assert np.array_equal(z, plain)
    assert np.allclose(track.X, torch.cat(asked).sum(dim=1).numpy(), atol=1e-4)
    assert (track.X > 0).all()
    assert track.uns["species"] == "human"
    assert track.var["chromosome"].str.startswith("chr").all()
    assert all(layer.losses is None for layer in layers)


def test_tokens_without_a_measured_gene_have_no_surprise(cells, trained):
    """Theirs was 0, and lowered the mean of their chromosome."""
    rna = cells["rna"]
    _, whole = trained.pretrained.embed(rna, surprise=True)
    lacking = rna[:, ~rna.var_names.isin(whole.var["genes"].iloc[1].split(";"))].copy()
    _, track = trained.pretrained.embed(lacking, surprise=True)
    assert np.isnan(track.X).all(axis=0).tolist() == [False, True] + [False] * (track.n_vars - 2)
    assert np.isfinite(np.delete(track.X, 1, axis=1)).all()


def test_surprise_is_written_to_the_users_data_on_request(cells, trained):
    data = cells["rna"].copy()
    _, track = trained.pretrained.embed(data, surprise=True, inplace=True)
    assert np.array_equal(data.obsm["X_surprise"], track.X)


def test_surprise_needs_a_ttt_layer(cells, tiny):
    network = {**tiny["network"], "mixer": "none", "fusion": "add"}
    model = FusionTTT("fast", progress=False, **{**tiny, "network": network}).build(cells)
    with pytest.raises(SettingError, match="RNA encoder of this model has none"):
        model.embed(cells, surprise=True)


def test_layers_keep_no_loss_after_an_error(trained):
    network = trained.pretrained.network
    with pytest.raises(ValueError, match="stop"), inner_losses(network):
        raise ValueError("stop")
    assert all(layer.losses is None for layer in network.modules() if isinstance(layer, TTTMixer))
