"""Studies of metric learning on unseen identities, on small clouds of vectors."""

import numpy as np
import pytest

from helpers import paths
from helpers.evaluation import builders
from helpers.images.imageset import ImageSet
from helpers.lessons import metric_studies
from helpers.lessons.metric_studies import UnseenTask
from helpers.networks import metric_heads
from helpers.networks.losses import SupConLoss


def images_of(labels):
    """An image set with these labels; its files do not exist."""
    files = tuple(paths.ROOT / "none" / f"{row}.png" for row in range(len(labels)))
    names = tuple(f"class {label}" for label in range(labels.max() + 1))
    return ImageSet("clouds", files, labels, names, root=paths.ROOT / "none")


@pytest.fixture
def task():
    """Twelve known and six other identities of eight vectors each; the first of 10 dimensions is noise."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(18), 8)
    found = rng.normal(size=(18, 10))[labels] + 0.4 * rng.normal(size=(144, 10))
    found[:, 0] = 10 * rng.normal(size=144)
    known, test = labels < 12, labels[labels >= 12] - 12
    protocol = builders.leave_one_out(images_of(test), "clouds")
    return UnseenTask(protocol, found[~known].astype(np.float32), found[known].astype(np.float32), labels[known])


def test_labels_help_against_noise_within_classes(task):
    scores = {name: score.mean("mAP") for name, score in metric_studies.linear_baselines(task, 5).items()}
    assert list(scores) == ["vectors", "PCA", "PCA, whitened", "LDA", "WCCN"]
    assert min(scores["WCCN"], scores["LDA"]) > max(scores["vectors"], scores["PCA"]) + 0.1


def test_validation_identities_are_a_third_of_the_known_ones(task):
    aside = metric_studies.validation_rows(task.labels, seed=1)
    assert len(np.unique(task.labels[aside])) == 4 and not set(task.labels[aside]) & set(task.labels[~aside])
    part = task.validation(images_of(task.labels), seed=1)
    np.testing.assert_array_equal(part.known, task.known[~aside])
    np.testing.assert_array_equal(part.test, task.known[aside])
    assert len(part.protocol.queries) == 32 and set(part.labels) == set(range(8))


def test_methods_are_compared_on_the_same_queries(task):
    good = [task.score(metric_heads.within_class_whitening(task.known, task.labels).apply(task.test))] * 2
    methods = {"vectors": [task.score(task.test)], "WCCN": good}
    table = metric_studies.compare(task, methods, "vectors").set_index("method")
    row, start = table.loc["WCCN"], table.loc["vectors"]
    assert row["runs"] == 2 and row["lowest"] == row["highest"] == pytest.approx(row["mAP"])
    assert row["difference"] == pytest.approx(row["mAP"] - start["mAP"])
    assert row["difference low"] > 0 and row["p"] < 0.05 and row["low"] < row["mAP"] < row["high"]
    assert np.isnan(start["p"])
    (pair,) = metric_studies.compare_pairs(task, methods).itertuples()
    assert pair.difference == pytest.approx(-row["difference"]) and pair.adjusted == pair.p


def test_runs_are_averaged_per_query(task):
    runs = [task.score(task.test), task.score(task.test[:, 1:])]
    mean = metric_studies.mean_scores(runs).values["mAP"]
    np.testing.assert_allclose(mean, (runs[0].values["mAP"] + runs[1].values["mAP"]) / 2)


def test_heads_learn_with_the_rate_of_the_validation_identities(task, tmp_path, monkeypatch):
    monkeypatch.setattr(metric_studies.training.paths, "cache_dir", lambda: tmp_path)
    rate, scores = metric_studies.best_rate(task.validation(images_of(task.labels)), (1e-9, 0.03), 10, 5)
    assert rate == 0.03 and scores[0.03] > scores[1e-9]
    start = metric_heads.principal_axes(task.known, 10)
    runs = metric_studies.train_heads(task, {"SupCon": SupConLoss()}, start, rate, 5, [0, 1])["SupCon"]
    assert len(runs) == 2
    assert min(run.mean("mAP") for run in runs) > task.score(start.apply(task.test)).mean("mAP") + 0.1
