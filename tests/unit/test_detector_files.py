"""Detectors in files: small networks made here, which score three fixed boxes by their mean red, green and blue."""

import numpy as np
import openvino
import pytest
from openvino import opset13 as ops

from helpers.networks import detectors
from helpers.networks.detector_files import DetectorFileError, read_labels

NAMES = ("red", "green", "blue")
SIDE = 64
#: Boxes of the networks, x, y, width, height in pixels of the input.
BOXES = ((8, 20, 16, 24), (40, 24, 20, 16), (0, 0, 64, 12))


def centers():
    """float32 (3, 4): center x and y, width and height of `BOXES`."""
    found = np.array(BOXES, np.float32)
    return np.hstack([found[:, :2] + found[:, 2:] / 2, found[:, 2:]])


def means(images):
    """The mean channels of the boxes: (1, 3 boxes, 3 channels), as the network gets them."""
    rows = []
    for x, y, w, h in BOXES:
        start, stop, step, axes = (np.array(each, np.int64) for each in ((y, x), (y + h, x + w), (1, 1), (2, 3)))
        part = ops.slice(images, start, stop, step, axes)
        rows.append(ops.unsqueeze(ops.reduce_mean(part, np.array([2, 3])), 1))
    return ops.concat(rows, 1)


def columns(images):
    boxes = np.ascontiguousarray(centers().T[None])
    return {"output0": ops.concat([boxes, ops.transpose(means(images), np.array([0, 2, 1]))], 1)}


def rows(images):
    """The second box contains no object."""
    present = np.array([1.0, 0.25, 1.0], np.float32).reshape(1, 3, 1)
    return {"output": ops.concat([centers()[None], present, means(images)], 2)}


def detr_boxes(images):
    """Constant, but an output of the network has to depend on its input."""
    nothing = ops.multiply(ops.slice(means(images), [0], [1], [1], [2]), np.float32(0))
    return ops.add(nothing, centers()[None] / SIDE)


def sigmoid(images):
    logits = ops.multiply(ops.subtract(means(images), np.float32(0.5)), np.float32(10))
    return {"logits": logits, "pred_boxes": detr_boxes(images)}


def softmax(images):
    """Logits of zero for no object, by ImageNet's normalization positive for bright channels only."""
    none = np.zeros((1, 3, 1), np.float32)
    return {
        "pred_boxes": detr_boxes(images),
        "logits": ops.concat([ops.multiply(means(images), np.float32(3)), none], 2),
    }


def save(path, build, shape=(1, 3, SIDE, SIDE), more=()):
    """Write a network in OpenVINO's format, with the labels beside it."""
    images = ops.parameter(list(shape), np.float32, name="images")
    images.output(0).set_names({"images"})
    results = []
    for name, node in build(images).items():
        node.output(0).set_names({name})
        results.append(ops.result(node))
    openvino.save_model(openvino.Model(results, [images, *more]), path / "model.xml", compress_to_fp16=False)
    (path / "labels.txt").write_text("\n".join(NAMES) + "\n")
    return path / "model.xml", path / "labels.txt"


def scene(height, width, box, color):
    """A black image with a rectangle."""
    image = np.zeros((height, width, 3), np.uint8)
    x, y, w, h = box
    image[y : y + h, x : x + w] = color
    return image


@pytest.mark.parametrize("build", [columns, rows, sigmoid, softmax])
def test_a_box_is_found_in_each_form(tmp_path, build):
    detector = detectors.from_file(*save(tmp_path, build))
    assert detector.name == "model.xml" and detector.class_names == NAMES and detector.width == SIDE
    images = [scene(SIDE, SIDE, BOXES[0], (0, 255, 0)), scene(SIDE, SIDE, BOXES[2], (0, 0, 255))]
    green, blue = detector.detect(images, 0.8)
    assert green.names == ["green"] and green.boxes == pytest.approx(np.array([BOXES[0]]), abs=1e-3)
    assert blue.names == ["blue"] and blue.boxes == pytest.approx(np.array([BOXES[2]]), abs=1e-3)


def test_the_score_of_an_object_is_multiplied(tmp_path):
    detector = detectors.from_file(*save(tmp_path, rows))
    image = scene(SIDE, SIDE, BOXES[1], (255, 0, 204))
    assert len(detector.detect([image], 0.3)[0]) == 0
    found = detector.detect([image], 0.15)[0]
    assert found.names == ["red", "blue"] and found.scores == pytest.approx([0.25, 0.2], abs=1e-5)


def test_the_scores_of_softmax(tmp_path):
    detector = detectors.from_file(*save(tmp_path, softmax))
    found = detector.detect([np.full((SIDE, SIDE, 3), 255, np.uint8)], 0.01)[0]
    logits = 3 * (255 - np.array([123.675, 116.28, 103.53])) / np.array([58.395, 57.12, 57.375])
    expected = np.exp(logits) / (np.exp(logits).sum() + 1)
    assert found.scores.reshape(3, -1)[:, 0] == pytest.approx(sorted(expected, reverse=True), rel=1e-3)
    assert found.names[::3] == ["blue", "green", "red"]


