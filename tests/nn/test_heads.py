import numpy as np
import torch

from scfusionttt.nn.heads import CellRepresentation, KernelHead, ProteinProjection, SlotPool


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


def test_a_kernel_head_scores_by_the_similarity_to_its_landmarks():
    head, z = KernelHead(3, 2, 5), torch.randn(7, 3)
    head.landmarks.copy_(torch.randn(5, 3))
    head.gamma.fill_(0.3)
    similarity = np.exp(-0.3 * ((z[:, None] - head.landmarks) ** 2).sum(dim=2).numpy())
    expected = similarity @ head.weight.detach().numpy().T + head.bias.detach().numpy()
    np.testing.assert_allclose(head(z).detach(), expected, atol=1e-6)


def test_far_from_every_landmark_a_kernel_head_knows_nothing():
    head = KernelHead(3, 2, 5)
    torch.testing.assert_close(head(torch.full((1, 3), 1e3))[0], head.bias)
