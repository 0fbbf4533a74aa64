"""Encoders of KerasHub: presets, and folders that ``save_to_preset`` of a backbone and of its preprocessor wrote.

CLIP, SigLIP and MetaCLIP 2 embed images and text; DINOv2, DINOv3 and other backbones of images embed images. Image
size, scale, offset and interpolation come from the preset's image converter. Resized images are rounded to 8 bits.

https://keras.io/keras_hub/presets/
"""

import difflib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from helpers import extras
from helpers.features.deep import DeepExtractor
from helpers.features.encoder_files import EncoderError, files_hash, folder_of, pooled, read_json
from helpers.features.extractor import FeatureExtractor
from helpers.features.text_encoder import MAX_CHARACTERS, TextEncoder, check_texts, warn_truncated
from helpers.networks import compiled
from helpers.networks.compiled import CompiledNetwork, KerasNetwork
from helpers.networks.weights import WeightsUnavailable
from helpers.vectors import l2_normalize

if TYPE_CHECKING:
    import keras

CONFIG_FILE, CONVERTER_FILE = "config.json", "image_converter.json"
#: The weights, or the list of their parts.
WEIGHT_FILES = ("model.weights.h5", "model.weights.json")

#: Backbones of images and text → their preprocessor.
IMAGE_TEXT = {
    "CLIPBackbone": "CLIPPreprocessor",
    "SigLIPBackbone": "SigLIPPreprocessor",
    "MetaCLIP2Backbone": "MetaCLIP2CausalLMPreprocessor",
}
#: Backbones that take another image size than they were trained with, by interpolating positions.
RESIZABLE = ("DINOV2Backbone", "DINOV3Backbone")
#: Backbone → tokens between the class token and the patches, where its configuration has no number of them.
DISTILLATION_TOKENS = {"DeiTBackbone": 1}

#: Files of images and, beyond them, of text, as patterns within a folder.
IMAGE_FILES = (CONFIG_FILE, CONVERTER_FILE, *WEIGHT_FILES, "model_*.weights.h5")
TEXT_FILES = ("preprocessor.json", "tokenizer.json", "assets/tokenizer/*")


class HubExtractor(DeepExtractor):
    """A backbone of images.

    Parameters
    ----------
    place : a folder, or the name of a preset, which is fetched at the first use. A folder's absolute path is part of
        ``name``, but not of the fingerprint, which has the content of all files.
    engine : see `helpers.networks.compiled.fastest`.

    Raises
    ------
    EncoderError : a file is missing or damaged, or the preset is of a kind that is not supported.
    WeightsUnavailable : a preset cannot be fetched.
    """

    short_name = "hub"

    def __init__(self, place: str | Path, batch_size: int = 32, engine: str = "auto"):
        self.folder, self.name = preset_folder(place)
        self.batch_size, self.engine = batch_size, engine
        self._class, config = _config(self.folder)
        self.size = _image_size(self.folder)
        self.resize_rule, self.weights = "encoder", self._class.removesuffix("Backbone").lower()
        _check_size(self.folder, self._class, config, self.size)
        self._registers = int(config.get("num_register_tokens", DISTILLATION_TOKENS.get(self._class, 0)))
        _weights(self.folder)
        self.origin = {"source": self.name, "files": files_hash(self.folder, self._files())}
        self.settings = {"files": self.origin["files"]}
        self.dim = self._dim(config)

    def preprocess(self, image: np.ndarray) -> np.ndarray:
        """uint8 (height, width, 3) RGB → uint8 (size, size, 3), resized as the preset's image converter does."""
        resized = np.asarray(self._converter.resizing(np.asarray(image, np.float32)))
        return np.rint(resized).clip(0, 255).astype(np.uint8)

    def prepare(self) -> None:
        """Load the converter, and build the network."""
        _ = self._converter
        super().prepare()

    @cached_property
    def _converter(self) -> "keras.layers.Layer":
        keras_hub = _package()
        with _loading(self.folder):
            return keras_hub.layers.ImageConverter.from_preset(str(self.folder))

    @cached_property
    def _backbone(self) -> "keras.Model":
        _package()
        import keras

        # Layers compute in float32 instead of half precision.
        text = re.sub('"(mixed_)?b?float16"', '"float32"', json.dumps(read_json(self.folder / CONFIG_FILE)))
        config = json.loads(text)
        if self._class in RESIZABLE:
            config["config"]["image_shape"] = [self.size, self.size, 3]
        with _loading(self.folder):
            backbone = keras.saving.deserialize_keras_object(config)
            backbone.load_weights(str(_weights(self.folder)))
        return backbone

    def _dim(self, config: Mapping) -> int:
        # Without Keras where the configuration says it, because its import takes seconds.
        if self._class == "SigLIPBackbone":
            try:
                return config["vision_encoder"]["config"]["hidden_dim"]
            except (KeyError, TypeError) as error:
                raise EncoderError(
                    f"{self.folder / CONFIG_FILE} has no hidden_dim of the vision encoder. Save the backbone and its "
                    "preprocessor again with save_to_preset."
                ) from error
        found = config.get("projection_dim", config.get("hidden_dim"))
        if isinstance(found, int):
            return found
        shape = self._model().output_shape
        return self._pooled(np.zeros((1, *shape[1:]), np.float32)).shape[1]

    def _files(self) -> list[Path]:
        """All files that the vectors depend on."""
        return _matching(self.folder, IMAGE_FILES)

    def _model(self) -> "keras.Model":
        """(b, size, size, 3) → embeddings, or the last hidden states or feature map."""
        import keras

        backbone = self._backbone
        images = keras.Input((self.size, self.size, 3))
        if self._class in IMAGE_TEXT:
            return keras.Model(images, backbone.get_vision_embeddings(images))
        given = backbone.input
        output = backbone(dict.fromkeys(given, images) if isinstance(given, dict) else images)
        return keras.Model(images, list(output.values())[-1] if isinstance(output, dict) else output)

    def _compiled(self) -> KerasNetwork | CompiledNetwork:
        versions = {name: version(name) for name in ("keras", "keras-hub")}
        key = {**self.settings, "size": self.size, **versions}

        def reference() -> KerasNetwork:
            scale, offset = (
                np.asarray(neutral if value is None else value, np.float32)
                for value, neutral in ((self._converter.scale, 1.0), (self._converter.offset, 0.0))
            )
            return KerasNetwork(self._model(), lambda pixels: pixels * scale + offset, self.size)

        return compiled.fastest(reference, self.short_name, key, self.engine, single=self.single_images)

    def _pooled(self, output: np.ndarray) -> np.ndarray:
        return pooled(output, self._registers, channels_axis=3)


