import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from scfusionttt.config import DataConfig
from scfusionttt.data.assemble import as_citeseq
from scfusionttt.data.features import Match
from scfusionttt.data.loader import CellDataset, make_loader
from scfusionttt.data.preprocess import Preprocessing
from scfusionttt.errors import SettingError
from scfusionttt.simulation.simulate import simulate


@pytest.fixture(scope="module")
def cite():
    mdata = simulate(60, 300, 8, 3)
    mdata["prot"].X[5:20, :3] = np.nan
    mdata["prot"].X[20] = np.nan
    return as_citeseq(mdata)


@pytest.fixture(scope="module")
def dataset(cite):
    """Cells of which two genes and a protein of the model are missing."""
    match = Match(genes=np.r_[np.arange(300)[::-1], -1, -1], proteins=np.r_[np.arange(8), -1])
    return CellDataset(cite, match, Preprocessing.fit(cite, match, DataConfig()), labels=np.arange(60) % 3)


@given(st.integers(1, 70), st.integers(0, 5))
def test_every_cell_comes_exactly_once_in_an_epoch(dataset, batch_size, epoch):
    loader = make_loader(dataset, batch_size=batch_size, shuffle_seed=1)
    loader.sampler.set_epoch(epoch)
    batches = [batch.row for batch in loader]
    assert torch.cat(batches).sort().values.tolist() == list(range(60))
    assert all(len(batch) == batch_size for batch in batches[:-1])


def test_the_halves_lack_what_the_cells_lack(dataset):
    """What was not measured is not a count of zero."""
    whole = dataset.__getitems__(list(range(60)))
    for half in dataset.halves(0):
        batch = half.__getitems__(list(range(60)))
        assert torch.equal(batch.protein_present, whole.protein_present)
        assert torch.equal(batch.rna_present, whole.rna_present)
        assert not torch.equal(batch.rna, whole.rna) and not torch.equal(batch.protein, whole.protein)


@given(st.integers(2, 5), st.integers(5, 70), st.integers(0, 3))
def test_ranks_together_read_the_batches_of_one_process(dataset, size, batch_size, epoch):
    def batches(**ranks):
        loader = make_loader(dataset, batch_size=batch_size, shuffle_seed=1, **ranks)
        (loader.batch_sampler.sampler if ranks else loader.sampler).set_epoch(epoch)
        read = [batch.row.tolist() for batch in loader]
        assert len(read) == len(loader)
        return read

    shares = [batches(rank=rank, size=size) for rank in range(size)]
    joined = [[row for part in parts for row in part] for parts in zip(*shares, strict=True)]
    whole = batches()
    if len(whole[-1]) < size:  # too few for every rank to have one: they come with the batch before
        whole[-2:] = [whole[-2] + whole[-1]]
    assert joined == whole
    assert all(min(map(len, parts)) > 0 for parts in zip(*shares, strict=True))


def test_more_ranks_than_cells_of_a_batch_are_refused(dataset):
    with pytest.raises(SettingError, match="a batch of 3 cells is too small for 4 processes"):
        make_loader(dataset, batch_size=3, rank=0, size=4)


def test_more_ranks_than_cells_are_refused_whatever_the_batch(dataset):
    few = dataset.subset(dataset.rows[:3])  # such as those that watch over a short training
    with pytest.raises(SettingError, match="3 cells of training or validation are too few for 4 processes; use fewer"):
        make_loader(few, batch_size=16, rank=0, size=4)


def unequal(cite, dataset):
    """Return cells of which 6 are of one batch, and 54 of another."""
    batches = (np.arange(60) < 6).astype(np.int64)[:, None]
    match = Match(genes=np.r_[np.arange(300)[::-1], -1, -1], proteins=np.r_[np.arange(8), -1])
    return CellDataset(cite, match, dataset.preprocessing, batches=batches)


def test_balanced_batches_share_an_epoch_by_the_square_roots_of_their_sizes(cite, dataset):
    cells = unequal(cite, dataset)
    came = np.array([order(cells.balanced(), seed=0, epoch=epoch) for epoch in range(8)])
    assert came.shape == (8, 60)  # an epoch is as long as before
    assert (came < 6).sum() / 8 == pytest.approx(60 * 6**0.5 / (6**0.5 + 54**0.5), abs=1)
    assert set(came.ravel()) == set(range(60))  # no cell of the large batch is lost in the long run
    assert sorted(order(cells, seed=0, epoch=0)) == list(range(60))


