from dataclasses import replace

import numpy as np
import pytest
import torch

from scfusionttt.config import FinetuneConfig
from scfusionttt.inference import probabilities
from scfusionttt.model.stages import train_classifier
from scfusionttt.training.classify import ClassifierModule


def loss_of(network, counts, **settings):
    stage = FinetuneConfig(**settings)
    return ClassifierModule(network("finetune"), stage, class_counts=torch.tensor(counts), seed=0).loss


def test_classes_weigh_one_over_the_root_of_their_cells_and_a_cell_one_on_average(network):
    weight = loss_of(network, [100, 25, 4]).weight
    torch.testing.assert_close(weight / weight[0], torch.tensor([1.0, 2.0, 5.0]))
    assert (weight * torch.tensor([100, 25, 4])).sum() / 129 == pytest.approx(1)
    assert loss_of(network, [100, 25, 4], class_balance=False).weight.tolist() == pytest.approx([1, 1, 1])


def test_a_class_without_training_cells_leaves_the_weights_finite(network):
    assert torch.isfinite(loss_of(network, [10, 0, 3]).weight).all()


def test_the_loss_of_a_hand_made_case(network):
    """Two cells of classes with 100 and 25 cells: the second counts twice; p(true) is 1/2 and 1/4."""
    logits = torch.tensor([[0.5, 0.25, 0.25], [0.5, 0.25, 0.25]]).log()
    loss = loss_of(network, [100, 25, 4])(logits, torch.tensor([0, 1]))
    assert loss.item() == pytest.approx((np.log(2) + 2 * np.log(4)) / 3)


def test_balancing_lets_a_rare_class_be_learned(network, cells, config, run):
    rare = cells.labels == np.bincount(cells.labels).argmin()
    assert rare.mean() < 0.15
    found = {}
    for balance in (True, False):
        classifier = network("finetune")
        stage = replace(config.finetune, epochs=6, lr=0.02, validation_fraction=0.0, class_balance=balance)
        train_classifier(classifier, cells, stage, run())
        predicted = probabilities(classifier, cells, torch.device("cpu"))[0].argmax(axis=1)
        found[balance] = (predicted == cells.labels)[rare].mean()
    assert found[True] > found[False] + 0.2
