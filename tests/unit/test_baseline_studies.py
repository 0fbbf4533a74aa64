"""Images divided for training, early stopping replayed, and scores averaged over seeds."""

import keras
import numpy as np
import pandas as pd
import pytest

from helpers.evaluation import builders, intervals, metrics, runner
from helpers.images import samples
from helpers.lessons import baseline_studies, training_figures
from helpers.search.index import open_index


def test_no_query_is_for_training():
    task = baseline_studies.divide("sample-held-out", samples.with_distractors())
    queries = {task.images.keys[row] for row in task.protocol.queries}
    assert len(queries) == 122 and (len(task.train), len(task.validation), task.classes) == (98, 26, 10)
    assert not queries & {*task.train.keys, *task.validation.keys}
    assert not {*task.train.keys} & {*task.validation.keys}


def test_few_classes():
    task = baseline_studies.divide("sample-held-out", samples.with_distractors(), max_classes=3)
    assert task.classes == 3 and set(task.train.labels) == {0, 1, 2}
    assert set(task.images.labels[task.protocol.queries]) == {0, 1, 2}
    assert -1 in task.images.labels[task.protocol.gallery]


def test_accuracy_is_the_share_of_correct_images():
    images = samples.photos()
    # A classifier of which the largest output is always that of class 6.
    model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(10)])
    bias = np.zeros(10)
    bias[6] = 1
    model.layers[-1].set_weights([np.zeros((3, 10)), bias])
    assert baseline_studies.accuracy(model, images) == pytest.approx(np.mean(images.labels == 6))


@pytest.mark.parametrize(
    ("patience", "expected"),
    # Epoch:      1  2  3  4  5  6  7  8
    # Loss:       5  4  6  6  3  7  7  7
    [(1, (3, 2)), (2, (4, 2)), (3, (8, 5)), (30, (8, 5))],
)
def test_early_stopping_is_replayed(patience, expected):
    assert baseline_studies.replay_early_stopping([5, 4, 6, 6, 3, 7, 7, 7], patience) == expected


def test_the_replay_agrees_with_a_training():
    """A real training with a small patience ends where the replay of the longer one says."""
    rng = np.random.default_rng(0)
    inputs, labels = rng.standard_normal((40, 4)), rng.integers(0, 2, 40)

    def losses(patience):
        keras.utils.set_random_seed(0)
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, activation="softmax")])
        model.compile(keras.optimizers.SGD(2.0), "sparse_categorical_crossentropy", jit_compile=False)
        stopping = keras.callbacks.EarlyStopping(patience=patience)
        data = {"validation_data": (inputs[:20], labels[:20]), "batch_size": 20}
        history = model.fit(inputs[20:], labels[20:], epochs=12, callbacks=[stopping], verbose=0, **data)
        return history.history["val_loss"]

    every, few = losses(12), losses(1)
    assert len(few) < len(every) == 12
    assert baseline_studies.replay_early_stopping(every, 1) == (len(few), int(np.argmin(few)) + 1)


def test_no_losses():
    with pytest.raises(ValueError, match="at least one epoch"):
        baseline_studies.replay_early_stopping([], 3)


@pytest.fixture(scope="module")
def scores():
    """Scores of random vectors: two seeds of one method, one of another."""
    images = samples.photos()
    protocol = builders.leave_one_out(images, "all")

    def searched(seed):
        vectors = np.random.default_rng(seed).standard_normal((len(images), 8)).astype(np.float32)
        return metrics.evaluate(runner.run(protocol, vectors, open_index("exact:cosine")), protocol)

    return {"trained": [searched(0), searched(1)], "fixed": [searched(2)]}


def test_the_value_of_a_method_is_the_mean_over_its_seeds(scores):
    table = baseline_studies.score_table(scores, ["top-1", "mAP"]).set_index(["method", "metric"])
    for metric in ("top-1", "mAP"):
        means = [score.mean(metric) for score in scores["trained"]]
        row = table.loc["trained", metric]
        assert row["value"] == pytest.approx(np.mean(means)) and row["seeds"] == 2
        assert row["low"] < row["value"] < row["high"]
        single = scores["fixed"][0].table().set_index("metric").loc[metric]
        columns = ["value", "low", "high", "chance", "ceiling"]
        assert table.loc["fixed", metric][columns].tolist() == pytest.approx(single[columns].tolist(), abs=0.01)


def test_methods_are_compared_on_the_same_queries(scores):
    result = baseline_studies.compare(scores, "trained", "fixed", "mAP")
    trained = (scores["trained"][0].values["mAP"] + scores["trained"][1].values["mAP"]) / 2
    assert result == intervals.paired_difference(trained, scores["fixed"][0].values["mAP"])


def test_the_comparison_shows_seeds_chance_and_ceiling(scores):
    table = baseline_studies.score_table(scores, ["mAP"])
    lines = baseline_studies.comparison(table).data.splitlines()
    value, low, high = table.loc[0, ["value", "low", "high"]]
    assert lines[0] == "|  | seeds | mAP |"
    assert lines[2] == f"| trained | 2 | {value:.3f} [{low:.3f}, {high:.3f}] |"
    assert lines[3].startswith("| fixed | 1 | ")
    assert lines[4].startswith("| *chance* |  | *0.") and lines[5] == "| *ceiling* |  | *1.000* |"


def test_curves_of_several_seeds():
    histories = {
        seed: pd.DataFrame({"loss": [2.0, 1.0], "val_loss": [2.0, 3.0 + seed], "accuracy": [0, 1], "val_accuracy": 0.5})
        for seed in (0, 1)
    }
    figure = training_figures.seed_curves(histories)
    loss, accuracy = figure.axes
    assert [line.get_ydata().tolist() for line in loss.lines] == [[2, 1], [2, 3], [2, 1], [2, 4]]
    assert [line.get_linestyle() for line in loss.lines] == ["-", "--", "-", "--"]
    assert loss.lines[0].get_xdata().tolist() == [1, 2] and accuracy.get_ylabel() == "accuracy"
    assert figure.legends[0].get_texts()[3].get_text() == "seed 1, validation"
