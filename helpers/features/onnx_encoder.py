"""Encoders of images, or of images and text, in folders of ONNX files as Hugging Face repositories have them.

====================================  ====================================================================
``onnx/vision_model.onnx``            the network of images; ``onnx/model.onnx`` if the encoder reads no text
``onnx/text_model.onnx``              the network of texts, if the encoder reads text
``preprocessor_config.json``          size and normalization of images
``tokenizer.json``                    tokens of texts; also ``tokenizer_config.json`` and ``config.json``
====================================  ====================================================================

The ONNX files may also be in the folder itself, with their external data beside them. A vector is the model's output
``image_embeds`` or ``text_embeds``, else ``pooler_output``, else ``last_hidden_state``, which `pooled` reduces.
"""

import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from helpers.features.deep import DeepExtractor
from helpers.features.encoder_files import EncoderError, files_hash, folder_of, pooled, read_json
from helpers.features.extractor import FeatureExtractor
from helpers.features.image_processor import load_processor
from helpers.features.text_encoder import TextEncoder, check_texts
from helpers.features.text_tokenizer import FILES as TOKENIZER_FILES
from helpers.features.text_tokenizer import TextTokenizer
from helpers.networks import onnx_files
from helpers.networks.compiled import CompiledNetwork
from helpers.vectors import l2_normalize

IMAGE_OUTPUTS = ("image_embeds", "pooler_output", "last_hidden_state")
TEXT_OUTPUTS = ("text_embeds", "pooler_output")
#: Output of an image model → output of the text model in the same vector space. Hidden states have none.
PAIRED = {"image_embeds": "text_embeds", "pooler_output": "pooler_output", "last_hidden_state": None}

#: Type of the model → tokens between the class token and the patches, where config.json has no number of them.
DISTILLATION_TOKENS = {"deit": 1}

#: Places of the two networks in a folder, the first that exists counts.
IMAGE_FILES = ("onnx/vision_model.onnx", "vision_model.onnx", "onnx/model.onnx", "model.onnx")
TEXT_FILES = ("onnx/text_model.onnx", "text_model.onnx")
PROCESSOR_FILE = "preprocessor_config.json"


class OnnxExtractor(DeepExtractor):
    """An encoder of images in a folder of ONNX files.

    Parameters
    ----------
    folder : see this module. Its absolute path is part of ``name``, but not of the fingerprint, which has the content
        of all files. So vectors stay valid when the folder is moved, and are computed again when a file changes.

    Raises
    ------
    EncoderError, OnnxFileError : a file is missing or damaged, or of a kind that is not supported.
    """

    short_name = "onnx"

    def __init__(self, folder: str | Path, batch_size: int = 32):
        self.folder = folder_of(folder)
        self.name, self.batch_size = f"onnx:{self.folder}", batch_size
        self._image_file = _first(self.folder, IMAGE_FILES)
        processor = self.folder / PROCESSOR_FILE
        if not processor.is_file():
            raise EncoderError(
                f"{processor} is missing: it says how images are resized and normalized. Download it, too."
            )
        self._processor = load_processor(processor)
        self.size, self.resize_rule = self._processor.size, "encoder"
        self._config = read_json(self.folder / "config.json")
        self.weights = str(self._config.get("model_type", "unknown"))
        registers = self._config.get("num_register_tokens", DISTILLATION_TOKENS.get(self.weights, 0))
        self._registers = registers if isinstance(registers, int) else 0
        model = self._image_model()
        self._output = model.output
        self.dim = self._pooled(np.zeros((1, *model.shape), np.float32)).shape[1]
        self.origin = {"source": str(self.folder), "files": files_hash(self.folder, self._files())}
        self.settings = {"files": self.origin["files"]}

    def preprocess(self, image: np.ndarray) -> np.ndarray:
        """uint8 (height, width, 3) RGB → uint8 (size, size, 3), as preprocessor_config.json says."""
        return self._processor(image)

    def _files(self) -> list[Path]:
        """All files that the vectors depend on."""
        configs = [self.folder / name for name in (PROCESSOR_FILE, "config.json")]
        return [self._image_file, *onnx_files.external_data(self._image_file), *configs]

    def _image_model(self) -> onnx_files.OnnxModel:
        return onnx_files.read_image_model(self._image_file, self.size, IMAGE_OUTPUTS)

    def _compiled(self) -> CompiledNetwork:
        mean, std = self._processor.mean, self._processor.std
        return onnx_files.image_network(self._image_model().graph, mean, std, single=self.single_images)

    def _pooled(self, output: np.ndarray) -> np.ndarray:
        return pooled(output, self._registers, channels_axis=1)


class OnnxImageTextExtractor(OnnxExtractor, TextEncoder):
    """An encoder of images and text in a folder of ONNX files; for parameters and errors see `OnnxExtractor`.

    The fingerprint has the content of the text model and the tokenizer, too, so an engine is never queried by the text
    model of another encoder.

    Raises
    ------
    EncoderError : the tokenizer is missing or damaged, or the vectors of texts have another dimension than those of
        images.
    """

    def __init__(self, folder: str | Path, batch_size: int = 32):
        self._text_file = _first(folder_of(folder), TEXT_FILES)
        super().__init__(folder, batch_size)
        self._tokenizer = TextTokenizer(self.folder, onnx_files.fixed_length(self._text_file))
        text = self._text_model()
        if text.shape != (self.dim,) or text.output != PAIRED[self._output]:
            raise EncoderError(
                f"{self.folder}: the image model gives {self._output} of {self.dim} numbers, the text model "
                f"{text.output} of {' × '.join(map(str, text.shape))}. They are not of the same encoder. Download "
                "both again from one repository."
            )

    def embed_text(self, texts: Sequence[str]) -> np.ndarray:
        return l2_normalize(self._text_network(*self._tokenizer(check_texts(texts))))

    @cached_property
    def _text_network(self) -> onnx_files.TextNetwork:
        return onnx_files.TextNetwork(self._text_model())

    def _text_model(self) -> onnx_files.OnnxModel:
        return onnx_files.read_text_model(self._text_file, self._tokenizer.length, TEXT_OUTPUTS)

    def _files(self) -> list[Path]:
        text = [self._text_file, *onnx_files.external_data(self._text_file)]
        return [*super()._files(), *text, *(self.folder / name for name in TOKENIZER_FILES)]


def open_encoder(place: str, **settings: Any) -> FeatureExtractor:
    """Open a folder of ONNX files; the extractor is a `TextEncoder` if the folder has a text model."""
    folder = folder_of(place)
    has_text = any((folder / name).is_file() for name in TEXT_FILES)
    return (OnnxImageTextExtractor if has_text else OnnxExtractor)(folder, **settings)


def _first(folder: Path, names: Sequence[str]) -> Path:
    for name in names:
        if (folder / name).is_file():
            return folder / name
    # Repositories also have variants of less precision, such as vision_model_fp16.onnx.
    stems = {Path(name).stem for name in names}
    others = [path for path in sorted(folder.glob("**/*.onnx")) if re.sub("_[a-z0-9]+$", "", path.stem) in stems]
    hint = f" There is {', '.join(path.name for path in others)}: rename the one to use." if others else ""
    raise EncoderError(f"{folder} has none of the files {', '.join(names)}.{hint}")
