"""Text → image search under a protocol."""

import numpy as np
import pytest

from helpers.evaluation.intervals import bootstrap_interval
from helpers.evaluation.text_queries import evaluate_texts, names_table, query_names, text_protocol
from helpers.images import samples
from helpers.search.index import open_index


@pytest.fixture(scope="module")
def images():
    """Ten images of each of two classes, and distractors."""
    found = samples.with_distractors()
    wanted = [found.class_names.index(name) for name in ("birds", "fruit")]
    rows = [row for label in wanted for row in np.flatnonzero(found.labels == label)[:10]]
    return found.subset([*rows, *np.flatnonzero(found.labels < 0)[:20]])


def test_each_class_with_images_is_a_query(images):
    protocol = text_protocol(images)
    assert query_names(protocol) == ["birds", "fruit"] and protocol.name.endswith("-text")
    assert protocol.keys[:3] == ("text:birds", "text:fruit", images.keys[0])
    assert protocol.n_relevant.tolist() == [10, 10] and protocol.n_candidates.tolist() == [40, 40]


def test_scores_by_hand(images):
    """The birds come first; the fruit come last, after the 30 other images; the unknown have a zero vector."""
    vectors = np.zeros((40, 3), np.float32)
    vectors[:10, 0], vectors[10:20, 1], vectors[20:30, 2] = 1, -1, 1
    texts = np.array([[1, 0, 0], [0, 1, 0]], np.float32)
    protocol = text_protocol(images)
    scores = evaluate_texts(protocol, texts, vectors, open_index("exact:cosine"))
    last = np.mean(np.arange(1, 11) / np.arange(31, 41))
    np.testing.assert_allclose(scores.values["mAP"], [1, last])
    np.testing.assert_allclose(scores.values["precision@10"], [1, 0])
    table = names_table(scores, protocol, {"fruit"}).set_index("names")
    assert table["queries"].to_dict() == {"known": 1, "others": 1, "all": 2}
    assert table.loc["known", "mAP"] == pytest.approx(last) and table.loc["others", "mAP"] == 1
    assert np.isnan(table.loc["known", "mAP low"])
    interval = bootstrap_interval(scores.values["mAP"])
    assert (table.loc["all", "mAP low"], table.loc["all", "mAP high"]) == interval
    assert table.loc["all", "precision@10 chance"] == pytest.approx(0.25)
    assert names_table(scores, protocol, {"birds", "fruit"})["names"].tolist() == ["known", "all"]
