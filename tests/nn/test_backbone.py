import pytest
import torch

from scfusionttt.config import Sizes
from scfusionttt.nn.backbone import CellRepresentation, Fusion, ProteinProjection
from scfusionttt.nn.tokens import Tokens

OWN = Tokens(torch.randn(2, 5, 16), torch.ones(2, 5, dtype=torch.bool))
OTHER = Tokens(torch.randn(2, 3, 16), torch.tensor([[True, True, False], [True, True, True]]))


@pytest.mark.parametrize("kind", ["ttt", "attention", "add"])
def test_fusion_adds_lambda_times_the_fused_part_to_the_own_tokens(config, seeded, kind):
    one, two = (seeded(Fusion, config(fusion=kind, fusion_weight=weight)) for weight in (1.0, 2.0))
    once, twice = one(OWN, OTHER).values - OWN.values, two(OWN, OTHER).values - OWN.values
    torch.testing.assert_close(twice, 2 * once)
    without = seeded(Fusion, config(fusion=kind, fusion_weight=0.0))
    assert torch.equal(without(OWN, OTHER).values, OWN.values)


@pytest.mark.parametrize("kind", ["ttt", "attention", "add"])
def test_own_tokens_take_in_the_other_modality_but_not_its_absent_tokens(config, seeded, kind):
    fuse = seeded(Fusion, config(fusion=kind))
    changed_absent, changed_present = (OTHER._replace(values=OTHER.values.clone()) for _ in range(2))
    changed_absent.values[0, 2] = 1e9
    changed_present.values[0, 1] += 1
    fused = fuse(OWN, OTHER).values
    assert torch.equal(fuse(OWN, changed_absent).values, fused)
    assert not torch.allclose(fuse(OWN, changed_present).values[0], fused[0])


def test_addition_is_the_mean_of_the_other_modality(config):
    fused = Fusion(config(fusion="add"))(OWN, OTHER).values
    torch.testing.assert_close(fused[1], OWN.values[1] + OTHER.values[1].mean(dim=0))


def test_without_a_bottleneck_the_representation_is_the_mean_of_each_modality_side_by_side(config):
    rna, protein = torch.randn(2, 7, 16), torch.randn(2, 3, 16)
    representation = CellRepresentation([7, 3], config(latent=0), Sizes())
    z = representation(*(Tokens(x, torch.ones(x.shape[:2], dtype=torch.bool)) for x in (rna, protein)))
    assert representation.n_latent == 32
    assert not list(representation.parameters())
    torch.testing.assert_close(z, torch.cat([rna.mean(dim=1), protein.mean(dim=1)], dim=1))


def test_the_projection_makes_one_token_for_each_protein(config):
    rna = Tokens(torch.randn(2, 7, 16), torch.ones(2, 7, dtype=torch.bool))
    projected = ProteinProjection(7, 3, config(), Sizes())(rna)
    assert projected.shape == (2, 3, 16)
