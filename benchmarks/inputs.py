"""The images of the benchmarks."""

import os

import numpy as np

from benchmarks.processes import system_load
from helpers import paths
from helpers.images import imagenet, samples
from helpers.images.imageset import ImageSet


def real_images(count: int) -> ImageSet:
    """``count`` photographs of Imagenette, repeated if there are fewer.

    Without a mirror, the photographs of the sample, which are smaller and have a white background.
    """
    images = samples.with_distractors() if paths.mirror_dir() is None else imagenet.imagenette()
    return images.subset(np.linspace(0, max(count, len(images)) - 1, count).astype(int) % len(images))


def conditions(images: ImageSet) -> str:
    """A description of the images and the computer, including its load."""
    different = len(set(images.paths))
    repeated = "" if different == len(images) else f" ({different} distinct images, repeated)"
    return f"{len(images)} images of {images.name}{repeated}, {os.cpu_count()} cores, load {system_load()}"
