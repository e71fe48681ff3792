"""A plain denoising autoencoder: the control without sequence or gene order."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from scfusionttt.comparison.cells import Cells
from scfusionttt.evaluation.baselines import zscore

SETTINGS: dict[str, Any] = {
    "hidden_rna": 256, "hidden_protein": 64, "latent": 32, "dropout_rna": 0.5, "dropout_protein": 0.3,
    "lr": 1e-3, "epochs": 30, "batch_size": 256,
}  # fmt: skip


class Autoencoder(nn.Module):
    """One hidden layer per modality, a shared latent space, and a mirrored decoder."""

    def __init__(self, n_genes: int, n_proteins: int):
        super().__init__()
        s = SETTINGS
        hidden, latent = (s["hidden_rna"], s["hidden_protein"]), s["latent"]
        self.rna = nn.Sequential(nn.Dropout(s["dropout_rna"]), nn.Linear(n_genes, hidden[0]), nn.ReLU())
        self.protein = nn.Sequential(nn.Dropout(s["dropout_protein"]), nn.Linear(n_proteins, hidden[1]), nn.ReLU())
        self.latent = nn.Linear(sum(hidden), latent)
        self.to_rna = nn.Sequential(nn.Linear(latent, hidden[0]), nn.ReLU(), nn.Linear(hidden[0], n_genes))
        self.to_protein = nn.Sequential(nn.Linear(latent, hidden[1]), nn.ReLU(), nn.Linear(hidden[1], n_proteins))

    def encode(self, rna_ng: Tensor, protein_np: Tensor) -> Tensor:
        """Return the representation [n, latent]."""
        return self.latent(torch.cat([self.rna(rna_ng), self.protein(protein_np)], dim=1))

    def loss(self, rna_ng: Tensor, protein_np: Tensor) -> Tensor:
        """Return the mean squared error over all entries, both modalities weighted equally."""
        z = self.encode(rna_ng, protein_np)
        errors = nn.functional.mse_loss(self.to_rna(z), rna_ng), nn.functional.mse_loss(self.to_protein(z), protein_np)
        return 0.5 * errors[0] + 0.5 * errors[1]


def train(rna_ng: Tensor, protein_np: Tensor, *, seed: int) -> tuple[Autoencoder, list[float]]:
    """Train on z-scored values by AdamW with a one-cycle schedule; return the network and the loss of each epoch."""
    epochs, size = SETTINGS["epochs"], SETTINGS["batch_size"]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = Autoencoder(rna_ng.shape[1], protein_np.shape[1])
        optimiser = torch.optim.AdamW(network.parameters(), lr=SETTINGS["lr"])
        steps = epochs * -(-len(rna_ng) // size)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=SETTINGS["lr"], total_steps=steps)
        history = []
        for _ in range(epochs):
            total = 0.0
            for rows in torch.randperm(len(rna_ng)).split(size):
                loss = network.loss(rna_ng[rows], protein_np[rows])
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                schedule.step()
                total += float(loss.detach()) * len(rows)
            history.append(total / len(rna_ng))
    return network.eval(), history


def represent(cells: Cells, seed: int) -> np.ndarray:
    """Return the latent representation [n, 32]."""
    rna_ng, protein_np = (torch.from_numpy(zscore(values)) for values in (cells.rna, cells.protein))
    network, _ = train(rna_ng, protein_np, seed=seed)
    with torch.no_grad():
        return network.encode(rna_ng, protein_np).numpy()
