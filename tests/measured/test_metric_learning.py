"""Metric learning on people whom no training saw: baselines and heads with three seeds on ResNet50's vectors of LFW."""

import pytest

from helpers import paths
from helpers.evaluation import builders, protocol_files
from helpers.features.registry import open_extractor
from helpers.images import lfw
from helpers.lessons import metric_studies
from helpers.lessons.metric_studies import UnseenTask
from helpers.networks import metric_heads, training
from helpers.networks.losses import SupConLoss

pytestmark = [
    pytest.mark.measured,
    pytest.mark.skipif(
        paths.mirror_dir() is None,
        reason="NOT TESTED: metric learning's numbers need LFW; set LOOKALIKE_MIRROR to the data sets' folder",
    ),
]


@pytest.fixture(scope="module")
def task():
    """The frozen protocol with ResNet50's vectors, and the vectors of the people for training."""
    images = protocol_files.frozen("lfw-leave-one-out").bind(lfw.load())[1]
    protocol, queries = protocol_files.frozen("lfw-unseen-people").bind(images)
    learn = builders.learnable(protocol, images)
    assert not {*learn.class_names} & {*queries.class_names}
    extractor = open_extractor("resnet50")
    vectors = [extractor.extract(part, progress=False) for part in (queries, learn)]
    return UnseenTask(protocol, *vectors, learn.labels)


def learned(task, start, rate):
    """SupCon for ten epochs with three seeds; the number of epochs was chosen on validation people."""
    return metric_studies.train_heads(task, {"SupCon": SupConLoss()}, start, rate, 10, range(3))["SupCon"]


def compared(task, runs, reference):
    """The row of `metric_studies.compare` of some runs against one score."""
    methods = {"reference": [reference], "runs": runs}
    return metric_studies.compare(task, methods, "reference").set_index("method").loc["runs"]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """Trained here and now, not taken from an earlier run; the vectors come from the usual cache."""
    monkeypatch.setattr(training.paths, "cache_dir", lambda: tmp_path)


def test_whitening_within_classes_beats_raw_vectors(task):
    score = metric_studies.linear_baselines(task, 256)["WCCN"]
    assert score.mean("mAP") == pytest.approx(0.190, abs=0.004)
    assert score.mean("top-1") == pytest.approx(0.440, abs=0.015)
    row = compared(task, [score], task.score(task.test))
    assert row["difference low"] > 0 and row["p"] < 0.05


def test_a_projection_head_beats_raw_vectors_in_an_eighth_of_their_numbers(task):
    start, raw = metric_heads.principal_axes(task.known, 256), task.score(task.test)
    # The start is not better than the network.
    assert task.score(start.apply(task.test)).mean("mAP") == pytest.approx(raw.mean("mAP"), abs=0.005)
    row = compared(task, learned(task, start, 1e-3), raw)
    assert row["lowest"] > 0.167
    assert row["difference low"] > 0 and row["p"] < 0.05


def test_a_head_that_starts_from_whitening_beats_every_baseline(task):
    start = metric_heads.within_class_whitening(task.known, task.labels)
    runs = learned(task, start, 1e-4)
    # LDA reaches mAP 0.168, whitening 0.134, WCCN 0.190.
    assert min(run.mean("mAP") for run in runs) > 0.195
    assert min(run.mean("top-1") for run in runs) > 0.42
    for reference in metric_studies.linear_baselines(task, 256).values():
        row = compared(task, runs, reference)
        assert row["difference low"] > 0 and row["p"] < 0.05
