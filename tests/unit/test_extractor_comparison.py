"""Two methods are compared on the same queries, by parts of the classes."""

from dataclasses import replace

import numpy as np
import pytest

from helpers.evaluation import builders, intervals, metrics, runner
from helpers.features.registry import open_extractor
from helpers.images import samples
from helpers.lessons.extractor_comparison import PAIRED_COLUMNS, compare_pair
from helpers.search.index import open_index


@pytest.fixture(scope="module")
def measured():
    images = samples.photos().sample(6)
    protocol = builders.leave_one_out(images, "photos")
    scores = []
    for name in ("pixels", "hsv-histogram"):
        vectors = open_extractor(name).extract(images, cache=False, progress=False)
        scores.append(metrics.evaluate(runner.run(protocol, vectors, open_index("exact:cosine")), protocol))
    return protocol, *scores


def test_the_difference_is_that_of_the_means(measured):
    protocol, pixels, colors = measured
    table = compare_pair(pixels, colors, protocol)
    assert tuple(table.columns) == PAIRED_COLUMNS and table["metric"].tolist() == ["top-1", "mAP"]
    for row in table.to_dict("records"):
        assert row["first"] == pytest.approx(pixels.mean(row["metric"]))
        assert row["second"] == pytest.approx(colors.mean(row["metric"]))
        assert row["difference"] == pytest.approx(row["second"] - row["first"])
        paired = intervals.paired_difference(colors.values[row["metric"]], pixels.values[row["metric"]])
        assert (row["low"], row["high"], row["p"]) == (paired.low, paired.high, paired.p_value)
    assert (table["queries"] == 60).all()


def test_parts_are_the_queries_of_their_classes(measured):
    protocol, pixels, colors = measured
    names = protocol.class_names
    table = compare_pair(pixels, colors, protocol, {"one": names[:1], "others": names[1:]})
    assert table["queries of"].tolist() == ["one", "one", "others", "others"]
    assert table["queries"].tolist() == [6, 6, 54, 54]
    per_class = metrics.per_class(colors, protocol, "mAP").set_index("class")["mean"]
    assert table["second"][1] == pytest.approx(per_class[names[0]])
    assert table["second"][3] == pytest.approx(per_class[list(names[1:])].mean())
    # One class has no variation between classes.
    assert np.isnan(table["class low"][1]) and table["class low"][3] < table["class high"][3]


def test_unusable_parts(measured):
    protocol, pixels, colors = measured
    with pytest.raises(ValueError, match="no query belongs to the classes of 'none': ships"):
        compare_pair(pixels, colors, protocol, {"none": ["ships"]})


def test_other_queries(measured):
    protocol, pixels, _ = measured
    few = replace(builders.leave_one_out(samples.photos().sample(6), "few"), queries=np.arange(5))
    ranking = runner.run(
        few, np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32), open_index("exact:cosine")
    )
    with pytest.raises(ValueError, match="same queries"):
        compare_pair(pixels, metrics.evaluate(ranking, few), protocol)
