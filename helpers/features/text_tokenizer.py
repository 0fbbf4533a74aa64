"""Text as tokens, by ``tokenizer.json`` and its companions in a Hugging Face repository.

Texts are padded to the context length of the encoder. SigLIP was trained so; CLIP reads up to the end token, whatever
follows it.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from helpers import extras
from helpers.features.encoder_files import EncoderError, read_json
from helpers.features.text_encoder import warn_truncated

#: Type of the model in config.json → context length, where no file has one.
CONTEXT_LENGTHS = {"clip": 77, "metaclip_2": 77, "chinese_clip": 52, "siglip": 64, "siglip2": 64}

#: Files that the tokens depend on, in a folder of an encoder. All but the first may be missing.
FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "config.json")

#: Larger values, such as those of model_max_length, stand for no limit.
_NO_LIMIT = 100_000


class TextTokenizer:
    """Texts → token ids and attention mask, of one length.

    folder : contains `FILES`.
    length : the context length of the model, if it is fixed there; else a file must have it.

    Raises `EncoderError`, or `helpers.extras.MissingExtra` without the package tokenizers.
    """

    def __init__(self, folder: str | Path, length: int | None = None):
        with extras.importing("onnx"):
            import tokenizers

        folder = Path(folder)
        path = folder / FILES[0]
        if not path.is_file():
            raise EncoderError(f"{path} is missing: without it the encoder cannot read text. Download it, too.")
        try:
            self._tokenizer = tokenizers.Tokenizer.from_file(str(path))
        except Exception as error:  # the package raises this class itself
            raise EncoderError(
                f"{path} is damaged, or of a newer version: {error}. Download it again, or update the package "
                "tokenizers."
            ) from error
        configs = [read_json(folder / name) for name in FILES[1:]]
        self.length = length or self._context_length(*configs)
        self._tokenizer.enable_padding(length=self.length, pad_id=self._pad_id(*configs))
        self._tokenizer.enable_truncation(self.length)

    def __call__(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Token ids and attention mask, both int64 (n, length). A `TruncatedTextWarning` lists texts that are cut."""
        encodings = self._tokenizer.encode_batch(list(texts))
        ids = np.array([one.ids for one in encodings], np.int64)
        mask = np.array([one.attention_mask for one in encodings], np.int64)
        special = self._tokenizer.num_special_tokens_to_add(is_pair=False)
        overflows = [sum(sum(part.attention_mask) - special for part in one.overflowing) for one in encodings]
        warn_truncated(texts, (mask.sum(axis=1) + overflows).tolist(), self.length)
        return ids, mask

    def _context_length(self, tokenizer: Mapping, special: Mapping, config: Mapping) -> int:
        text, own = config.get("text_config") or {}, self._tokenizer.truncation or {}
        found = [
            text.get("max_position_embeddings"),
            tokenizer.get("model_max_length"),
            own.get("max_length"),
            CONTEXT_LENGTHS.get(config.get("model_type", "")),
        ]
        for length in found:
            if isinstance(length, int) and 0 < length < _NO_LIMIT:
                return length
        raise EncoderError(
            "no file of the encoder has its context length. Add max_position_embeddings to text_config in config.json, "
            "or model_max_length to tokenizer_config.json."
        )

    def _pad_id(self, tokenizer: Mapping, special: Mapping, config: Mapping) -> int:
        """The id of the padding token. config.json comes last, because CLIP's has another id than its tokenizer."""
        if self._tokenizer.padding is not None:
            return self._tokenizer.padding["pad_id"]
        for file in (tokenizer, special):
            token = file.get("pad_token")
            token = token.get("content") if isinstance(token, dict) else token
            if token is not None:
                found = self._tokenizer.token_to_id(token)
                if found is None:
                    raise EncoderError(f"the padding token {token!r} is not a token of tokenizer.json")
                return found
        for part in (config.get("text_config") or {}, config):
            if isinstance(part.get("pad_token_id"), int):
                return part["pad_token_id"]
        raise EncoderError("no file of the encoder has its padding token. Add pad_token to tokenizer_config.json.")
