import torch

from scfusionttt.nn.correction import BatchCorrection

KINDS = torch.tensor([[5.0, 0, 0, 1], [0, 5, 0, 2], [0, 0, 5, 3]])


def corrected(values, batch, correction, *, by_rna=True):
    by_rna = torch.full((len(values),), by_rna)
    return correction(values, torch.tensor(batch), lambda values: values[:, :3], by_rna)


def of_two_batches():
    """Return a correction with three kinds, and batches 1 and 2 (of a key) and 3 (of another)."""
    correction = BatchCorrection(3, 3, 4, 3)
    correction.centroids.copy_(KINDS)
    correction.shifts[1:] = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0)) / 3
    return correction


def test_before_the_fit_values_stay_as_they_are():
    values = torch.randn(7, 4)
    assert corrected(values, [[0, 2]] * 7, BatchCorrection(3, 3, 4, 3)).equal(values)


def test_each_kind_loses_the_shifts_of_its_batches():
    correction = of_two_batches()
    for batch in ([0], [1], [1, 2], [-1]):
        shift = sum(correction.shifts[level] for level in batch if level >= 0)
        torch.testing.assert_close(corrected(KINDS + shift, [batch] * 3, correction), KINDS, atol=1e-5, rtol=0)


def test_a_cell_does_not_depend_on_the_others():
    correction = of_two_batches()
    values, batch = torch.randn(9, 4), [[0, -1], [1, 2], [0, 2]] * 3
    together = corrected(values, batch, correction)
    for row in range(9):
        alone = corrected(values[row : row + 1], batch[row : row + 1], correction)
        torch.testing.assert_close(alone, together[row : row + 1])


def test_proteins_that_a_batch_lacks_are_left_out():
    correction = of_two_batches()
    correction.kept[3] = 0
    assert (corrected(torch.randn(5, 4), [[0]] * 5, correction)[:, 3] == 0).all()


def test_cells_with_proteins_are_not_moved_away_from_their_kind():
    """A donor's cells with proteins alone were, since its others had RNA alone."""
    correction = of_two_batches()
    correction.stretch[1] = 2
    values = KINDS + correction.shifts[1] + torch.eye(4)[3]
    for by_rna, far in ((True, 2), (False, 1)):
        away = corrected(values, [[1]] * 3, correction, by_rna=by_rna) - KINDS
        torch.testing.assert_close(away, far * torch.eye(4)[3].expand(3, 4), atol=1e-5, rtol=0)


def test_gradients_reach_the_values():
    values = torch.randn(4, 4, requires_grad=True)
    corrected(values, [[0], [1], [1], [-1]], of_two_batches()).sum().backward()
    assert (values.grad != 0).all()
