"""Face detection, alignment and embedding with dlib (D. King, Dlib-ml: a machine learning toolkit, JMLR 2009).

Networks trained on ImageNet distinguish objects, not people. dlib has three parts:

1. a detector of frontal faces: a sliding window over histograms of gradients (Dalal & Triggs 2005; King 2015),
2. five landmarks by regression trees (Kazemi & Sullivan 2014): the corners of the eyes and the base of the nose,
3. a residual network of 29 layers that maps an aligned face to 128 values, trained on 3 million images of 7,485 people
   so that images of one person are within a distance of 0.6. Its training set excludes LFW's people. OpenVINO computes
   it, see `helpers.networks.face_network`.

Weights and sources: https://github.com/davisking/dlib-models, public domain (CC0). The package with these weights also
contains a model of 68 landmarks, whose license is restricted; it is not used.
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType

import numpy as np

from helpers import extras
from helpers.features.extractor import FeatureExtractor, check_rgb
from helpers.networks.compiled import CompiledNetwork
from helpers.networks.face_network import DIM, SIZE, face_network
from helpers.networks.weights import WeightsUnavailable

#: The two files and their checksums; another model would change the vectors.
LANDMARKS_FILE = "shape_predictor_5_face_landmarks.dat"
NETWORK_FILE = "dlib_face_recognition_resnet_model_v1.dat"
SHA256 = {
    LANDMARKS_FILE: "c4b1e9804792707d3a405c2c16a80a20269e6675021f64a41d30fffafbc41888",
    NETWORK_FILE: "55533b28a95800a551ba546ba62fe69625c7e95a7061c338adffead08719da30",
}

#: Margin around an aligned face, relative to the face, as in the network's training.
MARGIN = 0.25

#: Passes of the detector, until one finds a face: (number of times the image is doubled, minimum score). The first
#: finds faces of about 80 pixels and more, the second also smaller (40 pixels) and less certain ones. At 500 pixels a
#: side, the first misses 12 of LFW's 1,943 images, and the second finds the right person in 10 of these. In 105 images
#: of objects, the first finds no face, the second 3, one of them a duck's.
PASSES = ((0, 0.0), (1, -0.25))

#: Rules for an image with several faces, see `choose`.
SEVERAL = ("central", "largest")


class NoFaceWarning(UserWarning):
    """No face was found in some images; the message lists them."""


@dataclass(frozen=True, eq=False)
class Face:
    """A face in an image; x runs to the right, y downwards, in pixels.

    box : (left, top, right, bottom); may exceed the image.
    landmarks : int64 (5, 2), x and y: outer and inner corner of the right-hand eye in the image, the same of the other
        eye, base of the nose.
    score : confidence of the detector; its usual threshold is 0, and 1 or more is certain.
    """

    box: tuple[int, int, int, int]
    landmarks: np.ndarray
    score: float

    @property
    def center(self) -> tuple[float, float]:
        left, top, right, bottom = self.box
        return (left + right) / 2, (top + bottom) / 2

    @property
    def area(self) -> int:
        left, top, right, bottom = self.box
        return (right - left) * (bottom - top)


def find_faces(image: np.ndarray) -> list[Face]:
    """Find frontal faces by `PASSES`, sorted by decreasing score.

    image : uint8 (height, width, 3) RGB, upright; heads may be tilted by about 30 degrees.
    """
    image = check_rgb(image)
    landmarks = _landmarks()
    for doublings, min_score in PASSES:
        # The detector is not thread-safe.
        with _DETECTOR_LOCK:
            boxes, scores, _ = _detector().run(image, doublings, min_score)
        if len(boxes):
            shapes = [landmarks(image, box) for box in boxes]
            points = [np.array([(point.x, point.y) for point in shape.parts()], np.int64) for shape in shapes]
            corners = [(box.left(), box.top(), box.right(), box.bottom()) for box in boxes]
            faces = map(Face, corners, points, map(float, scores))
            return sorted(faces, key=lambda face: (-face.score, face.box))
    return []


def choose(faces: Sequence[Face], shape: Sequence[int], several: str = "central") -> Face:
    """Choose the main face of an image of this shape (height, width).

    several : ``central``, the face nearest to the center of the image, or ``largest``. On LFW, whose images are
        centered on the person, top-1 is 0.997 with the central, 0.992 with the largest and 0.987 with the most
        certain face.
    """
    if several not in SEVERAL:
        raise ValueError(f"several must be one of {', '.join(SEVERAL)}; got {several!r}")
    if not faces:
        raise ValueError("there is no face to choose from")
    if several == "largest":
        return max(faces, key=lambda face: face.area)
    height, width = shape[:2]
    return min(faces, key=lambda face: np.hypot(face.center[0] - width / 2, face.center[1] - height / 2))


def align(image: np.ndarray, face: Face) -> np.ndarray:
    """Rotate and crop a face to the network's input: uint8 (150, 150, 3), black outside the image."""
    image, dlib = check_rgb(image), _dlib()
    points = dlib.points([dlib.point(int(x), int(y)) for x, y in face.landmarks])
    return dlib.get_face_chip(image, dlib.full_object_detection(dlib.rectangle(*face.box), points), SIZE, MARGIN)


