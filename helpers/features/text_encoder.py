"""The interface of feature extractors that also embed text: text and images in one vector space."""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np

from helpers.features.extractor import FeatureExtractor

#: Longer texts are rejected. Encoders read at most some hundred tokens, and mostly 64 or 77.
MAX_CHARACTERS = 2000


class NoTextEncoder(ValueError):
    """A feature extractor cannot embed text; the message names it and the remedy."""


class TextEncoder(ABC):
    """A feature extractor that embeds text, too, so that the cosine of a text and an image says how well they match.

    Such an extractor is a subclass of both `FeatureExtractor` and this class.
    """

    @abstractmethod
    def embed_text(self, texts: Sequence[str]) -> np.ndarray:
        """Embed texts: float32 (n, dim), normalized, row *i* from text *i*.

        A `TruncatedTextWarning` lists texts of which the end was not read. Raises ValueError for a text that
        `check_texts` rejects.
        """


class TruncatedTextWarning(UserWarning):
    """Some texts have more tokens than the encoder reads; the message lists them."""


def text_encoder(extractor: FeatureExtractor) -> TextEncoder:
    """The extractor as a `TextEncoder`; raises `NoTextEncoder` if it only embeds images."""
    if isinstance(extractor, TextEncoder):
        return extractor
    raise NoTextEncoder(
        f"{extractor.name} cannot embed text. Use an image-text encoder, such as hub:clip_vit_base_patch32 or "
        "onnx:FOLDER; `lookalike encoders` lists them."
    )


def embeds_text(extractor: FeatureExtractor) -> bool:
    """Whether an extractor is an image–text encoder."""
    return isinstance(extractor, TextEncoder)


def check_texts(texts: Sequence[str]) -> list[str]:
    """The texts as a list. Raises ValueError for none, an empty one, or one of more than `MAX_CHARACTERS`."""
    if isinstance(texts, str):
        raise ValueError(f"give a list of texts, got the single text {texts[:40]!r}")
    found = list(texts)
    if not found:
        raise ValueError("there is no text to embed")
    for text in found:
        if not isinstance(text, str):
            raise ValueError(f"a text must be a str, got {type(text).__name__}")
        if not text.strip():
            raise ValueError("a text is empty: describe the image in some words")
        if len(text) > MAX_CHARACTERS:
            raise ValueError(f"a text has {len(text):,} characters, more than {MAX_CHARACTERS:,}: {text[:40]!r} …")
    return found


def warn_truncated(texts: Sequence[str], counts: Sequence[int], length: int) -> None:
    """Issue a `TruncatedTextWarning` that lists those of the texts with more tokens than ``length``, if there are any.

    counts : number of tokens of each text, with start and end tokens.
    """
    cut = [(text, count) for text, count in zip(texts, counts, strict=True) if count > length]
    if cut:
        named = ", ".join(f"{text[:40]!r} ({count} tokens)" for text, count in cut[:10])
        more = f", … and {len(cut) - 10} more" if len(cut) > 10 else ""
        message = f"the encoder only reads the first {length} tokens of a text; it ignored the rest of {named}{more}"
        # Called by the tokenizer of `embed_text`.
        warnings.warn(message, TruncatedTextWarning, stacklevel=4)
