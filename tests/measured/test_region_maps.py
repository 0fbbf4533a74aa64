"""Vectors of regions from a real network's map: the whole image, and the half that shows the query."""

import numpy as np
import pytest

from helpers.features.region_vectors import region_vectors
from helpers.features.registry import open_extractor
from helpers.images import reading, samples

pytestmark = pytest.mark.measured


@pytest.fixture(scope="module", params=["efficientnet-lite0", "efficientnet-lite0-gem"])
def extractor(request):
    # Their weights are in a base dependency, so they are never missing.
    return open_extractor(request.param)


@pytest.fixture(scope="module")
def photos():
    images = samples.photos()
    return [reading.resize(reading.read_image(path), (160, 160)) for path in images.paths[:: len(images) // 12]]


def test_the_region_of_the_whole_image_has_the_vector_of_the_image(extractor, photos):
    whole = [np.array([[0, 0, 160, 160]])] * len(photos)
    found = np.concatenate(region_vectors(extractor, photos, whole, progress=False))
    larger = open_extractor(extractor.name, size=320).extract_arrays(photos)
    assert (found * larger).sum(axis=1).min() > 0.99999


def test_the_half_that_shows_the_query_is_the_most_similar(extractor, photos):
    collages = [np.hstack([left, right]) for left, right in zip(photos, photos[1:] + photos[:1], strict=True)]
    halves = [np.array([[0, 0, 160, 160], [160, 0, 160, 160]])] * len(photos)
    found = region_vectors(extractor, collages, halves, progress=False)
    queries = extractor.extract_arrays(photos)
    cosines = np.array([regions @ query for regions, query in zip(found, queries, strict=True)])
    print(f"the left half is the most similar in {(cosines[:, 0] > cosines[:, 1]).mean():.2f}, {cosines.mean(axis=0)}")
    assert (cosines[:, 0] > cosines[:, 1]).mean() > 0.9
