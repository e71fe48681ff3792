from dataclasses import replace

import pytest
import torch

from scfusionttt.nn.tokens import CellInputs
from scfusionttt.training.pretrain import PretrainModule


@pytest.fixture
def losses(network, config):
    """Return a function from a batch to what one training step tells, and the module with its gradients."""

    def run(batch, **settings):
        masked = {"decoder_blocks": 1, "latent": 0} if settings.get("objective") == "masked" else {}
        module = PretrainModule(network(**masked).train(), replace(config.pretrain, **settings), seed=0)
        torch.manual_seed(0)  # dropout
        _, logged, _ = module.losses(batch, module.hide(batch, step=0), learn=True)
        return logged, module

    return run


@pytest.mark.parametrize(
    ("objective", "rna", "protein"),
    [("bottleneck", "z_rna", "z_protein"), ("masked", "masked_rna", "masked_protein")],
)
def test_the_loss_is_the_weighted_sum_of_the_terms_of_its_objective(losses, cells, objective, rna, protein):
    found, _ = losses(cells.__getitems__(range(20)), objective=objective, alpha=0.7)
    assert set(found) == {"loss", rna, protein, "projection"}
    expected = 0.7 * found[rna] + 0.3 * found[protein]  # as in validation: the projection is logged on its own
    torch.testing.assert_close(found["loss"], expected)


@pytest.mark.parametrize("value", [torch.nan, 1e9])
def test_what_was_not_measured_changes_no_loss_and_no_gradient(losses, cells, value):
    batch = cells.__getitems__(range(20))
    rna_present = batch.rna_present.clone()
    rna_present[:, :45] = False
    batch = batch._replace(rna_present=rna_present)
    other = batch._replace(
        rna=torch.where(rna_present, batch.rna, value), protein=torch.where(batch.protein_present, batch.protein, value)
    )
    (found, module), (again, poisoned) = losses(batch), losses(other)
    assert all(torch.equal(found[name], again[name]) for name in found)
    for p, q in zip(module.parameters(), poisoned.parameters(), strict=True):
        assert torch.equal(p.grad, q.grad)


def test_the_masked_loss_speaks_of_hidden_tokens_only(losses, cells):
    """Rebuilding what the encoder saw would be copying: nothing hidden, nothing to learn from the tokens."""
    nothing = {"mask_ratio": 0.0, "protein_mask_ratio": 0.0, "hide_protein": 0.0}
    found, _ = losses(cells.__getitems__(range(20)), objective="masked", **nothing)
    assert found["masked_rna"] == found["masked_protein"] == 0
    found, _ = losses(cells.__getitems__(range(20)), objective="bottleneck", **nothing)
    assert found["z_rna"] > 0


def test_a_ratio_that_hides_no_whole_token_hides_one_if_that_is_all_there_is_to_learn(losses, cells):
    few = {"mask_ratio": 0.04, "protein_mask_ratio": 0.05, "hide_protein": 0.0}  # of 10 tokens and 8 proteins
    found, _ = losses(cells.__getitems__(range(20)), objective="masked", **few)
    assert found["masked_rna"] > 0 and found["masked_protein"] > 0


def test_the_network_reads_the_batch_without_labels_and_rows(cells):
    batch = cells.__getitems__([4, 2])
    inputs = CellInputs.of(batch)._asdict()
    assert set(batch._fields) - set(inputs) == {"label", "row"}
    assert all(torch.equal(value, getattr(batch, name)) for name, value in inputs.items())
