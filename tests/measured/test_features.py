"""The recommendation of notebook 06 on parts of real data sets: GeM, whitened axes and re-ranking."""

import numpy as np
import pytest

from helpers import paths
from helpers.evaluation import builders, metrics
from helpers.evaluation.intervals import paired_difference
from helpers.features.registry import open_extractor
from helpers.images import caltech101, imagenet
from helpers.lessons import compression
from helpers.lessons.extractor_comparison import compare_extractors
from helpers.lessons.multi_stage import stage_vectors
from helpers.lessons.reranker_comparison import first_search
from helpers.search.rerank.reciprocal import k_reciprocal

pytestmark = [
    pytest.mark.measured,
    pytest.mark.skipif(
        paths.mirror_dir() is None,
        reason="NOT TESTED: the recommendation needs the data sets; set LOOKALIKE_MIRROR to their folder",
    ),
]


@pytest.fixture(scope="module", params=["Imagenette", "Caltech-101"])
def vectors(request, resnet50):
    """Images of every class; a third of them are queries, the others the gallery."""
    images = imagenet.imagenette() if request.param == "Imagenette" else caltech101.load()
    images = images.subset(np.arange(0, len(images), 4 if request.param == "Imagenette" else 3))
    protocol = builders.disjoint_split(images, f"{request.param}-disjoint")
    found = stage_vectors(images, poolings=("average", "gem"), progress=False)
    return protocol, found[4, "average"], found[4, "gem"]


def test_whitened_gem_and_re_ranking_beat_the_average(vectors):
    protocol, average, gem = vectors
    found = first_search(protocol, open_extractor("resnet50-gem-pcaw256").projection(gem))
    ranked = k_reciprocal(found.ranking, found.queries, found.gallery, found.neighbors, k1=15, ids=found.ids)
    plain = metrics.evaluate(first_search(protocol, average).ranking, protocol)
    better = metrics.evaluate(ranked, protocol)
    gain = paired_difference(better.values["mAP"], plain.values["mAP"])
    assert gain.difference > 0.03 and gain.low > 0 and gain.p_value < 0.01


def test_256_axes_and_int8_lose_little(vectors):
    protocol, _, gem = vectors
    short = open_extractor("resnet50-gem-pcaw256", whitening=0).projection(gem)
    versions = {"2048": gem, "256": short, "256, int8": compression.to_int8(short)[0]}
    table = compare_extractors(versions, protocol, "2048").set_index("version")
    assert table.loc["256", "difference"] > -0.01
    assert abs(table.loc["256, int8", "mAP"] - table.loc["256", "mAP"]) < 0.005
    assert table["bytes"].tolist() == [8192, 1024, 256]