@pytest.mark.parametrize("build", [columns, rows])
def test_yolo_keeps_the_aspect_ratio(tmp_path, build):
    """128 × 256 pixels become 32 × 64, 16 below the upper border."""
    detector = detectors.from_file(*save(tmp_path, build))
    found = detector.detect([scene(128, 256, (32, 16, 64, 96), (255, 0, 0))], 0.8)[0]
    assert found.names == ["red"] and found.boxes == pytest.approx(np.array([[32, 16, 64, 96]]), abs=1e-3)


def test_a_box_in_the_border_is_left_out(tmp_path):
    """The third box is above the image, where the input is gray: 114 of 255."""
    detector = detectors.from_file(*save(tmp_path, columns))
    black = np.zeros((128, 256, 3), np.uint8)
    assert detector.outputs([detector.prepare(black)])[0][0][4:, 2] == pytest.approx([114 / 255] * 3)
    assert len(detector.detect([black], 0.4)[0]) == 0
    found = detector.detect([np.full((128, 256, 3), 255, np.uint8)], 0.4)[0]
    assert len(found) == 6 and set(found.boxes[:, 0].tolist()) == {32.0, 160.0}


def test_detr_ignores_the_aspect_ratio(tmp_path):
    detector = detectors.from_file(*save(tmp_path, sigmoid))
    found = detector.detect([scene(128, 256, (32, 40, 64, 48), (255, 0, 0))], 0.8)[0]
    assert found.names == ["red"] and found.boxes == pytest.approx(np.array([[32, 40, 64, 48]]), abs=1e-3)


def test_the_mask_of_detr_is_filled(tmp_path):
    mask = ops.parameter([-1, -1, -1], np.int64, name="pixel_mask")
    mask.output(0).set_names({"pixel_mask"})

    def masked(images):
        visible = ops.convert(ops.reduce_mean(ops.convert(mask, "f32"), np.array([0, 1, 2])), "f32")
        found = sigmoid(images)
        return {"logits": ops.multiply(found["logits"], visible), "pred_boxes": found["pred_boxes"]}

    detector = detectors.from_file(*save(tmp_path, masked, more=[mask]))
    assert detector.detect([scene(SIDE, SIDE, BOXES[0], (0, 255, 0))], 0.8)[0].names == ["green"]


def test_a_network_of_any_size(tmp_path):
    files = save(tmp_path, columns, (-1, 3, -1, -1))
    assert detectors.from_file(*files).height == 640
    detector = detectors.from_file(*files, size=SIDE)
    assert detector.detect([scene(SIDE, SIDE, BOXES[1], (0, 255, 0))], 0.8)[0].names == ["green"]


def test_an_input_with_channels_last(tmp_path):
    def last(images):
        return columns(ops.transpose(images, np.array([0, 3, 1, 2])))

    detector = detectors.from_file(*save(tmp_path, last, (1, SIDE, SIDE, 3)))
    assert detector.detect([scene(SIDE, SIDE, BOXES[1], (255, 0, 0))], 0.8)[0].names == ["red"]


def test_a_network_in_half_precision(tmp_path):
    half = ops.parameter([1, 3, SIDE, SIDE], np.float16, name="images")
    found = columns(ops.convert(half, "f32"))["output0"]
    result = ops.convert(found, "f16")
    result.output(0).set_names({"output0"})
    openvino.save_model(openvino.Model([ops.result(result)], [half]), tmp_path / "model.xml")
    (tmp_path / "labels.txt").write_text("\n".join(NAMES))
    detector = detectors.from_file(tmp_path / "model.xml", tmp_path / "labels.txt")
    found = detector.detect([scene(SIDE, SIDE, BOXES[1], (255, 0, 0))], 0.8)[0]
    assert found.names == ["red"] and found.boxes == pytest.approx(np.array([BOXES[1]]), abs=0.05)