class HubImageTextExtractor(HubExtractor, TextEncoder):
    """CLIP, SigLIP or MetaCLIP 2; for parameters and errors see `HubExtractor`.

    Keras computes the vectors of texts. The fingerprint has the content of the tokenizer, too.
    """

    def __init__(self, place: str | Path, batch_size: int = 32, engine: str = "auto"):
        super().__init__(place, batch_size, engine)
        if not (self.folder / "tokenizer.json").is_file():
            raise EncoderError(
                f"{self.folder / 'tokenizer.json'} is missing: without it the encoder cannot read text. Save the "
                "preprocessor with save_to_preset to this folder, too."
            )

    def embed_text(self, texts: Sequence[str]) -> np.ndarray:
        texts = check_texts(texts)
        ids = self._tokens(texts)
        parts = [ids[start : start + self.batch_size] for start in range(0, len(ids), self.batch_size)]
        vectors = np.concatenate([self._text_model.predict_on_batch(part) for part in parts])
        return l2_normalize(np.asarray(vectors, np.float32))

    def _tokens(self, texts: list[str]) -> np.ndarray:
        """Padded token ids int64 (n, length). A `TruncatedTextWarning` lists texts that are cut."""
        given = {"prompts": texts, "images": None}
        whole = self._preprocessor(given, sequence_length=MAX_CHARACTERS + 2)["padding_mask"]
        ids = np.asarray(self._preprocessor(given)["token_ids"])
        warn_truncated(texts, np.asarray(whole).sum(axis=1).tolist(), ids.shape[1])
        return ids

    @cached_property
    def _preprocessor(self) -> "keras.layers.Layer":
        # keras-hub 0.32 makes CLIP's tokenizer only if tensorflow-text is installed.
        keras_hub = _package(*(["tensorflow_text"] if self._class == "CLIPBackbone" else []))
        kind = getattr(keras_hub.models, IMAGE_TEXT[self._class])
        with _loading(self.folder):
            return kind.from_preset(str(self.folder), image_converter=None)

    @cached_property
    def _text_model(self) -> "keras.Model":
        import keras

        ids = keras.Input((self._preprocessor.sequence_length,), dtype="int32")
        return keras.Model(ids, self._backbone.get_text_embeddings(ids))

    def _files(self) -> list[Path]:
        return [*super()._files(), *_matching(self.folder, TEXT_FILES)]


