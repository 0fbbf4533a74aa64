"""The measurements of notebook 15, on the scenes' known boxes and small changes of them."""

import numpy as np
import pytest

from helpers.evaluation.detection import ScoredBoxes, evaluate_detections
from helpers.images import scenes
from helpers.lessons import object_figures, object_search
from helpers.lessons import object_studies as studies
from helpers.networks.detectors import Detections

NAMES = ("Dog", "Chair", "Vehicle", "Car", "Cattle")


@pytest.fixture(scope="module")
def loaded():
    return scenes.load()


@pytest.fixture(scope="module")
def known(loaded):
    return studies.known_objects(loaded, NAMES)


def test_objects_have_the_classes_of_the_detector(loaded, known):
    counts = {NAMES[label]: (known.labels == label).sum() for label in np.unique(known.labels)}
    vehicles = sum(each.class_name == "vehicles" for each in loaded.objects)
    assert counts["Vehicle"] == vehicles and counts["Car"] > 10 and "Chair" not in counts
    of_stem = [loaded.photos.paths[each.photo].stem for each in loaded.objects]
    assert (known.ignored & (known.labels == 2)).sum() == sum(
        name in ("balloon360", "walnutboat", "pink_tricycle") for name in of_stem
    )
    # A sedan is a car and a vehicle.
    row = of_stem.index("sedan")
    same = (known.images == loaded.objects[row].scene) & (known.boxes == loaded.objects[row].box).all(axis=1)
    assert sorted(known.labels[same]) == [2, 3]


def test_all_named_photographs_exist(loaded):
    stems = {path.stem for path in loaded.photos.paths}
    for table in (studies.SHOWN, studies.DOUBTFUL):
        assert {name for names in table.values() for name in names} <= stems


def test_perfect_detections_have_the_best_scores(loaded, known):
    kept = ~known.ignored
    found = ScoredBoxes(
        known.images[kept], known.labels[kept], known.boxes[kept], np.arange(kept.sum()) % 2 * 0.6 + 0.3
    )
    table = studies.class_table(known, found, len(loaded), NAMES, 0.5).set_index("class")
    assert table.index.tolist() == ["Vehicle", "Car", "Cattle", "Dog", "mean / all"]
    assert (table[["precision", "AP", "AP low"]] == 1).all(axis=None)
    # Half of them have a score of at least 0.5.
    assert table.loc["mean / all", "recall"] == pytest.approx(0.5, abs=0.01)
    assert (table["AP chance"] < 0.1).all()
    assert table.loc["mean / all", "objects"] == kept.sum() == table["objects"].iloc[:-1].sum()


def test_detections_of_known_classes_are_kept():
    first = Detections(np.eye(4)[:2], np.array([1, 3]), np.array([0.9, 0.4]), NAMES)
    second = Detections(np.eye(4)[2:], np.array([0, 4]), np.array([0.8, 0.7]), NAMES)
    found = studies.scored_boxes([first, second])
    assert found.images.tolist() == [0, 1, 1] and found.labels.tolist() == [3, 0, 4]
    assert found.scores.tolist() == [0.4, 0.8, 0.7] and (found.boxes == np.eye(4)[1:]).all()


def test_coverage_of_known_and_moved_boxes(loaded):
    right = [loaded.boxes[loaded.rows == scene].astype(float) for scene in range(len(loaded))]
    # A box of half the width has an IoU of 0.5, of a third 0.33.
    third = [found * [1, 1, 1 / 3, 1] for found in right]
    half = [found * [1, 1, 1 / 2, 1] for found in right]
    nothing = [np.empty((0, 4))] * len(loaded)
    assert studies.best_ious(loaded, half) == pytest.approx(0.5, abs=0.2)
    table = studies.coverage(loaded, {"known": [right], "changed": [nothing, third, half]})
    assert table["source"].tolist() == ["known", "changed", "changed", "changed"]
    assert table["recall"].iloc[[0, 1]].tolist() == [1, 0] and table["recall"].iloc[3] == 1
    assert table["recall"].iloc[2] < 0.2 and table["low"].iloc[2] <= table["recall"].iloc[2] <= table["high"].iloc[2]
    assert table["boxes"].tolist() == pytest.approx([len(loaded.objects) / 300] * 1 + [0] + [729 / 300] * 2)


def test_masks_are_compared_with_the_known_ones(loaded):
    known = [loaded.boxes[loaded.rows == scene].astype(float) for scene in range(len(loaded))]
    table = studies.mask_ious(loaded, [0, 3], known)
    assert len(table) == (loaded.rows == 0).sum() + (loaded.rows == 3).sum()
    assert (table["box IoU"] == 1).all() and table["GrabCut"].mean() > table["box"].mean()
    # The known mask fills this share of its box.
    mask, box = loaded.masks(0)[0], loaded.of(0)[0].box
    assert table["box"].iloc[0] == pytest.approx(mask.sum() / (box.width * box.height))
    shifted = [found + 500 for found in known]
    assert not len(studies.mask_ious(loaded, [0], shifted))


def test_cut_outs_have_no_background(loaded):
    few = object_search.select(loaded, [0, 3])
    found = studies.cut_outs(few)
    box = few.of(0)[0].box
    assert {name: each[0].shape[:2] for name, each in found.items()} == dict.fromkeys(found, (box.height, box.width))
    mask = few.masks(0)[0][box.y : box.y + box.height, box.x : box.x + box.width]
    assert (found["known mask"][0][~mask] == 255).all()
    assert (found["known mask"][0][mask] == found["box"][0][mask]).all()
    assert (found["GrabCut"][0] == 255).all(axis=2).mean() > 0.2


def test_curves_of_the_detector(loaded, known):
    scores = evaluate_detections(
        known, ScoredBoxes(known.images, known.labels, known.boxes, np.ones(len(known.images))), len(loaded)
    )
    panel = object_figures.precision_recall(scores, {2: "Vehicle", 3: "Car"}).axes[0]
    texts = [each.get_text() for each in panel.get_legend().get_texts()]
    assert texts[0].startswith("Vehicle, AP 1.000, ") and texts[1].startswith("Car")
    table = studies.coverage(loaded, {"half": [[found * [1, 1, 0.5, 1] for found in per_scene(loaded)]] * 2})
    panel = object_figures.coverage_curves(table).axes[0]
    assert panel.lines[0].get_ydata().tolist() == [1, 1]


def per_scene(loaded):
    return [loaded.boxes[loaded.rows == scene].astype(float) for scene in range(len(loaded))]
