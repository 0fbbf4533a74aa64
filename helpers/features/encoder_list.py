"""Which encoders there are for ``hub:`` and ``onnx:``, with licenses and sizes."""

from collections.abc import Mapping
from dataclasses import dataclass

from helpers.features import hub_encoder

#: Beginning of a preset's name → license of the weights, and where it is stated. The longest beginning counts.
LICENSES: dict[str, tuple[str, str]] = {
    "clip_vit_base_": ("MIT for the code, not stated for the weights", "https://github.com/openai/CLIP"),
    "clip_vit_large_": ("MIT for the code, not stated for the weights", "https://github.com/openai/CLIP"),
    "clip_vit_": ("MIT", "https://huggingface.co/laion"),
    "siglip": ("Apache-2.0", "https://huggingface.co/google/siglip-base-patch16-224"),
    "siglip2": ("Apache-2.0", "https://huggingface.co/google/siglip2-base-patch16-224"),
    "medsiglip": ("Health AI Developer Foundations", "https://huggingface.co/google/medsiglip-448"),
    "metaclip_2": ("CC-BY-NC-4.0", "https://github.com/facebookresearch/MetaCLIP"),
    "dinov2": ("Apache-2.0", "https://github.com/facebookresearch/dinov2"),
    "dinov3": ("DINOv3 License", "https://ai.meta.com/resources/models-and-libraries/dinov3-license/"),
}


@dataclass(frozen=True)
class EncoderInfo:
    """One encoder that can be fetched.

    name : of the extractor, ``hub:PRESET``, or of a repository whose folder is opened as ``onnx:FOLDER``.
    text : whether it embeds text. parameters : their number, if it is known. megabytes : of the files in float32.
    license : of the weights, as the source states it. source : page of the license.
    """

    name: str
    text: bool
    parameters: int | None
    megabytes: int
    license: str
    source: str


#: Repositories on Hugging Face in the form of ONNX folders → text, megabytes of the networks as the pages list them,
#: and the preset with the same license.
_REPOSITORIES = {
    "Xenova/clip-vit-base-patch32": (True, 606, "clip_vit_base_"),
    "Xenova/clip-vit-large-patch14": (True, 1715, "clip_vit_large_"),
    "Xenova/siglip-base-patch16-224": (True, 813, "siglip"),
    "Xenova/dinov2-small": (False, 88, "dinov2"),
}

#: Presets that are listed without KerasHub: name → text, and number of parameters as in KerasHub 0.32.
RECOMMENDED = {
    "clip_vit_base_patch32": (True, 151_277_363),
    "siglip2_base_patch16_224": (True, 375_188_230),
    "dinov2_small": (False, 22_582_656),
    "dinov3_vit_small_lvd1689m": (False, 21_600_000),
}

#: Backbones whose presets are listed, with those that embed text.
_LISTED = (*hub_encoder.IMAGE_TEXT, "DINOV2Backbone", "DINOV3Backbone")


def onnx_encoders() -> list[EncoderInfo]:
    """Repositories on Hugging Face whose copy is an ONNX folder."""
    return [
        EncoderInfo(name, text, None, megabytes, LICENSES[preset][0], f"https://huggingface.co/{name}")
        for name, (text, megabytes, preset) in _REPOSITORIES.items()
    ]


def hub_encoders(registry: Mapping[str, tuple[bool, int]] | None = None) -> list[EncoderInfo]:
    """The presets of KerasHub: those of its registry, or the recommended ones without it."""
    found = RECOMMENDED if registry is None else registry
    return [_preset(name, text, parameters) for name, (text, parameters) in found.items()]


def hub_registry() -> dict[str, tuple[bool, int]]:
    """Presets of the listed backbones in KerasHub's own registry: name → text, number of parameters.

    Raises `helpers.extras.MissingExtra` without KerasHub.
    """
    return {
        name: (backbone in hub_encoder.IMAGE_TEXT, int(preset["metadata"]["params"]))
        for backbone in _LISTED
        for name, preset in hub_encoder.presets(backbone).items()
    }


def _preset(name: str, text: bool, parameters: int) -> EncoderInfo:
    known = max((start for start in LICENSES if name.startswith(start)), key=len, default=None)
    license, source = LICENSES[known] if known else ("not known here", "https://keras.io/keras_hub/presets/")
    megabytes = round(parameters * 4 / 1e6)
    return EncoderInfo(f"hub:{name}", text, parameters, megabytes, license, source)