def test_an_onnx_file_agrees_with_onnx(tmp_path):
    """The reference implementation is `onnx.reference.ReferenceEvaluator`."""
    import onnx
    from onnx.reference import ReferenceEvaluator

    random = np.random.default_rng(0)
    weights = {"kernel": random.normal(0, 0.3, (7, 3, 8, 8)), "bias": np.array([40, 30, 30, 20, 0.5, 0.5, 0.5])}
    weights = {name: values.astype(np.float32) for name, values in weights.items()} | {"shape": np.array([0, 7, -1])}
    graph = onnx.helper.make_graph(
        [
            onnx.helper.make_node("Conv", ["images", "kernel", "bias"], ["map"], strides=[8, 8]),
            onnx.helper.make_node("Reshape", ["map", "shape"], ["output0"]),
        ],
        "small",
        [onnx.helper.make_tensor_value_info("images", onnx.TensorProto.FLOAT, ["batch", 3, "height", "width"])],
        [onnx.helper.make_tensor_value_info("output0", onnx.TensorProto.FLOAT, ["batch", 7, "anchors"])],
        [onnx.numpy_helper.from_array(values, name) for name, values in weights.items()],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, tmp_path / "model.onnx")
    (tmp_path / "labels.txt").write_text("a\nb\nc")
    detector = detectors.from_file(tmp_path / "model.onnx", tmp_path / "labels.txt", size=SIDE)
    image = random.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    given = image.transpose(2, 0, 1)[None].astype(np.float32) / 255
    assert detector.outputs([detector.prepare(image)])[0][0] == pytest.approx(
        ReferenceEvaluator(model).run(None, {"images": given})[0][0], abs=1e-3
    )
    assert len(detector.detect([image], 0.5)[0]) > 0


# ---- wrong files --------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 4, 80])
def test_labels_of_another_count(tmp_path, count):
    path, labels = save(tmp_path, columns)
    labels.write_text("\n".join(f"class {number}" for number in range(count)))
    with pytest.raises(DetectorFileError) as error:
        detectors.from_file(path, labels)
    message = str(error.value)
    assert "output0 1 × 7 × 3" in message and f"With {count} labels" in message and "labels file" in message
    assert f"1 × {4 + count} × n or 1 × n × {5 + count}" in message and "pred_boxes 1 × n × 4" in message


def test_an_output_of_another_form(tmp_path):
    with pytest.raises(DetectorFileError, match=r"has the outputs scores 1 × 3 × 3, sum 1 × 3\. With 3 labels"):
        detectors.from_file(
            *save(tmp_path, lambda images: {"scores": means(images), "sum": ops.reduce_sum(means(images), 1)})
        )


def test_an_output_of_several_forms(tmp_path):
    """7 numbers for each of 8 boxes, or 8 numbers for each of 7."""

    def square(images):
        return {"output0": ops.reduce_mean(ops.broadcast(images, [1, 3, 7, 8]), 1)}

    with pytest.raises(DetectorFileError, match=r"fit several forms \(YOLO, boxes in columns, YOLO, boxes in rows\)"):
        detectors.from_file(*save(tmp_path, square, (1, 3, 1, 1)))


def test_an_input_of_another_form(tmp_path):
    def one_channel(images):
        return columns(ops.concat([images] * 3, 1))

    with pytest.raises(DetectorFileError, match="must have one input of images, .*; it has images 1 × 1 × 64 × 64"):
        detectors.from_file(*save(tmp_path, one_channel, (1, 1, SIDE, SIDE)))


def test_another_size_than_the_network_has(tmp_path):
    with pytest.raises(DetectorFileError, match="takes images of 64 × 64 pixels, not of 320 × 320"):
        detectors.from_file(*save(tmp_path, columns), size=320)


def test_files_that_are_no_detectors(tmp_path):
    path, labels = save(tmp_path, columns)
    with pytest.raises(DetectorFileError, match="absent.onnx is missing"):
        detectors.from_file(tmp_path / "absent.onnx", labels)
    (tmp_path / "text.onnx").write_text("no network")
    with pytest.raises(DetectorFileError, match="text.onnx is not an ONNX file"):
        detectors.from_file(tmp_path / "text.onnx", labels)
    (tmp_path / "half.onnx").write_bytes(b"\x08\x08\x12")
    with pytest.raises(DetectorFileError, match="half.onnx is damaged"):
        detectors.from_file(tmp_path / "half.onnx", labels)
    with pytest.raises(DetectorFileError, match=r"must be an ONNX file \(.onnx\) or one of OpenVINO"):
        detectors.from_file(labels, labels)
    path.with_suffix(".bin").write_bytes(b"")
    with pytest.raises(DetectorFileError, match="model.xml is damaged, or a part of it is missing"):
        detectors.from_file(path, labels)


def test_labels_that_cannot_be_read(tmp_path):
    with pytest.raises(DetectorFileError, match="cannot be read"):
        read_labels(tmp_path / "absent.txt")
    (tmp_path / "labels.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(DetectorFileError, match="cannot be read"):
        read_labels(tmp_path / "labels.txt")
    for text in ("", "\n\n", "red\n\nblue"):
        (tmp_path / "labels.txt").write_text(text)
        with pytest.raises(DetectorFileError, match="one name in each line"):
            read_labels(tmp_path / "labels.txt")
    (tmp_path / "labels.txt").write_text("red \r\nlight blue\r\n\r\n")
    assert read_labels(tmp_path / "labels.txt") == ("red", "light blue")
