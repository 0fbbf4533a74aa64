"""All stages and poolings in one pass are equal to those of each extractor, and share its cache; comparisons."""

import numpy as np
import pandas as pd
import pytest

from helpers.evaluation import builders
from helpers.features import deep
from helpers.features.pooling import POOLINGS
from helpers.features.registry import open_extractor
from helpers.images import samples
from helpers.lessons import extractor_comparison, multi_stage
from helpers.lessons.feature_figures import channels, principal_axes, regions, score_curves, stage_grid


@pytest.fixture(scope="module")
def photos():
    return samples.photos().subset(range(0, 240, 24))


def test_every_stage_and_pooling_is_that_of_its_extractor(resnet50, photos, monkeypatch):
    found = multi_stage.stage_vectors(photos, progress=False)
    assert sorted(found) == sorted((stage, name) for stage in (1, 2, 3, 4) for name in POOLINGS)
    assert [found[stage, "gem"].shape for stage in (1, 2, 3, 4)] == [(10, dim) for dim in (256, 512, 1024, 2048)]
    # Computed, not read from the store.
    for stage, name in ((3, "rmac"),):
        alone = open_extractor("resnet50", pooling=name, stage=stage).extract(photos, cache=False, progress=False)
        assert np.allclose(found[stage, name], alone, atol=1e-5)
    # The last stage's average is the embedding layer itself.
    assert np.allclose(found[4, "average"], resnet50.extract(photos, progress=False), atol=1e-5)
    # Read from the store of the extractors, in any order and number; nothing is computed.
    monkeypatch.setattr(deep.compiled, "fastest", lambda *_: pytest.fail("it is in the store"))
    few = photos.subset([7, 3, 3])
    assert np.array_equal(open_extractor("resnet50-gem").extract(few, progress=False), found[4, "gem"][[7, 3, 3]])
    assert np.array_equal(multi_stage.stage_vectors(few, progress=False)[1, "max"], found[1, "max"][[7, 3, 3]])


def test_names_and_settings_of_pooled_extractors(resnet50):
    assert open_extractor("resnet50", pooling="gem").name == open_extractor("resnet50-gem").name == "resnet50-gem"
    assert open_extractor("resnet50", pooling="max", stage=3).name == "resnet50-stage3-max"
    assert open_extractor("resnet50", pooling="gem", stage=4).fingerprint == open_extractor("resnet50-gem").fingerprint
    assert (
        len({open_extractor("resnet50", pooling=name).fingerprint for name in POOLINGS} | {resnet50.fingerprint}) == 5
    )
    with pytest.raises(ValueError, match="no pooling is called 'median'; known: average, max, gem, rmac"):
        open_extractor("resnet50", pooling="median")
    with pytest.raises(ValueError, match="1 to 4 and needs a pooling"):
        open_extractor("resnet50", stage=2)
    with pytest.raises(ValueError, match="1 to 4 and needs a pooling"):
        open_extractor("resnet50", stage=5, pooling="gem")


def test_versions_are_compared_on_the_same_queries():
    images = samples.photos()
    protocol = builders.leave_one_out(images, "photos")
    random = np.random.default_rng(0)
    right = np.eye(len(images.class_names), dtype=np.float32)[images.labels]
    noise = random.normal(size=(len(images), 64)).astype(np.float32)
    table = extractor_comparison.compare_extractors(
        {"right": right, "noise": noise, "halved": noise.astype(np.float16)}, protocol, "noise"
    ).set_index("version")
    assert tuple(table.reset_index().columns) == extractor_comparison.COLUMNS
    assert table.loc["right", "mAP"] == table.loc["right", "top-1"] == 1 and table.loc["right", "p"] < 0.001
    assert table.loc["noise", "mAP"] == pytest.approx(table.loc["noise", "chance"], abs=0.03)
    assert table.loc["right", "difference"] == pytest.approx(1 - table.loc["noise", "mAP"])
    assert table["bytes"].tolist() == [4 * right.shape[1], 256, 128] and np.isnan(table.loc["noise", "p"])
    assert abs(table.loc["halved", "difference"]) < 0.005
    with pytest.raises(KeyError, match="no version is called 'best'"):
        extractor_comparison.compare_extractors({"right": right}, protocol, "best")


def test_long_vectors_are_compared_like_short_ones(photos):
    protocol = builders.leave_one_out(photos, "photos")
    random = np.random.default_rng(1)
    long = random.normal(size=(len(photos), 9000)).astype(np.float32) + 3 * photos.labels[:, None]
    # Appended zeros change no cosine similarity, but make a vector long.
    short = long[:, : 8 * len(photos)]
    padded = np.pad(short, ((0, 0), (0, 9000)))
    table = extractor_comparison.compare_extractors({"short": short, "padded": padded, "long": long}, protocol, "short")
    found, expected = (table.iloc[row].drop(["version", "dim", "bytes", "p"]) for row in (1, 0))
    assert found.to_list() == pytest.approx(expected.to_list())
    assert table["dim"].tolist() == [8 * len(photos), 8 * len(photos) + 9000, 9000]
    found = extractor_comparison._short(long)
    assert found.shape == (len(photos), len(photos))
    unit = long / np.linalg.norm(long, axis=1, keepdims=True)
    assert np.allclose(found @ found.T, unit @ unit.T, atol=1e-5)


