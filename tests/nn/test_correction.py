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


def with_counterparts():
    """Return a correction whose batch 2 has RNA alone, with landmarks near the kinds; some have no proteins."""
    correction, generator = of_two_batches(), torch.Generator().manual_seed(1)
    correction.rna_only[1] = 1
    by_rna = KINDS[:, :3].repeat(20, 1) + torch.randn(60, 3, generator=generator) / 10
    correction.landmarks[:60] = by_rna + torch.randn(60, 3, generator=generator)
    correction.rna_landmarks[:50] = by_rna[:50]
    correction.set_matching_distance(lambda z: z)
    return correction


def matched(values, level, correction, *, by_rna=True):
    batch, by_rna = torch.full((len(values), 1), level), torch.full((len(values),), by_rna)
    z = corrected(values, batch.tolist(), correction, by_rna=bool(by_rna.all()))[:, :3]
    return correction.matched(z, values, batch, lambda values: values[:, :3], by_rna, lambda z: z), z


def test_a_cell_of_a_batch_of_rna_alone_gets_what_proteins_add_to_its_counterparts():
    """With values predicted from RNA, which vary less, 91 % of the neighbours of such cells were of their own batch."""
    correction = with_counterparts()
    added = correction.landmarks[:50] - correction.rna_landmarks[:50]
    for row in (0, 7, 49):
        by_rna = correction.rna_landmarks[row]
        nearest = (correction.rna_landmarks[:50] - by_rna).norm(dim=1).argsort()[:2]
        z, _ = matched(torch.cat([by_rna, torch.zeros(1)])[None] + correction.shifts[1, row % 3], 1, correction)
        torch.testing.assert_close(z[0], by_rna + added[nearest].sum(dim=0) / 2**0.5, atol=2e-2, rtol=0)


def test_cells_with_the_same_counterpart_do_not_fall_together():
    """Five cells that were matched with one measured cell formed a cluster with it."""
    correction = with_counterparts()
    correction.matching_distance.fill_(torch.inf)
    around = torch.cat([torch.zeros(1, 3), torch.eye(3), -torch.eye(3)])
    correction.rna_landmarks.fill_(torch.inf)[:7] = KINDS[0, :3] + around
    cells = KINDS[0, :3] + 0.3 * around[1:]  # all nearest to the first landmark, each next to another one
    moved = matched(torch.cat([cells, torch.ones(6, 1)], dim=1) + correction.shifts[1, 0], 1, correction)[0] - cells
    assert torch.pdist(moved).min() > 0.1


def test_cells_without_a_counterpart_and_of_other_batches_are_not_matched():
    correction = with_counterparts()
    near, far = KINDS + correction.shifts[1], KINDS + 2 + correction.shifts[1]
    for values, level, by_rna in ((far, 1, True), (near, 0, True), (near, -1, True), (near, 1, False)):
        z, before = matched(values, level, correction, by_rna=by_rna)
        assert z.equal(before)
    assert not matched(near, 1, correction)[0].equal(matched(near, 1, correction)[1])


def test_models_without_landmarks_by_rna_match_no_cell():
    """Those of earlier versions have none."""
    correction = of_two_batches()
    correction.rna_only[1] = 1
    z, before = matched(KINDS, 1, correction)
    assert z.equal(before)


def test_a_new_batch_of_rna_alone_is_not_matched():
    correction = with_counterparts()
    extended = correction.extended(2, 1)
    assert extended.rna_only.tolist() == [0, 0, 0, 1, 0]
    assert matched(KINDS + correction.shifts[1], 3, extended)[0].equal(
        matched(KINDS + correction.shifts[1], 1, correction)[0]
    )


def test_gradients_reach_the_values():
    values = torch.randn(4, 4, requires_grad=True)
    corrected(values, [[0], [1], [1], [-1]], of_two_batches()).sum().backward()
    assert (values.grad != 0).all()
