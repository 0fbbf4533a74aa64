"""Networks with masks in ONNX files: a small one made here, whose mask is the bright red pixels."""

from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from helpers.networks import mask_files
from helpers.networks.compiled import openvino_package
from helpers.networks.detector_files import DetectorFileError
from helpers.networks.mask_files import MaskNetwork

#: Two objects in pixels of the network's input: corners, label and score.
CORNERS = np.array([[2, 4, 10, 12], [0, 0, 20, 6]], np.float32)
LABELS, SCORES = np.array([2, 1], np.int64), np.array([0.6, 0.9], np.float32)


def save(folder, sides=("height", "width"), batch=(), names=("boxes", "labels", "scores", "masks")):
    """Write the network and its labels. Its first mask is the red channel, the second one the green channel."""
    axis = len(batch)
    constants = {"c": CORNERS, "l": LABELS, "s": SCORES, "channels": np.array([0, 1], np.int64)}
    steps = [helper.make_node("Gather", ["image", "channels"], ["rg"], axis=axis)]
    steps.append(helper.make_node("Squeeze" if batch else "Identity", ["rg", "zero"] if batch else ["rg"], ["two"]))
    steps.append(helper.make_node("Unsqueeze", ["two", "one"], [names[3]]))
    # Constants that depend on the input, because OpenVINO folds others.
    steps.append(helper.make_node("ReduceMin", ["two"], ["low"], keepdims=0))
    steps.append(helper.make_node("Mul", ["low", "nothing"], ["null"]))
    for constant, name in (("c", names[0]), ("s", names[2])):
        steps.append(helper.make_node("Add", [constant, "null"], [name]))
    steps.append(helper.make_node("Cast", ["null"], ["whole"], to=TensorProto.INT64))
    steps.append(helper.make_node("Add", ["l", "whole"], [names[1]]))
    constants |= {"zero": np.array([0], np.int64), "one": np.array([1], np.int64), "nothing": np.array(0, np.float32)}
    kinds = (TensorProto.FLOAT, TensorProto.INT64, TensorProto.FLOAT, TensorProto.FLOAT)
    shapes = ([2, 4], [2], [2], [2, 1, *sides])
    graph = helper.make_graph(
        steps, "masks",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [*batch, 3, *sides])],
        [helper.make_tensor_value_info(*each) for each in zip(names, kinds, shapes, strict=True)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, folder / "model.onnx")
    (folder / "labels.txt").write_text("cat\ndog\n")
    return folder / "model.onnx", folder / "labels.txt"


@pytest.fixture
def image():
    """Dark, uint8 (24, 32, 3), with a red and a green rectangle."""
    pixels = np.full((24, 32, 3), 40, np.uint8)
    pixels[4:12, 2:10, 0] = 250
    pixels[0:6, 0:20, 1] = 250
    return pixels


@pytest.mark.parametrize("batch", [(), (1,)])
def test_objects_have_boxes_and_masks(tmp_path, image, batch):
    found = MaskNetwork(*save(tmp_path, batch=batch)).detect(image, 0.5)
    assert found.names == ["cat", "dog"] and found.scores.tolist() == pytest.approx([0.9, 0.6])
    assert found.boxes.tolist() == [[0, 0, 20, 6], [2, 4, 8, 8]]
    assert found.masks.dtype == bool and found.masks.shape == (2, 24, 32)
    # The object with the best score is the second one of the network.
    assert (found.masks[0] == (image[..., 1] > 127)).all() and (found.masks[1] == (image[..., 0] > 127)).all()


def test_a_network_of_a_fixed_size(tmp_path, image):
    """The image has twice the width and the height of the input."""
    found = MaskNetwork(*save(tmp_path, sides=(12, 16))).detect(image, 0.8)
    assert found.names == ["cat"] and found.boxes.tolist() == [[0, 0, 32, 12]]  # clipped to the image
    assert found.masks.shape == (1, 24, 32) and (found.masks[0] == (image[..., 1] > 127)).mean() > 0.9


def test_nothing_is_found(tmp_path, image):
    found = MaskNetwork(*save(tmp_path)).detect(image, 0.95)
    assert found.names == [] and found.boxes.shape == (0, 4) and found.masks.shape == (0, 24, 32)


def test_wrong_files(tmp_path, image):
    path, labels = save(tmp_path, names=("boxes", "classes", "scores", "segments"))
    with pytest.raises(DetectorFileError, match="boxes, classes, scores, segments, without labels, masks"):
        MaskNetwork(path, labels)
    path, labels = save(tmp_path)
    labels.write_text("cat\n")
    with pytest.raises(DetectorFileError, match="returned class 2, but the labels file has 1"):
        MaskNetwork(path, labels).detect(image)
    with pytest.raises(DetectorFileError, match="absent.onnx is missing"):
        MaskNetwork(tmp_path / "absent.onnx", labels)


def test_a_network_that_openvino_cannot_compile(tmp_path, monkeypatch):
    class Core:
        def compile_model(self, *_):
            raise RuntimeError("unknown operation: Magic")

    package = SimpleNamespace(Core=Core, PartialShape=openvino_package().PartialShape)
    path, labels = save(tmp_path)
    monkeypatch.setattr(mask_files, "openvino_package", lambda: package)
    with pytest.raises(
        DetectorFileError, match=r"model\.onnx cannot be compiled by OpenVINO: unknown operation: Magic"
    ):
        MaskNetwork(path, labels)
