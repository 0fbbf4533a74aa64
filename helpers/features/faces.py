"""Faces: found, turned upright by five landmarks, and described by a network that was trained to tell people apart.

A network trained on ImageNet tells things apart; whose face it sees is what it has learned to overlook. Here the parts
of dlib (D. King, Dlib-ml: a machine learning toolkit, JMLR 2009) do what each is for:

1. a detector of frontal faces: a scanning window over histograms of gradients (Dalal & Triggs 2005; King 2015),
2. landmarks by regression trees (Kazemi & Sullivan 2014): the four corners of the eyes and the base of the nose,
3. a residual network of 29 layers that maps an aligned face to 128 numbers. It was trained on 3 million images of
   7,485 people to bring those of one person within 0.6 of each other; its maker kept LFW's people out.

Weights and sources: https://github.com/davisking/dlib-models, public domain (CC0). The package that carries them also
has a model of 68 landmarks, whose data are not free for every use; it is not used here.
"""

import hashlib
import threading
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from helpers import extras
from helpers.features.extractor import FeatureExtractor, describe_zeros
from helpers.networks.weights import WeightsUnavailable

#: What the two files must be: another model would give other vectors under the same name.
LANDMARKS_FILE = "shape_predictor_5_face_landmarks.dat"
NETWORK_FILE = "dlib_face_recognition_resnet_model_v1.dat"
SHA256 = {
    LANDMARKS_FILE: "c4b1e9804792707d3a405c2c16a80a20269e6675021f64a41d30fffafbc41888",
    NETWORK_FILE: "55533b28a95800a551ba546ba62fe69625c7e95a7061c338adffead08719da30",
}

DIM = 128
#: Side of an aligned face in pixels, and the margin around it as a part of the face: what the network was trained on.
CHIP, MARGIN = 150, 0.25

#: The detector's looks in turn, until one finds a face: (times the image is doubled, least score). The first finds
#: faces of about 80 pixels and more, the second those of half that, and doubtful ones. Measured at 500 pixels a side:
#: of LFW's 1,943 images the first misses 12, the second finds 10 of these, each time the person whose image it is;
#: among 105 images of things the first sees a face in none, the second in 3, one of them a duck's.
LOOKS = ((0, 0.0), (1, -0.25))

#: Which of several faces an image is of. See `choose`.
SEVERAL = ("central", "largest")


class NoFace(ValueError):
    """There is no face to be found in an image that must have one; the message names it."""


class NoFaceWarning(UserWarning):
    """Some images have no face that could be found; the message counts and names them."""


@dataclass(frozen=True, eq=False)
class Face:
    """A face in an image; x runs to the right, y downwards, in pixels.

    Parameters
    ----------
    box : (left, top, right, bottom); may reach beyond the image.
    landmarks : int64 (5, 2), x and y: of the eye further right in the image the outer and the inner corner, of the
        other eye the same, the base of the nose.
    score : how sure the detector is; 0 is its usual bar, 1 and more is clear.
    """

    box: tuple[int, int, int, int]
    landmarks: np.ndarray
    score: float

    @property
    def center(self) -> tuple[float, float]:
        """(x, y) of the middle of the box."""
        left, top, right, bottom = self.box
        return (left + right) / 2, (top + bottom) / 2

    @property
    def area(self) -> int:
        """Of the box, in square pixels."""
        left, top, right, bottom = self.box
        return (right - left) * (bottom - top)


