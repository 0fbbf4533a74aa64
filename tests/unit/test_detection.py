"""Detection metrics: cases worked by hand, and pycocotools as the reference implementation."""

import contextlib
import io
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from helpers.evaluation.detection import KnownObjects, ScoredBoxes, evaluate_detections, match


def known(boxes, images=None, labels=None, **flags) -> KnownObjects:
    n = len(boxes)
    return KnownObjects(images or [0] * n, labels or [0] * n, boxes, **flags)


def found(boxes, scores, images=None, labels=None) -> ScoredBoxes:
    return ScoredBoxes(images or [0] * len(boxes), labels or [0] * len(boxes), boxes, scores)


# ---- invalid boxes -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("boxes", "message"),
    [([1, 2, 3, 4], "shape"), ([(0, 0, -1, 5)], "at least 0"), ([(0, 0, np.nan, 5)], "finite"), ([(0, 0, 5)], "shape")],
)
def test_invalid_boxes_are_refused(boxes, message):
    with pytest.raises(ValueError, match=message):
        KnownObjects([0], [0], boxes)


# ---- matching ----------------------------------------------------------------------------------------


def test_each_object_is_matched_once_by_the_best_score():
    overlap = np.array([[0.6, 0.0], [0.9, 0.55], [0.8, 0.7]])
    none = np.zeros(2, bool)
    assert match(overlap, none).tolist() == [0, 1, -1]
    assert match(overlap, none, threshold=0.65).tolist() == [-1, 0, 1]
    # Of equal overlaps, pycocotools takes the last object.
    assert match(np.array([[0.6, 0.6, 0.5]]), np.zeros(3, bool)).tolist() == [1]


def test_ignored_objects_are_matched_last():
    overlap = np.array([[0.6, 0.9], [0.6, 0.9], [0.6, 0.9]])
    assert match(overlap, np.array([False, True])).tolist() == [0, 1, -1]


# ---- average precision -------------------------------------------------------------------------------


def test_average_precision_by_hand():
    # Four objects; hits at ranks 1, 2 and 5. Precision 1 up to a recall of 0.5, then 3/5 up to 0.75, then 0.
    objects = [(0, 0, 10, 10), (20, 0, 10, 10), (40, 0, 10, 10), (60, 0, 10, 10)]
    boxes = [objects[0], objects[1], (0, 50, 10, 10), objects[0], objects[2]]
    scores = evaluate_detections(known(objects), found(boxes, [0.9, 0.8, 0.7, 0.6, 0.5]), 1)
    matches = scores.matches[0]
    assert matches.correct.tolist() == [True, True, False, False, True]
    precision, recall = matches.curve()
    assert precision == pytest.approx([1, 1, 2 / 3, 0.5, 0.6]) and recall == pytest.approx([0.25, 0.5, 0.5, 0.5, 0.75])
    # 51 of the 101 recalls lie in 0 … 0.5, and 25 in 0.51 … 0.75.
    assert scores.mean_average_precision == pytest.approx((51 + 25 * 0.6) / 101)
    assert scores.at(0.75) == (1.0, 0.5) and scores.at(0.0) == (0.6, 0.75)
    assert np.isnan(scores.at(0.95).precision) and scores.at(0.95).recall == 0


def test_detections_of_another_class_or_image_match_nothing():
    boxes = [(0, 0, 10, 10)]
    truth = known(boxes, images=[1], labels=[2])
    scores = evaluate_detections(truth, found(boxes * 3, [0.9, 0.8, 0.7], images=[0, 1, 1], labels=[2, 3, 2]), 2)
    assert scores.matches[2].correct.tolist() == [False, True] and scores.average_precisions == {2: 0.5}
    # Class 3 has no known object, so it is not in the mean; its detection lowers the precision.
    assert scores.at(0.0) == (pytest.approx(1 / 3), 1.0)


def test_ignored_objects_count_neither_way():
    boxes = [(0, 0, 10, 10), (20, 0, 10, 10)]
    truth = known(boxes, ignored=[False, True])
    scores = evaluate_detections(truth, found([boxes[1], boxes[0]], [0.9, 0.8]), 1)
    assert scores.mean_average_precision == pytest.approx(1) and scores.at(0) == (1.0, 1.0)
    assert len(scores.matches[0].scores) == 1 and scores.matches[0].objects.tolist() == [1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scores": [np.nan]}, "NaN"),
        ({"images": [0, 1]}, "one for each box"),
        ({"labels": [0.5]}, "integers"),
        ({"images": [4]}, r"0 … 0"),
    ],
)
def test_invalid_detections_are_refused(change, message):
    valid = found([(0, 0, 1, 1)], [0.5])
    with pytest.raises(ValueError, match=message):
        evaluate_detections(known([(0, 0, 1, 1)]), replace(valid, **change), 1)


def test_invalid_thresholds_are_refused():
    for threshold in (0, 1.1):
        with pytest.raises(ValueError, match="threshold"):
            evaluate_detections(known([(0, 0, 1, 1)]), found([], []), 1, threshold=threshold)


# ---- the reference implementation --------------------------------------------------------------------


