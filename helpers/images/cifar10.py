"""CIFAR-10: 60,000 images of 32 × 32 in ten classes (Krizhevsky 2009), keys ``train/…`` and ``test/…``.

It comes as the official Python archive, whose images are converted to PNG files once, or as a folder of image files.
The files are ``{train,test}/<class>/NUMBER``; each class is numbered from 0000 in the order of the official batches.
"""

import io
import pickle
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from helpers.files import write_atomically
from helpers.images import download
from helpers.images.folders import image_files
from helpers.images.imageset import ImageSet, numbered


def load() -> ImageSet:
    """Both splits in one set. Raises `DownloadError` if it is not available."""
    folder = download.fetch("cifar10")
    if (folder / "batches.meta").exists():
        folder = unpack_batches(folder)
    files = image_files(folder)
    class_names, labels = numbered([path.parent.name for path in files])
    return ImageSet("cifar10", tuple(files), labels, class_names, root=folder)


def unpack_batches(folder: Path) -> Path:
    """Convert the official archive's pickled batches to PNG files in ``<folder>-images``, once; resumable."""
    target = folder.with_name(folder.name + "-images")
    complete = target / ".complete"
    if complete.exists():
        return target
    class_names = [name.decode() for name in _unpickle(folder / "batches.meta")[b"label_names"]]
    for split, batches in (("train", sorted(folder.glob("data_batch_*"))), ("test", [folder / "test_batch"])):
        numbers = Counter[str]()
        for batch in map(_unpickle, batches):
            # Each row has 1024 red, 1024 green and 1024 blue values.
            pixels = batch[b"data"].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
            for array, label in zip(pixels, batch[b"labels"], strict=True):
                class_name = class_names[label]
                path = target / split / class_name / f"{numbers[class_name]:04d}.png"
                numbers[class_name] += 1
                if not path.exists():
                    save = partial(Image.fromarray(array).save, format="PNG")
                    write_atomically(path, save, durable=False)
    complete.touch()
    return target


class _ArrayUnpickler(pickle.Unpickler):
    """Loads only NumPy arrays and plain containers, which is all that CIFAR's batches consist of."""

    ALLOWED = {
        ("numpy.core.multiarray", "_reconstruct"),
        ("numpy._core.multiarray", "_reconstruct"),
        ("numpy", "ndarray"),
        ("numpy", "dtype"),
        ("_codecs", "encode"),
    }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.ALLOWED:
            raise pickle.UnpicklingError(f"a CIFAR batch cannot contain {module}.{name}; the file was not read")
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)


def _unpickle(path: Path) -> dict:
    return _ArrayUnpickler(io.BytesIO(path.read_bytes()), encoding="bytes").load()
