"""The measurement of a server, here of the one that Milvus Lite runs in this process, and activations as vectors."""

import numpy as np
import pytest

from helpers.images import samples
from helpers.lessons import multi_stage
from helpers.lessons.index_measurement import exact_truth
from helpers.lessons.server_measurement import measure_server
from helpers.search.backends.remote import Payload


def test_a_server_is_filled_searched_and_emptied(tmp_path):
    vectors = np.random.default_rng(0).standard_normal((60, 8)).astype(np.float32)
    payload = [Payload(f"{row}.png", f"folder/{row}.png", row % 3) for row in range(50)]
    truth = exact_truth(vectors[:50], vectors[50:], 4, cache=False)
    location = f"milvus:{tmp_path}/gallery.db"
    table = measure_server(location, ["metric=cosine"], vectors[:50], payload, vectors[50:], truth, 4)
    (row,) = table.to_dict("records")
    assert (row["count"], row["recall"], row["removed"], row["found after removal"], row["left"]) == (50, 1, 5, 0, 45)
    assert row["first"] == f"{truth.ids[0, 0]}.png" and row["search"] == "metric=cosine"


def test_activations_are_the_same_numbers_of_every_map(monkeypatch):
    maps = np.maximum(np.random.default_rng(0).standard_normal((5, 2, 3, 4)), 0).astype(np.float32)
    monkeypatch.setattr(multi_stage, "last_maps", lambda images, progress: maps[: len(images)])
    found = multi_stage.last_activations(samples.photos().subset(range(5)), 10)
    assert found.shape == (5, 10) and found.dtype == np.float32 and found.min() == 0
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)
    flat = maps.reshape(5, 24)
    places = [np.flatnonzero(np.all((flat > 0) == (column > 0)[:, None], axis=0)) for column in found.T]
    assert all(len(place) for place in places)
    with pytest.raises(ValueError, match="dim must be from 1 to 24"):
        multi_stage.last_activations(samples.photos().subset(range(5)), 25)
