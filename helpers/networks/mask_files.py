"""Instance segmentation in files: networks in the form that torchvision exports, such as Mask R-CNN (He et al. 2017).

The input is one image, 3 × height × width or 1 × 3 × height × width, RGB in 0 … 1. The outputs are ``boxes`` (n, 4), x
and y of two corners in pixels, ``labels`` (n,), in which 0 is the background, ``scores`` (n,), and ``masks`` (n, 1,
height, width), the probability of each pixel.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from helpers.images import reading
from helpers.networks import boxes
from helpers.networks.compiled import openvino_package, reason
from helpers.networks.detector_files import DetectorFileError, read_labels
from helpers.networks.detectors import Detections
from helpers.networks.onnx_files import axes_text, read_graph

OUTPUTS = ("boxes", "labels", "scores", "masks")
#: From this probability, a pixel belongs to the object.
INSIDE = 0.5


@dataclass(frozen=True, eq=False)
class MaskDetections(Detections):
    """The objects that were found in one image, best score first.

    masks : bool (n, height, width).
    """

    masks: np.ndarray


class MaskNetwork:
    """A network in an ONNX file that finds objects and their masks, computed by OpenVINO.

    labels : text file with the names of the classes, without the background, one in each line.

    Raises `DetectorFileError`: a file is missing or damaged, or the network has other inputs or outputs, or OpenVINO
    cannot compile it.
    """

    def __init__(self, path: str | Path, labels: str | Path):
        self.name, self.class_names = Path(path).name, read_labels(labels)
        graph = read_graph(Path(path), DetectorFileError)
        found = {name for one in graph.outputs for name in one.names}
        if missing := [name for name in OUTPUTS if name not in found]:
            raise DetectorFileError(
                f"{path} must have the outputs {', '.join(OUTPUTS)}; it has {', '.join(sorted(found))}, without "
                f"{', '.join(missing)}"
            )
        openvino = openvino_package()
        shape = graph.inputs[0].get_partial_shape() if len(graph.inputs) == 1 else openvino.PartialShape([])
        forms = (openvino.PartialShape([3, -1, -1]), openvino.PartialShape([1, 3, -1, -1]))
        if not any(shape.rank == form.rank and shape.compatible(form) for form in forms):
            raise DetectorFileError(
                f"{path} must have one input, 3 × height × width or 1 × 3 × height × width; it has "
                f"{', '.join(axes_text(one.get_partial_shape()) for one in graph.inputs)}"
            )
        self._batched = len(shape) == 4
        sides = list(shape)[-2:]
        self._size = tuple(axis.get_length() for axis in sides) if all(axis.is_static for axis in sides) else None
        try:
            self._network = openvino.Core().compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        except RuntimeError as error:  # OpenVINO's
            raise DetectorFileError(f"{path} cannot be compiled by OpenVINO: {reason(error)}") from error

    def detect(self, image: np.ndarray, threshold: float = 0.5) -> MaskDetections:
        """Find the objects of an image, uint8 (height, width, 3) RGB, whose score is at least ``threshold``."""
        import cv2

        height, width = image.shape[:2]
        given = image if self._size is None else reading.resize(image, (self._size[0], self._size[1]))
        pixels = given.transpose(2, 0, 1).astype(np.float32) / 255
        results = self._network(pixels[None] if self._batched else pixels)
        corners, labels, scores, masks = (np.asarray(results[name]) for name in OUTPUTS)
        rows = np.flatnonzero((scores >= threshold) & (labels > 0))
        rows = rows[np.argsort(-scores[rows], kind="stable")]
        if len(rows) and labels[rows].max() > len(self.class_names):
            raise DetectorFileError(
                f"{self.name} returned class {labels[rows].max()}, but the labels file has {len(self.class_names)}. "
                "Give the file with the labels of this network."
            )
        found = np.hstack([corners[rows, :2], corners[rows, 2:] - corners[rows, :2]])
        found = found * np.array([width / given.shape[1], height / given.shape[0]] * 2)
        inside = [cv2.resize(mask.astype(np.float32), (width, height)) >= INSIDE for mask in masks[rows, 0]]
        return MaskDetections(
            boxes.clip(found, width, height), labels[rows].astype(np.int64) - 1, scores[rows].astype(np.float32),
            self.class_names, np.array(inside, bool).reshape(-1, height, width),
        )  # fmt: skip
