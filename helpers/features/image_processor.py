"""Image preprocessing as described by ``preprocessor_config.json`` of a Hugging Face repository.

Images are resized and cropped with Pillow as 8-bit images, as the processors of transformers do, and rescaled and
normalized in the network. https://huggingface.co/docs/transformers/main_classes/image_processor
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from helpers.features.encoder_files import EncoderError, read_json
from helpers.images.reading import LONGEST, center_part

_OPENAI = {"image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711]}
_IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
_HALF = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}

_COMMON = {"do_resize": True, "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True}
_CROPPED = {
    **_COMMON, "size": {"shortest_edge": 224}, "crop_size": {"height": 224, "width": 224}, "do_center_crop": True,
    "resample": 3, **_OPENAI,
}  # fmt: skip
_SQUARE = {**_COMMON, "size": {"height": 224, "width": 224}, "do_center_crop": False, "resample": 2}

#: Name of a processor without "ImageProcessor", "FeatureExtractor" and "Fast" → the settings that its file may omit.
PROCESSORS: dict[str, dict] = {
    "CLIP": _CROPPED,
    "ChineseCLIP": _CROPPED,
    "Bit": _CROPPED,
    "Siglip": {**_SQUARE, "resample": 3, **_HALF},
    "ViT": {**_SQUARE, **_HALF},
    "DINOv3ViT": {**_SQUARE, **_IMAGENET},
    "DeiT": {
        **_SQUARE, "size": {"height": 256, "width": 256}, "crop_size": {"height": 224, "width": 224},
        "do_center_crop": True, "resample": 3, **_HALF,
    },
    "ConvNext": {**_SQUARE, "size": {"shortest_edge": 384}, "crop_pct": 224 / 256, **_HALF},
}  # fmt: skip

#: ConvNext's processor resizes and crops below this size, and squashes at this size and above.
_CONVNEXT_SQUASHED = 384


@dataclass(frozen=True)
class ImageProcessor:
    """How images become the input of an encoder.

    size : side of the square input in pixels.
    resized : (height, width) to which an image is resized, or the length of its short side.
    resample : Pillow's filter.
    mean, std : float per channel. The input is (pixel − mean) / std with pixels 0 … 255.
    """

    size: int
    resized: tuple[int, int] | int
    resample: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """uint8 (height, width, 3) RGB → uint8 (size, size, 3): resized and cropped at the center."""
        found = Image.fromarray(image)
        if isinstance(self.resized, int):
            found = center_part(found, LONGEST)
            width, height = (self.resized * side // min(found.size) for side in found.size)
        else:
            height, width = self.resized
        found = found.resize((width, height), Image.Resampling(self.resample))
        left, top = (width - self.size) // 2, (height - self.size) // 2
        return np.asarray(found.crop((left, top, left + self.size, top + self.size)))


def load_processor(path: str | Path) -> ImageProcessor:
    """Read a ``preprocessor_config.json``. Raises `EncoderError`."""
    path = Path(path)
    found = read_json(path)
    # The configuration of a processor of images and text has that of the images as a part.
    found = found.get("image_processor", found)
    try:
        return _processor(found)
    except EncoderError as error:
        raise EncoderError(f"{path}: {error}") from error
    except (TypeError, ValueError, KeyError) as error:
        raise EncoderError(f"{path} is not understood: {error!r}") from error


def _processor(found: Mapping) -> ImageProcessor:
    name = found.get("image_processor_type") or found.get("feature_extractor_type") or ""
    kind = name.removesuffix("Fast").removesuffix("ImageProcessor").removesuffix("FeatureExtractor")
    if kind not in PROCESSORS:
        raise EncoderError(f"the processor {name!r} is not supported; supported: {', '.join(PROCESSORS)}")
    settings = {**PROCESSORS[kind], **found}
    if settings.get("do_pad") or settings.get("do_flip_channel_order") or not settings["do_resize"]:
        raise EncoderError("do_pad, do_flip_channel_order, and do_resize: false are not supported")
    resized = _resized(settings, kind)
    size = _square(settings["crop_size"]) if settings["do_center_crop"] else None
    if kind == "ConvNext":
        size = settings["size"]["shortest_edge"]
    elif size is None:
        size = _square(settings["size"])
    if (resized if isinstance(resized, int) else min(resized)) < size:
        raise EncoderError(f"it crops {size} pixels from an image of {resized}; padding is not supported")
    factor = settings["rescale_factor"] if settings["do_rescale"] else 1.0
    unchanged = {"image_mean": [0.0] * 3, "image_std": [1.0] * 3}
    chosen = settings if settings["do_normalize"] else unchanged
    mean, std = (tuple(map(float, chosen[key])) for key in unchanged)
    if len(mean) != 3 or len(std) != 3 or not all(std) or not factor:
        raise EncoderError(f"three means and nonzero factors are needed, got {mean}, {std}, {factor}")
    pixel_mean, pixel_std = tuple(value / factor for value in mean), tuple(value / factor for value in std)
    return ImageProcessor(size, resized, Image.Resampling(settings["resample"]).value, pixel_mean, pixel_std)


def _resized(settings: Mapping, kind: str) -> tuple[int, int] | int:
    """What `ImageProcessor.resized` is for a configuration."""
    size = settings["size"]
    if kind == "ConvNext":
        short = size["shortest_edge"]
        return (short, short) if short >= _CONVNEXT_SQUASHED else int(short / settings["crop_pct"])
    if isinstance(size, int):
        # Files of early versions have a number, for the short side where the default is one.
        return size if "shortest_edge" in PROCESSORS[kind]["size"] else (size, size)
    if "longest_edge" in size or "max_height" in size:
        raise EncoderError(f"the size {size} is not supported; supported: shortest_edge, or height and width")
    return int(size["shortest_edge"]) if "shortest_edge" in size else (int(size["height"]), int(size["width"]))


def _square(size: Mapping | int) -> int:
    """The side of a square size."""
    if isinstance(size, int):
        return size
    if "shortest_edge" in size:
        raise EncoderError("images keep their shape; only encoders with a square input are supported")
    if size["height"] != size["width"]:
        raise EncoderError(f"the input is {size['height']} × {size['width']}; only squares are supported")
    return int(size["height"])