def test_a_part_of_balanced_cells_is_balanced_by_its_own_sizes(cite, dataset):
    part = unequal(cite, dataset).balanced().subset(np.r_[0, 20:29])
    np.testing.assert_allclose(part.expected(), np.r_[2.5, np.full(9, 2.5 / 3)])


def test_a_small_batch_is_not_lost_in_a_sample_of_many_cells(cite, dataset):
    """Of a donor of 50 cells among 50,000, hardly any was drawn: the model imputed nothing as measured in it."""
    cells = unequal(cite, dataset)
    drawn = np.array([cells.drawn(20, seed).rows for seed in range(20)])
    assert drawn.shape == (20, 20)
    assert (drawn < 6).sum(axis=1).mean() > 3  # 2 if all cells were as likely
    without = CellDataset(cite, cells.match, dataset.preprocessing).drawn(20, 0)
    np.testing.assert_array_equal(without.rows, np.sort(np.random.default_rng(0).choice(60, 20, replace=False)))


def order(dataset, *, seed, epoch):
    loader = make_loader(dataset, batch_size=16, shuffle_seed=seed)
    loader.sampler.set_epoch(epoch)
    return torch.cat([batch.row for batch in loader]).tolist()


def test_the_order_depends_on_seed_and_epoch_alone(dataset):
    first = order(dataset, seed=3, epoch=2)
    torch.rand(5)
    assert order(dataset, seed=3, epoch=2) == first
    assert order(dataset, seed=3, epoch=3) != first
    assert order(dataset, seed=9, epoch=2) != first


def test_without_a_seed_cells_come_in_their_order(dataset):
    loader = make_loader(dataset.subset(np.array([7, 3, 40])), batch_size=2)
    assert [batch.row.tolist() for batch in loader] == [[7, 3], [40]]


def test_a_batch_is_what_dense_arithmetic_gives(dataset, cite):
    batch = dataset.__getitems__([30, 6, 20])
    rows = [30, 6, 20]
    counts = cite.rna.X.toarray().astype(float)
    values = np.log1p(1e4 * counts / counts.sum(axis=1, keepdims=True))
    std = values.std(axis=0)
    divisor = np.where(std > 0, std**0.75 * np.sqrt(np.mean(std[std > 0] ** 0.5)), 1)
    rna = np.clip((values - values.mean(axis=0)) / divisor, -10, 10)
    np.testing.assert_allclose(batch.rna[:, :300], rna[rows][:, ::-1], rtol=1e-4, atol=1e-5)
    protein = np.asarray(cite.protein.X, dtype=float)
    ratio = np.log1p(protein / np.exp(np.nanmean(np.log1p(protein), axis=0)))
    scaled = np.clip((ratio - np.nanmean(ratio, axis=0)) / np.nanstd(ratio, axis=0), -10, 10)
    np.testing.assert_allclose(batch.protein[:, :8], np.nan_to_num(scaled[rows]), rtol=1e-4, atol=1e-5)
    assert [x.dtype for x in batch] == [torch.float32, torch.bool, torch.float32, torch.bool, *[torch.int64] * 3]


def test_what_was_not_measured_is_said_to_be_absent_and_holds_zero(dataset):
    batch = dataset.__getitems__([30, 6, 20])
    assert batch.rna_present.tolist() == [[True] * 300 + [False] * 2] * 3
    present = [[True] * 8, [False] * 3 + [True] * 5, [False] * 8]
    assert batch.protein_present.tolist() == [[*row, False] for row in present]
    assert not batch.rna[~batch.rna_present].any()
    assert not batch.protein[~batch.protein_present].any()


def test_a_subset_keeps_names_and_labels_and_copies_nothing(dataset):
    part = dataset.subset(np.array([7, 3]))
    assert len(part) == 2
    assert part.rna is dataset.rna
    assert part.protein is dataset.protein
    batch = part.__getitems__([0, 1])
    assert (batch.row.tolist(), batch.label.tolist()) == ([7, 3], [1, 0])
    assert len(dataset) == 60


def test_a_single_cell_is_a_batch_of_one(dataset):
    assert all(torch.equal(a, b) for a, b in zip(dataset[4], dataset.__getitems__([4]), strict=True))


def test_reading_leaves_the_callers_random_state_alone(dataset):
    """Every loop over a loader draws a seed for its workers, from the global state if it has no generator."""
    before = torch.get_rng_state()
    for seed in (None, 0):
        list(make_loader(dataset, batch_size=16, shuffle_seed=seed))
    assert torch.equal(torch.get_rng_state(), before)
