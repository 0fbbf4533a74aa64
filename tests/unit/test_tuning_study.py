"""The study of hyper-parameter search: images, models, the comparison of both searches, and the figures."""

import keras
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb

from helpers.images import samples
from helpers.lessons import tuning_figures, tuning_study
from helpers.networks.tuning import SearchResult


@pytest.fixture(scope="module")
def asha():
    parameters = [
        {"learning_rate": rate, "layers": layers, "loss": loss}
        for rate, layers, loss in ((1e-3, 1, "mse"), (1e-2, 3, "mse"), (0.05, 2, "mae"), (2e-4, 1, "mse"))
    ]
    scores = [[0.2, 0.3, 0.4], [0.1], [0.3, 0.35, 0.6], [0.15]]
    return SearchResult(parameters, 3, scores, [1.0] * 4)


@pytest.fixture(scope="module")
def full(asha):
    scores = [[0.2, 0.3, 0.4], [0.1, 0.2, 0.1], [0.3, 0.35, 0.6], [0.15, 0.3, 0.5]]
    return SearchResult(asha.parameters, 3, scores, [1.0] * 4)


def test_images_are_divided_without_overlap():
    photos = samples.photos()
    (train, train_labels), (validation, validation_labels) = tuning_study.divide(photos, 2, 1, seed=3)
    assert train.shape == (20, 32, 32, 3) and validation.shape == (10, 32, 32, 3)
    assert train.dtype == np.float32 and 0 <= train.min() < 0.1 and 0.9 < train.max() <= 1
    assert np.bincount(train_labels).tolist() == [2] * 10 and np.bincount(validation_labels).tolist() == [1] * 10
    assert len(np.unique(np.concatenate([train, validation]), axis=0)) == 30
    again, _ = tuning_study.divide(photos, 2, 1, seed=3)
    assert np.array_equal(again[0], train)


def test_a_class_with_too_few_images_is_named():
    with pytest.raises(ValueError, match="fish has 9 images, fewer than 8 \\+ 2"):
        tuning_study.divide(samples.photos(), 8, 2)


def test_models_have_their_hyper_parameters():
    model = tuning_study.build("fully_connected", learning_rate=0.01, weight_decay=0.1, layers=2, units=8, dropout=0.5)
    assert isinstance(model, keras.Model) and model.compiled and model.optimizer.weight_decay == 0.1
    assert float(model.optimizer.learning_rate) == pytest.approx(0.01)
    assert model.count_params() == (3072 * 8 + 8) + (8 * 8 + 8) + (8 * 10 + 10)


def test_what_asha_saved(full, asha):
    found = tuning_study.comparison(full, asha)
    assert (found["trials"], found["epochs"], found["asha_epochs"]) == (4, 12, 8)
    assert found["asha_share"] == pytest.approx(8 / 12)
    assert (found["best_score"], found["asha_score"], found["asha_difference"]) == (0.6, 0.6, 0)
    # Two of the trials with 0.2, 0.4, 0.5, 0.6: three of six pairs have the best one, two the second.
    assert found["random_trials"] == 2
    assert found["random_score"] == pytest.approx((3 * 0.6 + 2 * 0.5 + 0.4) / 6)


def test_tables(full, asha):
    comparison, trials = tuning_study.tables([("small_cnn", 0, {"all epochs": full, "ASHA": asha})])
    assert comparison.loc[0, ["network", "seed", "asha_epochs"]].to_list() == ["small_cnn", 0, 8]
    assert len(trials) == 8 and trials.columns[:4].to_list() == ["network", "seed", "search", "trial"]
    assert trials.query("search == 'ASHA'")["state"].to_list() == ["finished", "stopped", "finished", "stopped"]


def lines_of(figure):
    """The lines of the trials, by their number of points."""
    panel = figure.axes[0]
    return [line for line in panel.lines if len(line.get_xdata()) == 4]


def test_parallel_coordinates(asha):
    figure = tuning_figures.parallel_coordinates(asha.table, logarithmic=["learning_rate"], label="accuracy")
    lines = lines_of(figure)
    assert [line.get_linestyle() for line in lines] == ["--", "--", "-", "-"], "from the worst to the best"
    assert lines[-1].get_linewidth() > lines[0].get_linewidth()
    # The decades 10⁻⁴ … 10⁻¹; layers 1 … 3; "mae" before "mse"; scores 0.1 … 0.6.
    assert lines[-1].get_ydata() == pytest.approx([(np.log10(0.05) + 4) / 3, 0.5, 0, 1])
    assert lines[0].get_ydata() == pytest.approx([2 / 3, 1, 1, 0])
    dark, bright = (sum(to_rgb(line.get_color())) for line in (lines[-1], lines[0]))
    assert dark < bright - 0.5
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert {"$10^{-4}$", "$10^{-1}$", "mae", "2"} <= set(texts)
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == [
        "learning rate", "layers", "loss", "accuracy",
    ]  # fmt: skip
    assert figure.axes[1].get_ylabel() == "accuracy", "the color bar"


def test_parallel_coordinates_of_equal_scores():
    table = pd.DataFrame({"units": [1, 2], "score": [0.5, 0.5], "state": "finished"})
    assert len(tuning_figures.parallel_coordinates(table).axes[0].lines) > 2
    with pytest.raises(ValueError, match="at least one trial and one hyper-parameter"):
        tuning_figures.parallel_coordinates(table.drop(columns="units"))


def test_curves_end_where_trials_were_stopped(asha):
    panel = tuning_figures.trial_curves(asha, rungs=[1], label="accuracy").axes[0]
    points = [line for line in panel.lines if line.get_marker() == "o"]
    assert [(line.get_xdata()[0], line.get_ydata()[0]) for line in points] == [(1, 0.1), (1, 0.15)]
    curves = [line for line in panel.lines if len(line.get_xdata()) == 3]
    assert [line.get_ydata()[-1] for line in curves] == [0.4, 0.6]
    assert curves[1].get_linewidth() > curves[0].get_linewidth()