def test_figures_show_every_number():
    table = pd.DataFrame([[0.1, 0.25], [0.5, 0.4]], ["stage 1", "stage 2"], ["average", "max"])
    figure = stage_grid({"a": table, "b": table}, "resnet50")
    assert figure.get_suptitle().startswith("resnet50. A cell is the mAP")
    texts = [text for panel in figure.axes for text in panel.texts]
    assert sorted(text.get_text() for text in texts) == sorted(2 * ["0.100", "0.250", "0.500", "0.400"])
    assert [text.get_text() for text in texts if text.get_weight() == "bold"] == ["0.500", "0.500"]
    rows = pd.DataFrame({"bytes": [64, 1024, 64], "mAP": [0.2, 0.5, 0.3], "low": [0.1, 0.4, 0.2],
                         "high": [0.3, 0.6, 0.4], "chance": 0.05, "kind": ["x", "x", "y"]})  # fmt: skip
    panel = score_curves({"a": rows}, "bytes", "kind", "bytes per image").axes[0]
    assert [line.get_label() for line in panel.lines[:2]] == ["x", "y"]
    assert panel.lines[0].get_xdata().tolist() == [64, 1024] and panel.lines[2].get_ydata()[0] == 0.05


def test_figures_of_maps_say_what_a_cell_is():
    maps = np.arange(32, dtype=np.float32).reshape(2, 2, 8) - 20
    figure = channels(np.zeros((8, 8, 3), np.uint8), [maps, maps[:1, :1]], "a network", shown=2)
    assert "A cell is one position of the map; its color is the activation" in figure.get_suptitle()
    drawn = {panel.get_xlabel(): panel.images[0] for panel in figure.axes if panel.get_xlabel()}
    assert "channel 7, maximum 11.0" in drawn and len(drawn) == 4
    assert drawn["channel 7, maximum 11.0"].get_clim() == (0, 11)
    assert [label.get_text() for label in figure.axes[-1].get_yticklabels()][0] == "0 or less"


def test_regions_are_drawn_at_their_cells():
    squares = [(0, 0, 4), (0, 0, 2), (2, 1, 2)]
    figure = regions(np.zeros((40, 80, 3), np.uint8), squares, 4)
    large, small = figure.axes
    assert (large.get_title(), small.get_title()) == ("1 region of 4 × 4 cells", "2 regions of 2 × 2 cells")
    # The last one covers x from 20 to 60 and y from 20 to 40; the outline is a little inside.
    box = small.patches[-1].get_bbox()
    assert (box.x0, box.x1, box.y0, box.y1) == pytest.approx((20, 60, 20, 40), abs=3.5)


def test_principal_axes_are_drawn_as_arrows():
    rotated = np.random.default_rng(0).normal(size=(50, 2)) * [5, 1]
    rotated -= rotated.mean(axis=0)
    axes = np.array([[0.6, 0.8], [-0.8, 0.6]])
    deviations = rotated.std(axis=0, ddof=1)
    figure = principal_axes(rotated @ axes + [3, 4], rotated, rotated / deviations, ("a", "b"))
    arrows = figure.axes[0].texts
    for arrow, axis, deviation in zip(arrows, axes, deviations, strict=True):
        assert arrow.xyann == pytest.approx((3, 4)) and arrow.xy == pytest.approx((3, 4) + 2 * deviation * axis)
    assert figure.axes[2].get_title().endswith("standard deviations 1.00 and 1.00")


def test_last_maps_are_stored_by_the_pass_over_the_stages(photos, cache_with_weights, monkeypatch):
    few = photos.subset([7, 3, 3])
    found = multi_stage.stage_vectors(few, progress=False, keep_last=True)
    monkeypatch.setattr(deep.compiled, "fastest", lambda *_: pytest.fail("it is on disk"))
    maps = multi_stage.last_maps(few, progress=False)
    assert maps.shape == (3, 7, 7, 2048) and maps.dtype == np.float32 and np.array_equal(maps[1], maps[2])
    for name in ("average", "gem"):
        pooled = POOLINGS[name](maps)
        pooled /= np.linalg.norm(pooled, axis=1, keepdims=True)
        assert np.allclose(pooled, found[4, name], atol=1e-4), name
    # Stored vectors do not imply stored maps of another image.
    with pytest.raises(pytest.fail.Exception, match="on disk"):
        multi_stage.last_maps(photos.subset([1]), progress=False)


def test_maps_are_computed_if_only_the_vectors_are_stored(photos, cache_with_weights):
    few = photos.subset([0, 1])
    first = multi_stage.stage_vectors(few, progress=False)
    maps = multi_stage.last_maps(few, progress=False)
    assert np.allclose(
        maps.max(axis=(1, 2)) / np.linalg.norm(maps.max(axis=(1, 2)), axis=1)[:, None], first[4, "max"], atol=1e-3
    )
