"""Synthetic images with the statistics of photographs, for numeric checks that need no files.

Occluding disks whose radii follow a power law have edges and flat parts at all scales (the dead leaves model; Lee,
Mumford & Huang 2001, Occlusion models for natural images). Noise with a 1/f spectrum adds texture (Field 1987).
"""

import numpy as np

#: Ranges of what differs between images: the number of disks, and the standard deviation of the texture in gray levels.
#: A few disks with little texture look like an object on a plain background.
DISKS, TEXTURE = (4, 300), (1.0, 30.0)
#: Range of the disks' radii, relative to the image's side.
RADII = (0.03, 0.5)
#: Standard deviation of a color's channels around its gray level. Photographs have few saturated colors.
CHROMA = 25.0
#: Texture of single channels, relative to the texture that all channels share.
COLOR_TEXTURE = 0.3


def photograph_like(count: int, size: int, seed: int = 0) -> np.ndarray:
    """uint8 (count, size, size, 3): different images, the same for each seed. Raises ValueError if the size is 1."""
    if size < 2:
        raise ValueError(f"size must be at least 2, got {size}")
    return np.stack([_image(size, np.random.default_rng((seed, number))) for number in range(count)])


def _image(size: int, rng: np.random.Generator) -> np.ndarray:
    y, x = np.mgrid[:size, :size] / size
    pixels = np.broadcast_to(_color(rng), (size, size, 3)).copy()
    low, high = RADII
    # Density 1 / r³, by its inverse distribution function. Later disks cover earlier ones.
    disks, texture = round(_log_uniform(DISKS, rng)), _log_uniform(TEXTURE, rng)
    radii = (high**-2 + rng.random(disks) * (low**-2 - high**-2)) ** -0.5
    for radius in radii:
        center, color = rng.random(2), _color(rng)
        # Shading across the disk, as by light from one side.
        slope = rng.normal(0, 40, 2)
        inside = (x - center[0]) ** 2 + (y - center[1]) ** 2 < radius**2
        shade = slope[0] * (x[inside] - center[0]) + slope[1] * (y[inside] - center[1])
        pixels[inside] = color + shade[:, None]
    pixels += texture * _noise(size, rng)[..., None]
    pixels += COLOR_TEXTURE * texture * np.stack([_noise(size, rng) for _ in range(3)], axis=-1)
    return np.clip(np.round(pixels), 0, 255).astype(np.uint8)


def _color(rng: np.random.Generator) -> np.ndarray:
    """float64 (3,): a random gray level with some color."""
    return rng.uniform(0, 255) + rng.normal(0, CHROMA, 3)


def _log_uniform(bounds: tuple[float, float], rng: np.random.Generator) -> float:
    return float(np.exp(rng.uniform(*np.log(bounds))))


def _noise(size: int, rng: np.random.Generator) -> np.ndarray:
    """float64 (size, size): noise with an amplitude of 1/f, mean 0 and standard deviation 1."""
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None, :])
    frequency[0, 0] = np.inf
    noise = np.fft.irfft2(np.fft.rfft2(rng.standard_normal((size, size))) / frequency, s=(size, size))
    return noise / noise.std()
