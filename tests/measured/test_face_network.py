"""Scores of the face extractor under the frozen protocols: LFW (from the mirror) and AT&T."""

import warnings

import numpy as np
import pytest

from helpers import paths
from helpers.evaluation import metrics, protocol_files, runner, verification
from helpers.features import faces
from helpers.features.registry import open_extractor
from helpers.images import att_faces, lfw
from helpers.lessons import open_set
from helpers.search.index import open_index

pytestmark = pytest.mark.measured

needs_mirror = pytest.mark.skipif(
    paths.mirror_dir() is None,
    reason="NOT TESTED: LFW's numbers need the data set; set LOOKALIKE_MIRROR to its folder",
)


def cosine():
    return open_index("exact:cosine")


def extracted(name, images):
    protocol, images = protocol_files.frozen(name).bind(images)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", faces.NoFaceWarning)  # counted below
        return protocol, images, open_extractor("dlib-face").extract(images, progress=False)


@pytest.fixture(scope="module")
def on_lfw():
    return extracted("lfw-leave-one-out", lfw.load())


@pytest.mark.parametrize(
    ("name", "queries", "top_1", "mean_ap"),
    [("att-faces-one-per-person", 360, 0.994, 0.997), ("att-faces-leave-one-out", 400, 1.0, 0.999)],
)
def test_att_faces(name, queries, top_1, mean_ap):
    protocol, _, vectors = extracted(name, att_faces.load())
    assert not faces.without_face(vectors).any()
    measured = metrics.evaluate(runner.run(protocol, vectors, cosine()), protocol)
    assert measured.n_queries == queries
    assert measured.mean("top-1") == pytest.approx(top_1, abs=0.004)
    assert measured.mean("mAP") == pytest.approx(mean_ap, abs=0.003)


@needs_mirror
def test_lfw_with_singletons_as_distractors(on_lfw):
    protocol, _, vectors = on_lfw
    assert faces.without_face(vectors).sum() == 2
    measured = metrics.evaluate(runner.run(protocol, vectors, cosine()), protocol)
    assert measured.n_queries == 1443
    # Required are 0.99 and 0.97; images without a face count as failures.
    assert measured.mean("top-1") == pytest.approx(0.9965, abs=0.003)
    assert measured.mean("mAP") == pytest.approx(0.984, abs=0.005)


@needs_mirror
def test_lfw_same_or_different(on_lfw):
    protocol, _, vectors = on_lfw
    among = verification.pairs(protocol)
    assert (among.same.sum(), (~among.same).sum()) == (16123, 1745778)
    scores = verification.similarities(vectors, among)
    curve = verification.error_curve(scores[among.same], scores[~among.same])
    rate, threshold = curve.equal_error()
    assert rate == pytest.approx(0.0097, abs=0.001) and threshold == pytest.approx(0.907, abs=0.003)
    assert curve.at(curve.threshold_at(0.001))[1] == pytest.approx(0.056, abs=0.008)
    across = verification.accuracy_across_people(among, scores)
    assert across.mean == pytest.approx(0.991, abs=0.002)
    assert np.ptp(across.thresholds) < 0.01
    some = verification.pairs(protocol, different=50_000)
    wide = verification.error_intervals(some, verification.similarities(vectors, some), threshold)
    assert wide.equal_error.low < rate < wide.equal_error.high < 0.02


@needs_mirror
def test_lfw_open_set(on_lfw):
    """Ten splits of the people; one image of each known person in the gallery, 250 unknown people in each half."""
    _, images, vectors = on_lfw
    results = [open_set.calibrate_and_test(images, vectors, cosine, 0.01, seed=seed) for seed in range(10)]
    assert np.mean([result.closed_set for result in results]) == pytest.approx(0.9925, abs=0.004)
    assert np.mean([result.detected for result in results]) == pytest.approx(0.877, abs=0.03)
    assert np.mean([result.false_alarms for result in results]) == pytest.approx(0.016, abs=0.008)
    # Five images of each person instead of one.
    more = [open_set.calibrate_and_test(images, vectors, cosine, 0.01, per_person=5, seed=s) for s in range(10)]
    assert np.mean([result.detected for result in more]) == pytest.approx(0.968, abs=0.02)