def find_faces(image: np.ndarray, looks: Sequence[tuple[int, float]] = LOOKS) -> list[Face]:
    """The frontal faces in an image, surest first; an empty list if there is none.

    Parameters
    ----------
    image : uint8 (height, width, 3) RGB, upright; heads may be tilted by about 30 degrees.
    looks : see `LOOKS`; what the first fruitful one finds is returned.

    Raises
    ------
    ValueError : it is no such array.
    WeightsUnavailable : dlib or its models are missing or damaged.
    """
    image = _checked(image)
    landmarks = dlib_models()[0]
    for doublings, least in looks:
        # One detector holds the image it scans, so threads take turns.
        with _SCANNING:
            boxes, scores, _ = _detector().run(image, doublings, least)
        if len(boxes):
            shapes = [landmarks(image, box) for box in boxes]
            faces = [
                Face(
                    (box.left(), box.top(), box.right(), box.bottom()),
                    np.array([(point.x, point.y) for point in shape.parts()], dtype=np.int64),
                    float(score),
                )
                for box, shape, score in zip(boxes, shapes, scores, strict=True)
            ]
            return sorted(faces, key=lambda face: (-face.score, face.box))
    return []


def choose(faces: Sequence[Face], shape: Sequence[int], several: str = "central") -> Face:
    """The face that an image of this shape (height, width) is of.

    several :
        ``central`` — the one nearest to the middle of the image. LFW is cut that way: there top-1 is 0.997, against
        0.992 by the largest and 0.987 by the surest face;
        ``largest`` — whoever stands in front.

    Raises
    ------
    ValueError : no face, or no such rule.
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
    """uint8 (150, 150, 3): the face upright, its landmarks where the network expects them; black beyond the image."""
    image, dlib = _checked(image), _dlib()
    points = dlib.points([dlib.point(int(x), int(y)) for x, y in face.landmarks])
    return dlib.get_face_chip(image, dlib.full_object_detection(dlib.rectangle(*face.box), points), CHIP, MARGIN)


def without_face(vectors: np.ndarray) -> np.ndarray:
    """bool (n,): which vectors (n, 128) are those of images in which no face was found."""
    return ~np.asarray(vectors).any(axis=1)


class FaceExtractor(FeatureExtractor):
    """dlib's face network on the face that an image is of.

    An image without a face gets the vector of zeros, which is like nobody: its cosine with every vector is 0, also
    with that of another such image. So it counts as not recognized instead of being left out, and
    `without_face` tells it apart later; each call of ``extract`` counts and names such images in one
    `NoFaceWarning`.

    Parameters
    ----------
    size : side in pixels of the square in which faces are looked for; the image is padded, as a squashed face is
        another face. 500 finds faces from a twelfth of the side, 250 from a sixth in about a seventh less time. On LFW
        and AT&T, where faces are large, both find the same but for an image or two.
    several : which of several faces it is, see `choose`.
    no_face : ``zero``, or ``raise`` `NoFace`.
    normalize : by default vectors have length one. Without, they are as dlib's documentation compares them: by
        Euclidean distance, below 0.6 for one person. LFW's top-1 by that is 0.997 either way.
    batch_size : images a step, shared among the cores, four or more to each; changes memory, not the vectors.

    Raises
    ------
    WeightsUnavailable : dlib or its models are missing or damaged.
    """

    name = "dlib-face"
    dim = DIM
    weights = "dlib-faces"
    resize_rule = "pad"

    def __init__(
        self,
        size: int = 500,
        several: str = "central",
        no_face: str = "zero",
        normalize: bool = True,
        batch_size: int = 16,
    ):
        if several not in SEVERAL:
            raise ValueError(f"several must be one of {', '.join(SEVERAL)}; got {several!r}")
        if no_face not in ("zero", "raise"):
            raise ValueError(f"no_face must be zero or raise; got {no_face!r}")
        _dlib()
        model_files()
        self.size = size
        self.several = several
        self.no_face = no_face
        self.normalize = normalize
        self.batch_size = batch_size
        # What happens without a face is no part of it: the vector that is kept is the same.
        looks = [list(look) for look in LOOKS]
        self.settings = {"several": several, "looks": looks, "chip": [CHIP, MARGIN], "weights": dict(SHA256)}

    def prepare(self) -> None:
        import joblib  # noqa: F401

        dlib_models()

    def compute(self, pixels: np.ndarray) -> np.ndarray:
        """uint8 (b, size, size, 3) → float32 (b, 128); zeros where there is no face. Uses all cores."""
        from joblib import Parallel, cpu_count, delayed

        # dlib works on one core and holds Python's lock meanwhile, so threads would wait: processes share the work.
        parts = np.array_split(pixels, max(1, min(cpu_count(), len(pixels) // 4)))
        if len(parts) == 1:
            return _extracted(pixels, self.several)
        share = delayed(_extracted)
        # Arrays are sent as they are: a copy on disk would outlive a process that is killed.
        return np.concatenate(Parallel(n_jobs=-1, max_nbytes=None)(share(part, self.several) for part in parts))

    def _warn(self, vectors: np.ndarray, names: Sequence[str]) -> None:
        """Images without a face are counted and named.

        Raises
        ------
        NoFace : there are some, and the extractor was opened with ``no_face="raise"``.
        """
        text = describe_zeros(vectors, names, "no face was found")
        if not text:
            return
        if self.no_face == "raise":
            raise NoFace(f"{text}. Leave them out, give larger images of frontal faces, or open no_face='zero'")
        warnings.warn(f"{text}; their vectors are zero, like nobody's", NoFaceWarning, stacklevel=3)


def _extracted(pixels: np.ndarray, several: str) -> np.ndarray:
    """uint8 (b, height, width, 3) → float32 (b, 128)."""
    found = [find_faces(image) for image in pixels]
    rows = [row for row, faces in enumerate(found) if faces]
    chips = [align(pixels[row], choose(found[row], pixels[row].shape, several)) for row in rows]
    vectors = np.zeros((len(pixels), DIM), np.float32)
    if chips:
        vectors[rows] = np.array(dlib_models()[1].compute_face_descriptor(chips), dtype=np.float32)
    return vectors


def _checked(image: np.ndarray) -> np.ndarray:
    image = np.asarray(image)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise ValueError(f"an image must be uint8 (height, width, 3) RGB, got {image.dtype} {image.shape}")
    return np.ascontiguousarray(image)


# ---- dlib and its models ------------------------------------------------------------------------------

_SCANNING = threading.Lock()


def _dlib():
    _require("dlib")
    import dlib

    return dlib


def _require(module: str) -> None:
    """
    Raises
    ------
    WeightsUnavailable : it is not installed. Without it the network can't be used, whose file it reads or contains.
    """
    try:
        extras.require("faces", module)
    except extras.MissingExtra as error:
        raise WeightsUnavailable(str(error)) from error


@cache
def model_files() -> dict[str, Path]:
    """Where the two model files are, their checksums verified once.

    The package is found but not imported: its own code needs ``pkg_resources``, which newer setuptools has no more.

    Raises
    ------
    WeightsUnavailable : the package or a file is missing, or a file is not the one that this project knows.
    """
    remedy = "pip install --force-reinstall face-recognition-models==0.3.0"
    _require("face_recognition_models")
    package = find_spec("face_recognition_models")
    folder = Path(next(iter(package.submodule_search_locations))) / "models"
    for name, expected in SHA256.items():
        try:
            found = hashlib.sha256((folder / name).read_bytes()).hexdigest()
        except OSError as error:
            raise WeightsUnavailable(f"{folder / name} can't be read ({error}): {remedy}") from error
        if found != expected:
            raise WeightsUnavailable(f"{folder / name} is damaged or another version (its SHA-256 is wrong): {remedy}")
    return {name: folder / name for name in SHA256}


@cache
def _detector():
    return _dlib().get_frontal_face_detector()


@cache
def dlib_models() -> tuple:
    """dlib's predictor of five landmarks and its face network, read once."""
    files, dlib = model_files(), _dlib()
    return (
        dlib.shape_predictor(str(files[LANDMARKS_FILE])),
        dlib.face_recognition_model_v1(str(files[NETWORK_FILE])),
    )


#: Name → factory, for `helpers.features.registry`.
EXTRACTORS = {"dlib-face": FaceExtractor}
