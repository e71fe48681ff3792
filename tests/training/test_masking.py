import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from scfusionttt.training.masking import masked_mse, step_generator, visible_tokens

CPU = torch.device("cpu")


def draw(*, seed=0, step=0, mask_ratio=0.15, protein_mask_ratio=None, n=6, t=40, p=10, validation=False, **settings):
    generator = step_generator(seed, step, validation=validation)
    return visible_tokens(
        n, t, p, mask_ratio=mask_ratio, generator=generator, device=CPU,
        protein_mask_ratio=mask_ratio if protein_mask_ratio is None else protein_mask_ratio,
        **{"hide_protein": 0.0, **settings},
    )  # fmt: skip


@given(st.integers(1, 50), st.integers(0, 20), st.floats(0, 0.99))
def test_exactly_the_ratio_of_each_modality_is_hidden(t, p, ratio):
    visible = draw(t=t, p=p, mask_ratio=ratio)
    assert ((~visible.rna).sum(dim=1) == min(round(ratio * t), t - 1)).all()
    assert ((~visible.protein).sum(dim=1) == min(round(ratio * p), max(p - 1, 0))).all()


@pytest.mark.parametrize(
    ("t", "ratio", "least", "hidden"), [(3, 0.15, 1, 1), (3, 0, 1, 0), (1, 0.15, 1, 0), (9, 0.3, 1, 3)]
)
def test_of_a_few_tokens_at_least_one_is_hidden_if_asked(t, ratio, least, hidden):
    """15 % of three proteins were none, so that the masked objective never learned to rebuild them."""
    visible = draw(t=t, p=t, mask_ratio=ratio, least_hidden=least)
    assert (~visible.rna).sum(dim=1).tolist() == (~visible.protein).sum(dim=1).tolist() == [hidden] * 6


@given(st.integers(1, 50), st.floats(0, 0.99))
def test_the_tokens_that_are_not_removed_are_the_visible_ones_in_order(t, ratio):
    visible = draw(t=t, mask_ratio=ratio)
    for row in range(len(visible.rna)):
        kept = torch.arange(t) if visible.rna_positions is None else visible.rna_positions[row]
        assert kept.tolist() == visible.rna[row].nonzero().flatten().tolist()


def test_a_cell_without_visible_proteins_has_as_many_positions_as_the_others():
    visible = draw(n=50, hide_protein=0.5)
    assert visible.protein_positions.shape == (50, 8)
    assert len(visible.protein.any(dim=1).unique()) == 2


def test_what_is_hidden_depends_on_seed_and_step_alone():
    first = draw(seed=3, step=5).rna
    torch.rand(7)  # the global state has no say
    assert torch.equal(draw(seed=3, step=5).rna, first)
    others = [draw(seed=3, step=6), draw(seed=4, step=5), draw(seed=3, step=5, validation=True)]
    assert not any(torch.equal(other.rna, first) for other in others)


def test_cells_differ_in_what_is_hidden():
    assert len(draw(n=6).rna.unique(dim=0)) == 6


def test_a_share_of_the_cells_loses_all_its_proteins():
    hidden = [(~draw(n=500, step=step, hide_protein=0.3).protein).all(dim=1).float().mean() for step in range(4)]
    assert torch.stack(hidden).mean().item() == pytest.approx(0.3, abs=0.03)
    assert not (~draw(n=500, hide_protein=0.0).protein).all(dim=1).any()


def test_masked_mse_averages_over_the_chosen_entries():
    predicted, target = torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[3.0, 2.0, 7.0]])
    assert masked_mse(predicted, target, torch.tensor([[True, True, False]]), torch.tensor(2)) == pytest.approx(2.0)
    assert masked_mse(predicted, target, torch.zeros(1, 3, dtype=torch.bool), torch.tensor(1)) == 0


def test_a_target_that_was_not_measured_is_in_neither_the_loss_nor_its_gradient():
    """It was multiplied by zero, which leaves NaN what it is."""
    predicted = torch.tensor([[1.0, 2.0]], requires_grad=True)
    loss = masked_mse(predicted, torch.tensor([[3.0, torch.nan]]), torch.tensor([[True, False]]), torch.tensor(1))
    loss.backward()
    assert loss == 4
    assert predicted.grad.tolist() == [[-4, 0]]


def test_proteins_are_hidden_at_a_rate_of_their_own():
    visible = draw(mask_ratio=0.5, protein_mask_ratio=0.2)
    assert (~visible.rna).sum(dim=1).tolist() == [20] * 6
    assert (~visible.protein).sum(dim=1).tolist() == [2] * 6
