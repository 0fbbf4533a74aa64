"""What a network learns from: images or arrays by row number, handed to Keras in shuffled batches."""

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from helpers.images import reading
from helpers.images.imageset import ImageSet

if TYPE_CHECKING:
    import tensorflow as tf

#: Up to this many bytes decoded images stay in memory after the first epoch.
KEEP_BYTES = 1 << 29


class Examples:
    """Inputs and labels by row number.

    Made by `images` or `arrays`; whatever can load rows will do.

    Parameters
    ----------
    load : int64 (b,) row numbers → inputs (b, …) of those rows, in their order.
    labels : int (n,), the class or identity of each row.
    fingerprint : two sets of examples with equal fingerprints teach the same.

    Raises
    ------
    ValueError : there are no rows, labels that are no integers, or a label below 0: distractors teach no class, leave
        them out.
    """

    def __init__(self, load: Callable[[np.ndarray], np.ndarray], labels: Sequence[int], fingerprint: str):
        found = np.asarray(labels)
        if found.ndim != 1 or not len(found):
            raise ValueError(f"examples need labels (n,) of at least one row, got shape {found.shape}")
        if found.dtype.kind not in "iu":
            raise ValueError(f"labels are integers, the number of each row's class; got {found.dtype}")
        self.labels = found.astype(np.int64)
        if self.labels.min() < 0:
            raise ValueError(
                f"{(self.labels < 0).sum()} examples have no class (label below 0): leave distractors out of training"
            )
        self.load = load
        self.fingerprint = fingerprint
        self._readers: dict[int | None, Callable] = {}
        self._failure: Exception | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        return f"Examples({len(self)} of {len(np.unique(self.labels))} classes)"

    def batches(
        self, rows: np.ndarray | Callable[[], np.ndarray], batch_size: int, one_hot: int | None = None
    ) -> "tf.data.Dataset":
        """Batches of (inputs, labels) in the order of ``rows``; two batches are loaded ahead.

        rows : int64 (m,), or a function that is called for them at the beginning of each pass; m is always the same.
        one_hot : number of classes for float32 (b, classes) labels, None for int64 (b,).
        """
        import tensorflow as tf

        if callable(rows):
            once = tf.data.Dataset.from_tensors(0).map(lambda _: tf.numpy_function(rows, [], tf.int64))
            order = once.map(lambda row: tf.ensure_shape(row, (None,))).unbatch().batch(batch_size)
            order = order.apply(tf.data.experimental.assert_cardinality(-(-len(rows()) // batch_size)))
        else:
            order = tf.data.Dataset.from_tensor_slices(np.asarray(rows, dtype=np.int64)).batch(batch_size)
        # There is nothing to tune, and whoever lets go of the batches waits for the tuner: up to an epoch's time again.
        options = tf.data.Options()
        options.autotune.enabled = False
        read = order.map(self._reader(one_hot), num_parallel_calls=2, deterministic=True)
        return read.prefetch(2).with_options(options)

    @contextmanager
    def own_errors(self):
        """Within it, what loading raises while batches are used comes out as it is; TensorFlow would wrap it."""
        self._failure = None
        try:
            yield
        except Exception as error:
            if self._failure is None:
                raise
            raise self._failure from error

    def _reader(self, one_hot: int | None):
        """int64 (b,) rows → (inputs, labels), as a graph; tracing it takes longer than a batch, so it is kept."""
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
    """Examples of uint8 (size, size, 3) images, decoded on two threads; small sets are decoded only once.

    Raises
    ------
    UnreadableImage : when an image is loaded that can't be read (`reading.readable` drops those before).
    """
    shape = (len(images), size, size, 3)
    kept = np.empty(shape, np.uint8) if np.prod(shape) <= KEEP_BYTES else None
    here = np.zeros(len(images), bool)
    pool = ThreadPoolExecutor(2)

    def decoded(row):
        return reading.resize(reading.read_image(images.paths[row]), size, rule)

    def load(rows):
        if kept is None:
            return np.stack(list(pool.map(decoded, rows)))
        missing = np.unique(rows[~here[rows]])
        for row, pixels in zip(missing, pool.map(decoded, missing), strict=True):
            kept[row] = pixels
            here[row] = True
        return kept[rows]

    digest = hashlib.sha256(f"{size} {rule} {images.labels.tolist()}".encode())
    for path in images.paths:
        # A file that can't be opened is named when it is loaded.
        digest.update(hashlib.sha256(path.read_bytes() if path.is_file() else b"").digest())
    return Examples(load, images.labels, digest.hexdigest())


def arrays(inputs: np.ndarray, labels: Sequence[int]) -> Examples:
    """Examples of arrays (n, …): pixels, vectors, or feature maps in a memory-mapped file, of which only the rows of a
    batch are read into memory. float16 comes out as float32.

    Raises
    ------
    ValueError : as many labels as rows are needed.
    """
    if len(inputs) != len(labels):
        raise ValueError(f"there are {len(inputs)} inputs for {len(labels)} labels")
    inputs = np.asarray(inputs)
    digest = hashlib.sha256(f"{inputs.dtype} {inputs.shape} {np.asarray(labels).tolist()}".encode())
    for start in range(0, len(inputs), 256):
        digest.update(np.ascontiguousarray(inputs[start : start + 256]))
    # Not every processor computes with float16, and TensorFlow says so in the middle of a training.
    given = np.float32 if inputs.dtype == np.float16 else inputs.dtype
    return Examples(lambda rows: np.ascontiguousarray(inputs[rows], given), labels, digest.hexdigest())
