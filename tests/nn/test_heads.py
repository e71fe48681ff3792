import numpy as np
import torch

from scfusionttt.nn.heads import KernelHead


def test_a_kernel_head_scores_by_the_similarity_to_its_landmarks():
    head, z = KernelHead(3, 2, 5), torch.randn(7, 3)
    head.landmarks.copy_(torch.randn(5, 3))
    head.gamma.fill_(0.3)
    similarity = np.exp(-0.3 * ((z[:, None] - head.landmarks) ** 2).sum(dim=2).numpy())
    expected = similarity @ head.weight.detach().numpy().T + head.bias.detach().numpy()
    np.testing.assert_allclose(head(z).detach(), expected, atol=1e-6)


def test_far_from_all_landmarks_a_kernel_head_returns_its_bias():
    head = KernelHead(3, 2, 5)
    torch.testing.assert_close(head(torch.full((1, 3), 1e3))[0], head.bias)
