"""SSD: anchors and decoding against loops that follow MediaPipe's calculators, and the pretrained detector."""

import math

import numpy as np
import pytest

from helpers.features import regions
from helpers.images import reading, samples
from helpers.networks import boxes, ssd
from tests.unit.test_boxes import slow_suppress


def slow_anchors(size=300, strides=(16, 32, 64, 128, 256, 512), low=0.2, high=0.95):
    """``SsdAnchorsCalculator`` with the options of MediaPipe's detector: (center x, center y, width, height)."""

    def scale_of(layer):
        return low + (high - low) * layer / (len(strides) - 1)

    found = []
    for layer, stride in enumerate(strides):
        scale = scale_of(layer)
        if layer == 0:
            shapes = [(1.0, 0.1), (2.0, scale), (0.5, scale)]
        else:
            following = 1.0 if layer == len(strides) - 1 else scale_of(layer + 1)
            shapes = [(ratio, scale) for ratio in (1.0, 2.0, 0.5, 3.0, 0.3333)] + [(1.0, math.sqrt(scale * following))]
        cells = math.ceil(size / stride)
        for y in range(cells):
            for x in range(cells):
                for ratio, side in shapes:
                    root = math.sqrt(ratio)
                    found.append(((x + 0.5) / cells, (y + 0.5) / cells, side * root, side / root))
    return found


def slow_decode(encoded, logits, width, height, threshold=0.5, max_iou=0.5, size=300):
    """(boxes, classes, scores) of one image from the formula of SSD, box by box."""
    found, classes, scores = [], [], []
    for (dy, dx, dh, dw), values, (x, y, w, h) in zip(encoded, logits, slow_anchors(size), strict=True):
        center_x, center_y = dx / 10 * w + x, dy / 10 * h + y
        box_w, box_h = math.exp(dw / 5) * w, math.exp(dh / 5) * h
        left, right = (min(max(edge, 0), 1) * width for edge in (center_x - box_w / 2, center_x + box_w / 2))
        top, bottom = (min(max(edge, 0), 1) * height for edge in (center_y - box_h / 2, center_y + box_h / 2))
        for number, value in enumerate(values[1:]):
            if (score := 1 / (1 + math.exp(-value))) >= threshold:
                found.append((left, top, right - left, bottom - top))
                classes.append(number)
                scores.append(score)
    kept = slow_suppress(found, scores, classes, max_iou)
    return [[values[row] for row in kept] for values in (found, classes, scores)]


def test_anchors_are_those_of_mediapipe():
    anchors = ssd.AnchorGrid().anchors()
    assert anchors.shape == (1917, 4) and anchors.dtype == np.float32
    assert np.abs(anchors - slow_anchors()).max() < 1e-6


def test_every_layer_without_the_reduced_one():
    anchors = ssd.AnchorGrid(64, (16, 32), 0.2, 0.6, (1.0, 4.0), reduce_lowest=False).anchors()
    assert len(anchors) == (16 + 4) * 3
    assert anchors[:3] == pytest.approx(
        np.array([[0.125, 0.125, 0.2, 0.2], [0.125, 0.125, 0.4, 0.1], [0.125, 0.125, 0.12**0.5, 0.12**0.5]])
    )
    assert anchors[-1] == pytest.approx(np.array([0.75, 0.75, 0.6**0.5, 0.6**0.5]))


def test_decoding_agrees_with_a_loop():
    random = np.random.default_rng(0)
    anchors = ssd.AnchorGrid().anchors()
    encoded = random.normal(0, 3, (len(anchors), 4)).astype(np.float32)
    logits = random.normal(-4, 4, (len(anchors), 4)).astype(np.float32)
    boxes, scores = ssd.decode(encoded, logits, anchors)
    for row, (x, y, w, h) in enumerate(anchors.astype(float)):
        dy, dx, dh, dw = encoded[row].astype(float)
        wide, high = math.exp(dw / 5) * w, math.exp(dh / 5) * h
        expected = [dx / 10 * w + x - wide / 2, dy / 10 * h + y - high / 2, wide, high]
        assert boxes[row] * 300 == pytest.approx(np.array(expected) * 300, abs=1e-3)
        assert scores[row] == pytest.approx(
            [1 / (1 + math.exp(-value)) for value in logits[row, 1:].tolist()], abs=1e-6
        )