def open_encoder(place: str, **settings: Any) -> FeatureExtractor:
    """Open a folder or a preset; the extractor is a `TextEncoder` if the backbone embeds text."""
    folder, _ = preset_folder(place)
    kind = HubImageTextExtractor if _config(folder)[0] in IMAGE_TEXT else HubExtractor
    return kind(place, **settings)


def preset_folder(place: str | Path) -> tuple[Path, str]:
    """The folder of a preset, which is fetched if it is not a folder, and the name of its extractor."""
    if os.sep in str(place) or not str(place) or Path(place).is_dir():
        folder = folder_of(place)
        return folder, f"hub:{folder}"
    return _fetched(str(place)), f"hub:{place}"


def presets(backbone: str = "Backbone") -> dict[str, dict]:
    """The presets of a backbone, by default of all, by name, with the metadata and handles of KerasHub's registry."""
    return getattr(_package().models, backbone).presets


def _fetched(name: str) -> Path:
    known = presets()
    if name not in known:
        near = difflib.get_close_matches(name, known, 3, 0.5)
        hint = f" Did you mean {' or '.join(near)}?" if near else ""
        raise EncoderError(
            f"{name!r} is neither a folder nor a preset of KerasHub; `lookalike encoders` lists them.{hint}"
        )
    with extras.importing("hub", "kagglehub"):
        import kagglehub

    try:
        return Path(kagglehub.model_download(known[name]["kaggle_handle"].removeprefix("kaggle://")))
    except (OSError, ValueError) as error:  # requests' and kagglehub's
        raise WeightsUnavailable(
            f"the preset {name} cannot be fetched ({error}). On a computer with an internet connection, load its "
            "backbone and its preprocessor with from_preset, and save both with save_to_preset to one folder. Copy it "
            "to this computer, and use hub:FOLDER."
        ) from error


def _package(*modules: str) -> ModuleType:
    with extras.importing("hub", "keras_hub", *modules):
        import keras_hub

    return keras_hub


def _config(folder: Path) -> tuple[str, Mapping]:
    """Class and configuration of a backbone. Raises `EncoderError`."""
    found = _object(folder, CONFIG_FILE)
    # Keras would import any module that a configuration names.
    if not str(found.get("module", "")).startswith("keras_hub.") or not isinstance(found.get("config"), dict):
        raise EncoderError(
            f"{folder / CONFIG_FILE} is not the configuration of a KerasHub backbone. Save the backbone and its "
            "preprocessor with save_to_preset; a folder of ONNX files is opened as onnx:FOLDER."
        )
    return str(found.get("class_name")), found["config"]


def _image_size(folder: Path) -> int:
    """The side of the preset's square input in pixels. Raises `EncoderError`."""
    config = _object(folder, CONVERTER_FILE).get("config", {})
    # Presets of early versions have height and width.
    size = config.get("image_size", [config.get("height"), config.get("width")])
    if not isinstance(size, list) or len(size) != 2 or size[0] != size[1] or not isinstance(size[0], int):
        raise EncoderError(f"{folder / CONVERTER_FILE}: the image size is {size}; only squares are supported")
    return size[0]


def _check_size(folder: Path, name: str, config: Mapping, size: int) -> None:
    shape = config.get("vision_encoder", {}).get("config", config).get("image_shape") or [None, None, 3]
    if name not in RESIZABLE and any(side not in (None, size) for side in shape[:2]):
        raise EncoderError(
            f"{folder}: the backbone takes {shape[0]} × {shape[1]} pixels, its image converter makes {size} × {size}"
        )


def _object(folder: Path, name: str) -> dict:
    path = folder / name
    if not path.is_file():
        raise EncoderError(f"{path} is missing: save the backbone and its preprocessor with save_to_preset")
    return read_json(path)


def _weights(folder: Path) -> Path:
    """The file of the weights. Raises `EncoderError`."""
    found = next((folder / name for name in WEIGHT_FILES if (folder / name).is_file()), None)
    if found is None:
        raise EncoderError(f"{folder} has no file {WEIGHT_FILES[0]}. Save the backbone with save_to_preset.")
    return found


@contextmanager
def _loading(folder: Path) -> Iterator[None]:
    """Around calls of KerasHub: an `EncoderError` for its errors about damaged or unsuitable files."""
    try:
        yield
    except (OSError, ValueError, TypeError, KeyError) as error:
        lines = str(error).strip().splitlines() or [repr(error)]
        raise EncoderError(f"KerasHub cannot load {folder}: {lines[0]}") from error


def _matching(folder: Path, patterns: Sequence[str]) -> list[Path]:
    return [path for pattern in patterns for path in folder.glob(pattern)]
