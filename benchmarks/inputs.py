"""The images that benchmarks run on."""

import os

import numpy as np

from helpers import paths
from helpers.images import imagenet, samples
from helpers.images.imageset import ImageSet


def real_images(count: int) -> ImageSet:
    """``count`` photographs of Imagenette from a mirror; without one, or where it has fewer, with repetitions.

    Without a mirror they are those of the sample, which are smaller and on white.
    """
    images = samples.with_distractors() if paths.mirror_dir() is None else imagenet.imagenette()
    return images.subset(np.linspace(0, max(count, len(images)) - 1, count).astype(int) % len(images))


def conditions(images: ImageSet) -> str:
    """What was measured on, in words; how busy the computer is with other things belongs to it."""
    different = len(set(images.paths))
    repeated = "" if different == len(images) else f" ({different} different ones, repeated)"
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    return f"{len(images)} images of {images.name}{repeated}, {os.cpu_count()} cores{load}"
