"""The full profile's numbers, measured again on the mirror: ResNet50 under the frozen protocols."""

import numpy as np
import pytest

from helpers import paths
from helpers.evaluation import leaderboard, metrics, protocol_files, runner
from helpers.features.registry import open_extractor
from helpers.images import caltech101, imagenet, lfw
from helpers.search.index import open_index

pytestmark = [
    pytest.mark.measured,
    pytest.mark.skipif(
        paths.mirror_dir() is None,
        reason="NOT TESTED: the full profile's numbers need the data sets; set LOOKALIKE_MIRROR to their folder",
    ),
]


@pytest.fixture(scope="module")
def resnet50():
    return open_extractor("resnet50")


def scores(name, images, by):
    protocol, images = protocol_files.frozen(name).bind(images)
    vectors = by.extract(images, progress=False)
    return metrics.evaluate(runner.run(protocol, vectors, open_index("exact:cosine")), protocol)


def test_lfw_with_singletons_as_distractors(resnet50):
    measured = scores("lfw-leave-one-out", lfw.load(), resnet50)
    assert measured.n_queries == 1443
    assert measured.mean("top-1") == pytest.approx(0.314, abs=0.01)
    assert measured.mean("top-10") == pytest.approx(0.634, abs=0.01)
    assert measured.mean("mAP") == pytest.approx(0.101, abs=0.005)


def test_caltech101_with_background(resnet50):
    measured = scores("caltech101-leave-one-out", caltech101.load(), resnet50)
    assert measured.n_queries == 900
    assert measured.mean("top-1") == pytest.approx(0.936, abs=0.01)
    assert measured.mean("mAP") == pytest.approx(0.796, abs=0.01)
    # The leaderboard says the same.
    board = leaderboard.load(paths.ROOT / "figures" / "leaderboard.csv")
    row = board[
        (board["protocol"] == "caltech101-leave-one-out")
        & (board["extractor"] == "resnet50")
        & (board["index"] == "exact:cosine")
        & (board["metric"] == "mAP")
    ].iloc[0]
    assert row["value"] == pytest.approx(measured.mean("mAP"), abs=0.002)
    assert row["low"] <= row["value"] <= row["high"]


@pytest.mark.parametrize(
    ("name", "top1", "top5"),
    [("resnet50", 0.86, 0.97), pytest.param("efficientnet-lite0", 0.86, 0.975, marks=pytest.mark.ci)],
)
def test_imagenet_classifier(name, top1, top5):
    """Short side 256, center crop 224, 250 of the images, which are training images of both networks."""
    from helpers.images import reading
    from helpers.networks import zoo

    images = imagenet.one_per_class()
    images = images.subset(np.linspace(0, len(images) - 1, 250).astype(int))
    model, prepare = zoo.classifier(name), zoo.preprocessing(name)
    first, five = [], []
    for rows, pixels in reading.batches(images, 224, "crop"):
        ranked = np.argsort(-model.predict_on_batch(prepare(pixels.astype(np.float32))), axis=1)
        right = ranked[:, :5] == images.labels[rows][:, None]
        first += right[:, 0].tolist()
        five += right.any(axis=1).tolist()
    assert len(first) == 250
    assert np.mean(first) >= top1
    assert np.mean(five) >= top5
