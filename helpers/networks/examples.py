"""Training examples: images or arrays, which Keras reads in batches of row numbers."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from helpers.images import reading
from helpers.images.imageset import ImageSet

if TYPE_CHECKING:
    import tensorflow as tf

#: Decoded images up to this size in bytes stay in memory after the first epoch.
KEEP_BYTES = 1 << 29


class Examples:
    """Inputs and labels by row number, from `images`, `arrays` or another function that loads rows.

    load : int64 (b,) row numbers → inputs (b, …) of these rows.
    labels : int (n,), the class or identity of each row; distractors (below 0) are not allowed.
    fingerprint : equal for equal examples.
    """

    def __init__(self, load: Callable[[np.ndarray], np.ndarray], labels: ArrayLike, fingerprint: str):
        found = np.asarray(labels)
        if found.ndim != 1 or not len(found):
            raise ValueError(f"examples need labels (n,) of at least one row, got shape {found.shape}")
        if found.dtype.kind not in "iu":
            raise ValueError(f"labels must be integers, the class number of each row; got {found.dtype}")
        self.labels = found.astype(np.int64)
        if self.labels.min() < 0:
            raise ValueError(
                f"{(self.labels < 0).sum()} examples have no class (label below 0): leave distractors out of training"
            )
        self.load, self.fingerprint = load, fingerprint
        self._readers: dict[int | None, Callable] = {}
        self._failure: Exception | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def batches(self, rows: np.ndarray, batch_size: int, one_hot: int | None = None) -> "tf.data.Dataset":
        """Batches of (inputs, labels) in the order of ``rows``, int64 (m,); two batches are loaded ahead.

        one_hot : number of classes, for labels float32 (b, classes) instead of int64 (b,).
        """
        import tensorflow as tf

        order = tf.data.Dataset.from_tensor_slices(np.asarray(rows, dtype=np.int64)).batch(batch_size)
        return self._read(order, one_hot)

    def epochs(
        self, rows: Callable[[int], np.ndarray], numbers: range, batch_size: int, one_hot: int | None = None
    ) -> "tf.data.Dataset":
        """The batches of several epochs, one after the other.

        A training needs ``steps_per_epoch`` for it. It then uses one iterator; for a dataset of one epoch, Keras makes
        two iterators for each epoch, which takes longer than a step of a small network.

        rows : number of an epoch → int64 (m,), the rows in their order. No batch has rows of two epochs.
        numbers : the numbers of the epochs.
        one_hot : see `batches`.
        """
        import tensorflow as tf

        def order_of(epoch: "tf.Tensor") -> "tf.data.Dataset":
            found = tf.ensure_shape(tf.numpy_function(lambda number: rows(int(number)), [epoch], tf.int64), (None,))
            return tf.data.Dataset.from_tensor_slices(found).batch(batch_size)

        return self._read(tf.data.Dataset.range(numbers.start, numbers.stop).flat_map(order_of), one_hot)

    def _read(self, order: "tf.data.Dataset", one_hot: int | None) -> "tf.data.Dataset":
        import tensorflow as tf

        # There is nothing to tune, and the end of an iteration would wait for the tuner, up to the time of an epoch.
        options = tf.data.Options()
        options.autotune.enabled = False
        read = order.map(self._reader(one_hot), num_parallel_calls=2, deterministic=True)
        return read.prefetch(2).with_options(options)

    @contextmanager
    def original_errors(self) -> Iterator[None]:
        """In this block an error of ``load`` is raised as it is; TensorFlow would wrap it."""
        self._failure = None
        try:
            yield
        except Exception as error:
            if self._failure is None:
                raise
            raise self._failure from error

    def _reader(self, one_hot: int | None) -> Callable:
        """int64 (b,) rows → (inputs, labels), as a graph. It is cached, because tracing takes longer than a batch."""
        import tensorflow as tf

        if one_hot not in self._readers:
            one = self.load(np.zeros(1, dtype=np.int64))

            @tf.function(input_signature=[tf.TensorSpec((None,), tf.int64)])
            def read(rows):
                inputs = tf.numpy_function(self._loaded, [rows], one.dtype)
                inputs.set_shape((None, *one.shape[1:]))
                labels = tf.gather(tf.constant(self.labels), rows)
                return inputs, labels if one_hot is None else tf.one_hot(labels, one_hot)

            self._readers[one_hot] = read
        return self._readers[one_hot]

    def _loaded(self, rows: np.ndarray) -> np.ndarray:
        try:
            return self.load(rows)
        except Exception as error:
            self._failure = error
            raise


def images(images: ImageSet, size: int, rule: str = "squash") -> Examples:
    """Examples of uint8 (size, size, 3) images, decoded by two threads; small sets are decoded once.

    Loading raises `UnreadableImage` for an image that cannot be read (`reading.readable` removes these).
    """
    shape = (len(images), size, size, 3)
    cache = np.empty(shape, np.uint8) if np.prod(shape) <= KEEP_BYTES else None
    cached = np.zeros(len(images), bool)
    pool = ThreadPoolExecutor(2)

    def decode(row: int) -> np.ndarray:
        return reading.resize(reading.read_image(images.paths[row]), size, rule)

    def load(rows: np.ndarray) -> np.ndarray:
        if cache is None:
            return np.stack(list(pool.map(decode, rows)))
        missing = np.unique(rows[~cached[rows]])
        for row, pixels in zip(missing, pool.map(decode, missing), strict=True):
            cache[row] = pixels
            cached[row] = True
        return cache[rows]

    digest = hashlib.sha256(f"{size} {rule} {images.labels.tolist()}".encode())
    for path in images.paths:
        # Loading reports missing files.
        digest.update(hashlib.sha256(path.read_bytes() if path.is_file() else b"").digest())
    return Examples(load, images.labels, digest.hexdigest())


def arrays(inputs: np.ndarray, labels: Sequence[int] | np.ndarray) -> Examples:
    """Examples of arrays (n, …): pixels, vectors or feature maps. float16 becomes float32.

    Of a memory-mapped file, only the rows of a batch are read.
    """
    if len(inputs) != len(labels):
        raise ValueError(f"there are {len(inputs)} inputs for {len(labels)} labels")
    inputs = np.asarray(inputs)
    digest = hashlib.sha256(f"{inputs.dtype} {inputs.shape} {np.asarray(labels).tolist()}".encode())
    for start in range(0, len(inputs), 256):
        digest.update(np.ascontiguousarray(inputs[start : start + 256]).data)
    # Not every processor computes with float16, and TensorFlow prints a warning during training.
    dtype = np.float32 if inputs.dtype == np.float16 else inputs.dtype
    return Examples(lambda rows: np.ascontiguousarray(inputs[rows], dtype), labels, digest.hexdigest())
