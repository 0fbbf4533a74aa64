"""Metric learning, measured again on people whom no training saw: a seeded head on ResNet50's vectors of LFW."""

import numpy as np
import pytest

from helpers import paths
from helpers.evaluation import builders, intervals, metrics, protocol_files, runner
from helpers.features.registry import open_extractor
from helpers.images import lfw
from helpers.networks import metric_heads, training
from helpers.networks.losses import SupConLoss
from helpers.search.index import open_index

pytestmark = [
    pytest.mark.measured,
    pytest.mark.skipif(
        paths.mirror_dir() is None,
        reason="NOT TESTED: metric learning's numbers need LFW; set LOOKALIKE_MIRROR to the data sets' folder",
    ),
]


@pytest.fixture(scope="module")
def task():
    """The frozen protocol, ResNet50's vectors of its images, and those of the people for training, with labels."""
    images = protocol_files.frozen("lfw-leave-one-out").bind(lfw.load())[1]
    protocol, queries = protocol_files.frozen("lfw-unseen-people").bind(images)
    learn = builders.learnable(protocol, images)
    assert not {*learn.class_names} & {*queries.class_names}
    extractor = open_extractor("resnet50")
    return protocol, extractor.extract(queries, progress=False), extractor.extract(learn, progress=False), learn.labels


def searched(protocol, vectors):
    return metrics.evaluate(runner.run(protocol, vectors, open_index("exact:cosine")), protocol)


def learned(start, known, labels, rate):
    """SupCon for ten epochs, their number chosen on learnable people, of 16 people with 4 images each, seed 0."""
    return metric_heads.fit(start, known, labels, SupConLoss(), name="test-head", rate=rate, epochs=10)[0]


def beats(better, worse, protocol):
    """Paired by query, drawn by person."""
    people = protocol.labels[protocol.queries][protocol.answerable]
    a, b = (score.values["mAP"] for score in (better, worse))
    test = intervals.paired_difference(a, b, clusters=people)
    return test.low > 0 and test.p_value < 0.05


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """Trained here and now, not taken from an earlier run; the vectors come from the usual cache."""
    monkeypatch.setattr(training.paths, "cache_dir", lambda: tmp_path)


def test_whitening_within_classes_beats_raw_vectors(task):
    protocol, raw, known, labels = task
    score = searched(protocol, metric_heads.within_class_whitening(known, labels).apply(raw))
    assert score.mean("mAP") == pytest.approx(0.190, abs=0.004)
    assert score.mean("top-1") == pytest.approx(0.440, abs=0.015)
    assert beats(score, searched(protocol, raw), protocol)


def test_a_projection_head_beats_raw_vectors_in_a_quarter_of_their_numbers(task):
    protocol, raw, known, labels = task
    start = metric_heads.principal_axes(known, 256)
    off_the_shelf = searched(protocol, raw)
    # The start itself is no better than the network: what follows is learned.
    assert searched(protocol, start.apply(raw)).mean("mAP") == pytest.approx(off_the_shelf.mean("mAP"), abs=0.005)
    score = searched(protocol, learned(start, known, labels, 1e-3).apply(raw))
    assert score.mean("mAP") > 0.167
    assert beats(score, off_the_shelf, protocol)


def test_a_head_that_starts_from_whitening_beats_every_baseline(task):
    protocol, raw, known, labels = task
    start = metric_heads.within_class_whitening(known, labels)
    score = searched(protocol, learned(start, known, labels, 1e-4).apply(raw))
    # A shrunk linear discriminant reaches mAP 0.167, whitening top-1 0.40, whitening within classes mAP 0.190.
    assert score.mean("mAP") > 0.195
    assert score.mean("top-1") > 0.42
    assert beats(score, searched(protocol, raw), protocol)
    assert beats(score, searched(protocol, start.apply(raw)), protocol)
    assert np.isfinite(score.values["mAP"]).all()