def reference(truth: KnownObjects, detections: ScoredBoxes, n_images: int) -> dict[int, float]:
    """Label → average precision of pycocotools at an intersection over union of 0.5; -1 without a known object."""
    labels = sorted({*truth.labels.tolist(), *detections.labels.tolist()})
    data = COCO()
    data.dataset = {
        "images": [{"id": i} for i in range(n_images)],
        "categories": [{"id": label} for label in labels],
        "annotations": [
            # Objects of an area outside the range are ignored.
            {"id": i + 1, "image_id": image, "category_id": label, "bbox": box, "iscrowd": 0,
             "area": -1 if ignored else box[2] * box[3]}
            for i, (image, label, box, ignored) in enumerate(zip(
                *(each.tolist() for each in (truth.images, truth.labels, truth.boxes, truth.ignored)), strict=True
            ))
        ],
    }  # fmt: skip
    columns = (each.tolist() for each in (detections.images, detections.labels, detections.boxes, detections.scores))
    results = [
        {"image_id": image, "category_id": label, "bbox": box, "score": score}
        for image, label, box, score in zip(*columns, strict=True)
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        data.createIndex()
        evaluation = COCOeval(data, data.loadRes(results), "bbox")
        evaluation.params.iouThrs = np.array([0.5])
        evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ["all"]
        evaluation.params.maxDets = [100]
        evaluation.evaluate()
        evaluation.accumulate()
    precision = evaluation.eval["precision"][0, :, :, 0, 0]
    return {label: float(precision[:, i].mean()) for i, label in enumerate(labels)}


#: Most of these boxes overlap by more than a half, so that detections have a choice of objects.
sides = st.integers(4, 7)
places = st.tuples(st.integers(0, 2), st.integers(0, 2), sides, sides)
rows = st.tuples(st.integers(0, 2), st.integers(0, 1), places)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(rows, st.booleans()), max_size=10),
    st.lists(st.tuples(rows, st.sampled_from([0.1, 0.3, 0.5, 0.7, 0.9])), min_size=1, max_size=14),
)
def test_average_precision_is_that_of_pycocotools(objects, results):
    truth = known(
        [box for (_, _, box), _ in objects],
        [image for (image, _, _), _ in objects],
        [label for (_, label, _), _ in objects],
        ignored=[ignored for _, ignored in objects],
    )
    detections = found(
        [box for (_, _, box), _ in results],
        [score for _, score in results],
        [image for (image, _, _), _ in results],
        [label for (_, label, _), _ in results],
    )
    expected = reference(truth, detections, 3)
    scores = evaluate_detections(truth, detections, 3)
    assert scores.average_precisions == pytest.approx({k: v for k, v in expected.items() if v >= 0}, abs=1e-12)


def test_many_detections_of_an_image_are_cut_as_in_pycocotools():
    rng = np.random.default_rng(0)
    boxes = np.column_stack([rng.uniform(0, 90, (150, 2)), rng.uniform(5, 10, (150, 2))])
    truth = known((boxes[:40] + rng.normal(0, 0.5, (40, 4))).tolist())
    detections = found(boxes, rng.uniform(0, 1, 150))
    expected = reference(truth, detections, 1)
    assert evaluate_detections(truth, detections, 1).average_precisions == pytest.approx(expected)
    assert len(evaluate_detections(truth, detections, 1).matches[0].scores) == 100


# ---- intervals ---------------------------------------------------------------------------------------


def drawn(n: int, seed: int = 0) -> tuple[KnownObjects, ScoredBoxes]:
    """One object in each image, found with a probability of 0.7, and a wrong detection with 0.5."""
    rng = np.random.default_rng(seed)
    hit, wrong = np.flatnonzero(rng.random(n) < 0.7), np.flatnonzero(rng.random(n) < 0.5)
    box, other = (0, 0, 10, 10), (50, 50, 10, 10)
    truth = known([box] * n, images=list(range(n)))
    boxes = [box] * len(hit) + [other] * len(wrong)
    return truth, found(boxes, rng.random(len(boxes)), images=[*hit.tolist(), *wrong.tolist()])


def test_a_draw_counts_images_as_if_they_were_repeated():
    truth, detections = drawn(6)
    times = np.array([2, 0, 1, 1, 0, 3])
    copies = np.repeat(np.arange(6), times).tolist()
    objects = [(new, row) for new, old in enumerate(copies) for row in np.flatnonzero(truth.images == old)]
    results = [(new, row) for new, old in enumerate(copies) for row in np.flatnonzero(detections.images == old)]
    repeated = evaluate_detections(
        known([truth.boxes[row] for _, row in objects], [new for new, _ in objects]),
        found(*([array[row] for _, row in results] for array in (detections.boxes, detections.scores)),
              [new for new, _ in results]),
        len(copies),
    )  # fmt: skip
    weighted = evaluate_detections(truth, detections, 6).matches[0].average_precision(times.astype(float))
    assert weighted == pytest.approx(repeated.mean_average_precision)


def test_intervals_contain_the_value_and_shrink_with_the_images():
    widths = []
    for n in (50, 200):
        scores = evaluate_detections(*drawn(n), n)
        intervals = scores.intervals(0.2, resamples=200)
        values = {"mAP": scores.mean_average_precision, **scores.at(0.2)._asdict()}
        assert all(low < values[name] < high for name, (low, high) in intervals.items())
        assert scores.intervals(0.2, resamples=200) == intervals
        widths.append({name: high - low for name, (low, high) in intervals.items()})
    assert all(widths[1][name] < 0.7 * widths[0][name] for name in widths[0])
    assert all(np.isnan(each.low) for each in evaluate_detections(*drawn(1, 3), 1).intervals(0.5).values())
