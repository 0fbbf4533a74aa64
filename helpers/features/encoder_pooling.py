"""One vector per image from the output of an encoder."""

from math import isqrt

import numpy as np

from helpers.features.encoder_files import EncoderError


def pooled(output: np.ndarray, registers: int = 0, channels_axis: int = 1) -> np.ndarray:
    """The output of an encoder → one vector per image, (b, dim).

    - (b, dim) is the vector. An output of four axes is a feature map: the mean of its positions.
    - (b, tokens, dim): the first token if the number of tokens is a square plus 1 plus ``registers``, because the first
      one is then the class token and the last ones are a grid of patches; the mean if it is a square.

    registers : number of tokens between the class token and the patches. channels_axis : of a feature map, 1 or 3.

    Raises `EncoderError` for another number of tokens.
    """
    if output.ndim == 2:
        return output
    if output.ndim == 4:
        return output.mean(axis=(2, 3) if channels_axis == 1 else (1, 2))
    count = output.shape[1] if output.ndim == 3 else -1
    if count - 1 - registers > 0 and isqrt(count - 1 - registers) ** 2 == count - 1 - registers:
        return output[:, 0]
    if count > 0 and isqrt(count) ** 2 == count:
        return output.mean(axis=1)
    raise EncoderError(f"the output {output.shape} is neither a vector, nor a feature map, nor tokens of a square grid")