def without_face(vectors: np.ndarray) -> np.ndarray:
    """Which vectors (n, 128) are of images without a face: bool (n,)."""
    return np.logical_not(np.asarray(vectors).any(axis=1))


class FaceExtractor(FeatureExtractor):
    """dlib's embedding of the main face of an image.

    An image without a face gets a zero vector, whose cosine with every vector is 0, so it counts as not recognized. One
    `NoFaceWarning` per call of ``extract`` lists these images, and `without_face` finds them later. If dlib or its
    models are missing or damaged, `WeightsUnavailable` is raised.

    size : side in pixels of the square to which the image is padded. 500 finds faces of at least a twelfth of the
        side, 250 those of at least a sixth, in about a seventh less time. On LFW and AT&T, whose faces are large, the
        results differ in an image or two.
    several : rule for several faces, see `choose`.
    normalize : whether to normalize the vectors. dlib's documentation compares raw ones by Euclidean distance, with a
        threshold of 0.6. LFW's top-1 is 0.997 either way.
    """

    name = "dlib-face"
    dim = DIM
    weights = "dlib-faces"
    resize_rule = "pad"
    zeros_warning = NoFaceWarning, "no face was found"

    def __init__(self, size: int = 500, several: str = "central", normalize: bool = True, batch_size: int = 16):
        if several not in SEVERAL:
            raise ValueError(f"several must be one of {', '.join(SEVERAL)}; got {several!r}")
        _dlib()
        model_files()
        self.size, self.several, self.normalize, self.batch_size = size, several, normalize, batch_size
        passes = [list(one) for one in PASSES]  # "looks" as in existing fingerprints
        self.settings = {"several": several, "looks": passes, "chip": [SIZE, MARGIN], "weights": dict(SHA256)}

    def prepare(self) -> None:
        import joblib  # noqa: F401

        _landmarks()
        _network()

    def compute(self, pixels: np.ndarray) -> np.ndarray:
        """uint8 (b, size, size, 3) → float32 (b, 128); zeros where there is no face. Uses all cores."""
        found = {row: face for row, face in enumerate(self._aligned(pixels)) if face is not None}
        vectors = np.zeros((len(pixels), DIM), np.float32)
        if found:
            vectors[list(found)] = _network()(np.stack(list(found.values())))
        return vectors

    def _aligned(self, pixels: np.ndarray) -> list[np.ndarray | None]:
        """The aligned face of each image, see `_aligned_faces`."""
        from joblib import Parallel, cpu_count, delayed

        # dlib uses one core and holds Python's lock, so processes share the work.
        parts = np.array_split(pixels, max(1, min(cpu_count(), len(pixels) // 4)))
        if len(parts) == 1:
            return _aligned_faces(pixels, self.several)
        # max_nbytes=None: joblib would else copy arrays to disk, where they stay if a process is killed.
        jobs = (delayed(_aligned_faces)(part, self.several) for part in parts)
        return [face for part in Parallel(n_jobs=-1, max_nbytes=None)(jobs) for face in part]


def _aligned_faces(pixels: np.ndarray, several: str) -> list[np.ndarray | None]:
    """uint8 (b, height, width, 3) → the main face of each image, uint8 (150, 150, 3), or None without a face."""
    found = [find_faces(image) for image in pixels]
    return [
        align(image, choose(faces, image.shape, several)) if faces else None
        for image, faces in zip(pixels, found, strict=True)
    ]


# ---- dlib and its models ------------------------------------------------------------------------------

_DETECTOR_LOCK = threading.Lock()


def _dlib() -> ModuleType:
    _require("dlib")
    import dlib

    return dlib


def _require(module: str) -> None:
    """Raise `WeightsUnavailable` if a module is not installed."""
    try:
        extras.require("faces", module)
    except extras.MissingExtra as error:
        raise WeightsUnavailable(str(error)) from error


@cache
def model_files() -> dict[str, Path]:
    """Paths of the two model files, whose checksums are verified once; `WeightsUnavailable` if one is wrong."""
    remedy = "pip install --force-reinstall face-recognition-models==0.3.0"
    _require("face_recognition_models")
    # Importing the package needs pkg_resources, which newer versions of setuptools lack.
    return extras.package_files("face_recognition_models", "models", SHA256, remedy, WeightsUnavailable)


@cache
def _detector():
    return _dlib().get_frontal_face_detector()


@cache
def _landmarks():
    """dlib's predictor of five landmarks, loaded once."""
    return _dlib().shape_predictor(str(model_files()[LANDMARKS_FILE]))


@cache
def _network() -> CompiledNetwork:
    """dlib's face network, computed by OpenVINO, compiled once."""
    return face_network(model_files()[NETWORK_FILE])


#: Name → factory, for `helpers.features.registry`.
EXTRACTORS = {"dlib-face": FaceExtractor}
