import torch

from scfusionttt.nn.heads import CellRepresentation, ProteinProjection, SlotPool


def test_the_first_slot_starts_as_the_mean_of_the_present_tokens(config):
    tokens = torch.randn(2, 7, 16)
    present = torch.tensor([[True] * 7, [True, False, True, True, False, False, True]])
    pooled = SlotPool(7, config())(tokens, present)
    assert pooled.shape == (2, 2 * 16)
    expected = torch.stack([tokens[n][present[n]].mean(dim=0) for n in range(2)])
    torch.testing.assert_close(pooled[:, :16], expected)


def test_without_a_bottleneck_the_representation_is_the_mean_of_each_modality_side_by_side(config):
    rna, protein = torch.randn(2, 7, 16), torch.randn(2, 3, 16)
    representation = CellRepresentation([7, 3], config(latent=0))
    everything = [torch.ones(x.shape[:2], dtype=torch.bool) for x in (rna, protein)]
    z = representation((rna, everything[0]), (protein, everything[1]))
    assert representation.n_latent == 32
    assert not list(representation.parameters())
    torch.testing.assert_close(z, torch.cat([rna.mean(dim=1), protein.mean(dim=1)], dim=1))


def test_the_projection_makes_one_token_for_each_protein(config):
    projected = ProteinProjection(7, 3, config())(torch.randn(2, 7, 16), torch.ones(2, 7, dtype=torch.bool))
    assert projected.shape == (2, 3, 16)