def test_the_sigmoid_of_large_numbers():
    assert ssd.sigmoid(np.array([-1e4, -2.0, 0.0, 2.0, 1e4], np.float32)) == pytest.approx(
        [0, 1 / (1 + math.exp(2)), 0.5, 1 / (1 + math.exp(-2)), 1], abs=1e-6
    )


@pytest.mark.parametrize("size", [300, regions.REGION_INPUT])
def test_detections_agree_with_a_slow_decoder(detector, size):
    detector = detector if size == 300 else regions.pretrained_detector(size)
    images = samples.photos()
    pixels = [reading.read_image(path) for path in images.paths[:: len(images) // 12]]
    assert detector.prepare(pixels[0]).pixels.shape == (size, size, 3)
    found = detector.detect(pixels, threshold=0.1)
    assert sum(map(len, found)) >= 20
    for image, outputs, one in zip(
        pixels, detector.outputs([detector.prepare(image) for image in pixels]), found, strict=True
    ):
        boxes, classes, scores = slow_decode(*outputs, image.shape[1], image.shape[0], threshold=0.1, size=size)
        assert one.classes.tolist() == classes
        assert np.abs(one.boxes - np.array(boxes).reshape(-1, 4)).max(initial=0) < 1e-3
        assert one.scores == pytest.approx(scores, abs=1e-5)


def test_an_image_is_computed_alone_as_in_a_batch(detector):
    images = samples.photos()
    pixels = [reading.read_image(path) for path in images.paths[:3]]
    alone = [detector.detect([image], 0.1)[0].boxes for image in pixels]
    assert all(np.array_equal(a, b.boxes) for a, b in zip(alone, detector.detect(pixels, 0.1), strict=True))


@pytest.mark.parametrize("shape", [(20, 20), (1, 1), (3, 400)])
def test_a_small_image(detector, shape):
    noise = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    found = detector.detect([noise], 0.01)[0]
    assert len(found) > 0
    ends = found.boxes[:, :2] + found.boxes[:, 2:]
    assert (found.boxes[:, :2] >= 0).all() and (ends <= np.array(shape[::-1]) + 1e-3).all()


def test_thresholds_of_classes(detector):
    path = next(path for path in samples.photos().paths if path.parent.name == "mammals")
    image = reading.read_image(path)
    everything = detector.detect([image], 0.05)[0]
    best = everything.names[0]
    only = detector.detect([image], {best: 0.05})[0]
    assert (
        set(only.names) == {best}
        and only.scores.tolist() == everything.scores[everything.classes == only.classes[0]].tolist()
    )
    assert len(detector.detect([image], {best: 1.0})[0]) == 0
    assert len(detector.detect([image], 0.05, limit=1)[0]) == 1
    with pytest.raises(ValueError, match="ssd-mobilenetv2 has no class Giraffe; it has Bicycle, Boot"):
        detector.detect([image], {"Giraffe": 0.5})
    with pytest.raises(ValueError, match="more than 0 and at most 1, got 50"):
        detector.detect([image], 50)
    with pytest.raises(ValueError, match="limit must be at least 1"):
        detector.detect([image], limit=0)


def test_a_smaller_input_finds_large_objects_too(detector):
    """The layers that name the number of anchors are changed for another size, and nothing else."""
    small = regions.pretrained_detector(192)
    assert small.fingerprint != detector.fingerprint and small.class_names == detector.class_names
    images = samples.photos()
    images = images.subset(range(0, len(images), 3))
    pairs = zip(
        regions.detect(images, detector, threshold=0.6), regions.detect(images, small, threshold=0.3), strict=True
    )
    overlaps = [boxes.iou(one.boxes[:1], other.boxes).max(initial=0) for one, other in pairs if len(one)]
    assert len(overlaps) >= 6 and min(overlaps) > 0.5
