import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from scfusionttt.plotting.figures import training_curves


def history(stages=("pretrain", "finetune", "transfer"), epochs=5):
    rows = [
        {
            "stage": stage,
            "epoch": epoch,
            "train_loss": 1 / epoch,
            "val_loss": abs(epoch - 3) + 1.0,
            "val_accuracy": epoch,
        }
        for stage in stages
        for epoch in range(1, epochs + 1)
    ]
    return pd.DataFrame(rows)


def lines(ax):
    return {line.get_label(): line.get_ydata() for line in ax.lines if not line.get_label().startswith("_")}


def test_one_panel_per_stage_in_the_order_run(draw):
    axes = training_curves(history())
    assert draw(axes)
    assert [ax.get_title(loc="left") for ax in axes] == ["pretrain", "finetune", "transfer"]
    assert {ax.get_xlabel() for ax in axes} == {"epoch"}
    assert axes[0].get_ylabel() == "loss"
    assert list(lines(axes[0])) == ["training", "validation"]


@pytest.mark.parametrize("metric, best", [("loss", "best 1, epoch 3"), ("accuracy", "best 5, epoch 5")])
def test_best_epoch_is_marked(metric, best):
    assert training_curves(history(), metric=metric)[0].texts[0].get_text() == best


@pytest.mark.parametrize("drop", [True, False])
def test_without_a_validation_loss_the_training_curve_is_drawn(draw, drop):
    table = history()
    table = table.drop(columns="val_loss") if drop else table.assign(val_loss=np.nan)
    axes = training_curves(table)
    assert draw(axes)
    assert list(lines(axes[1])) == ["training"]
    assert list(axes[1].texts) == []


def test_a_stage_without_the_metric_shows_the_reason(draw):
    table = history()
    table.loc[table["stage"] == "transfer", ["train_loss", "val_loss"]] = np.nan
    axes = training_curves(table)
    assert draw(axes)
    assert axes[2].texts[0].get_text() == "no loss was recorded"


def test_a_stage_that_ran_again_has_another_panel():
    """The epochs of two fine-tunings were averaged, and the best epoch marked was of neither."""
    first, second = history(["finetune"]), history(["finetune"], epochs=1)
    table = pd.concat([first, second.assign(val_loss=0.5), second, history(["transfer"]), first], ignore_index=True)
    axes = training_curves(table)
    titles = ["finetune", "finetune 2", "finetune 3", "transfer", "finetune 4"]
    assert [ax.get_title(loc="left") for ax in axes] == titles
    assert lines(axes[0])["validation"].tolist() == first["val_loss"].tolist()
    assert lines(axes[1])["validation"].tolist() == [0.5]


def test_non_finite_values_are_left_out(draw):
    table = pd.DataFrame(
        {
            "stage": "pretrain",
            "epoch": [1, 2, 3],
            "train_loss": [3.0, 2.0, np.inf],
            "val_loss": [4.0, 3.0, 5.0],
        }
    )
    axes = training_curves(table)
    assert draw(axes)
    assert lines(axes[0])["training"].tolist() == [3.0, 2.0]
    assert lines(axes[0])["validation"].tolist() == [4.0, 3.0, 5.0]


def test_a_single_epoch_is_a_dot(draw):
    axes = training_curves(history(epochs=1))
    assert draw(axes)
    assert axes[0].lines[0].get_marker() == "o"


def test_an_empty_history_shows_the_reason(draw):
    axes = training_curves(pd.DataFrame({"stage": [], "epoch": [], "train_loss": []}))
    assert draw(axes)
    assert axes[0].texts[0].get_text() == "no training was recorded"


def test_given_axes_are_used():
    mine = Figure().subplots(1, 3)
    assert list(training_curves(history(), axes=mine)) == list(mine)
