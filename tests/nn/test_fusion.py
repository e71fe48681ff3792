import pytest
import torch

from scfusionttt.nn.fusion import Fusion, masked_mean

OWN, OTHER = torch.randn(2, 5, 16), torch.randn(2, 3, 16)
OWN_HERE, OTHER_HERE = torch.ones(2, 5, dtype=torch.bool), torch.tensor([[True, True, False], [True, True, True]])


def test_masked_mean_is_that_of_the_present_tokens_and_zero_without_any():
    mean = masked_mean(OTHER, torch.tensor([[True, True, False], [False, False, False]]))
    torch.testing.assert_close(mean, torch.stack([OTHER[0, :2].mean(dim=0), torch.zeros(16)]))


@pytest.mark.parametrize("kind", ["ttt", "attention", "add"])
def test_fusion_adds_lambda_times_the_fused_part_to_the_own_tokens(config, seeded, kind):
    one, two = (seeded(Fusion, config(fusion=kind, fusion_weight=weight)) for weight in (1.0, 2.0))
    arguments = (OWN, OWN_HERE, OTHER, OTHER_HERE)
    torch.testing.assert_close(two(*arguments) - OWN, 2 * (one(*arguments) - OWN))
    without = seeded(Fusion, config(fusion=kind, fusion_weight=0.0))
    assert torch.equal(without(*arguments), OWN)


@pytest.mark.parametrize("kind", ["ttt", "attention", "add"])
def test_own_tokens_take_in_the_other_modality_but_not_its_absent_tokens(config, seeded, kind):
    fuse = seeded(Fusion, config(fusion=kind))
    changed_absent, changed_present = OTHER.clone(), OTHER.clone()
    changed_absent[0, 2] = 1e9
    changed_present[0, 1] += 1
    fused = fuse(OWN, OWN_HERE, OTHER, OTHER_HERE)
    assert torch.equal(fuse(OWN, OWN_HERE, changed_absent, OTHER_HERE), fused)
    assert not torch.allclose(fuse(OWN, OWN_HERE, changed_present, OTHER_HERE)[0], fused[0])


def test_addition_is_the_mean_of_the_other_modality(config):
    fused = Fusion(config(fusion="add"))(OWN, OWN_HERE, OTHER, OTHER_HERE)
    torch.testing.assert_close(fused[1], OWN[1] + OTHER[1].mean(dim=0))
