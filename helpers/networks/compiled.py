"""A network compiled for the processor: OpenVINO computes what Keras defines, and is trusted after a comparison.

The same graph is given to both, preprocessing included, so what is compiled takes an image's pixels. Images go
through one by one, several at a time: on a processor that is as fast as batches, and the output for an image then
does not depend on what was computed beside it.

Where the two disagree, Keras computes. That happens to networks that nobody trained: with random weights the
activations of EfficientNetV2L grow to 1e9, and a rounding error on the way becomes another vector (cosine 0.7). Keras
disagrees with itself as much there, as soon as the images come in other batches; once its normalization layers know
the activations, all agree. `tests/measured/test_compiled_networks.py` holds that.
"""

import hashlib
import json
import logging
import secrets
import shutil
import sys
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from filelock import FileLock

from helpers import paths
from helpers.images import synthetic

if TYPE_CHECKING:
    import keras
    import openvino

#: What a network may be computed in → what OpenVINO calls it.
PRECISIONS = {"float32": "f32", "bfloat16": "bf16", "float16": "f16"}

#: How far the compiled output of an image may be from Keras's, over the length of Keras's.
TOLERANCE = 1e-4

#: Synthetic images that both compute before the compiled form is trusted.
COMPARED = 4

FORMAT = 1


class NotTrusted(RuntimeError):
    """The compiled network's output is not Keras's; the message says how far it is off."""


class NotTrustedWarning(UserWarning):
    """Keras computes because the compiled form was not trusted; the message says why."""


class PrecisionUnavailable(ValueError):
    """This processor has no such arithmetic; the message lists what it has."""


class KerasNetwork:
    """The reference, and what runs on a GPU: pixels to output by Keras, one graph for every batch size.

    Parameters
    ----------
    model : (b, size, size, 3) → (b, …), or several of them, which then come as a tuple.
    prepare : pixels 0 … 255, float32 (b, size, size, 3) → the model's own input.
    size : side of an image.
    """

    engine = "keras"

    def __init__(self, model: "keras.Model", prepare: Callable, size: int):
        import tensorflow as tf

        @tf.function(input_signature=[tf.TensorSpec((None, size, size, 3), tf.uint8)])
        def step(pixels):
            return model(prepare(tf.cast(pixels, tf.float32)), training=False)

        self.graph = step.get_concrete_function()
        # The graph alone does not keep the weights in memory.
        self._model = model

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        """uint8 (b, size, size, 3) → float32 (b, …), or a tuple of them."""
        found = self.graph(pixels)
        if not isinstance(found, list | tuple):
            found = [found]
        found = tuple(np.asarray(output, np.float32) for output in found)
        return found if len(found) > 1 else found[0]

    def stream(self, batches: Iterable[tuple[np.ndarray, np.ndarray]]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """(rows, pixels) → (rows, output), batch by batch."""
        for rows, pixels in batches:
            yield rows, self(pixels)


class CompiledNetwork:
    """A network that OpenVINO computes, on all cores.

    Parameters
    ----------
    graph : takes uint8 (1, size, size, 3).
    precision : a key of `PRECISIONS`.

    Raises
    ------
    PrecisionUnavailable : the processor can't compute so.
    """

    engine = "openvino"

    def __init__(self, graph: "openvino.Model", precision: str = "float32"):
        check_precision(precision)
        settings = {"PERFORMANCE_HINT": "THROUGHPUT", "INFERENCE_PRECISION_HINT": PRECISIONS[precision]}
        self._compiled = _openvino().Core().compile_model(graph, "CPU", settings)
        self._shapes = [tuple(output.shape)[1:] for output in self._compiled.outputs]
        # As many again wait their turn, so that no core does while Python looks after what is done.
        self._at_once = 2 * self._compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        """uint8 (b, size, size, 3) → float32 (b, …), or a tuple of them."""
        return next(self.stream([(np.arange(len(pixels)), pixels)]))[1]

    def stream(self, batches: Iterable[tuple[np.ndarray, np.ndarray]]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """(rows, pixels) → (rows, output), in order; the next batch is computed while this one is used."""
        # Requests take turns. OpenVINO's own queue of requests calls back into Python from its threads, and when it is
        # taken down it now and then waits for ever.
        idle = [self._compiled.create_infer_request() for _ in range(self._at_once)]
        busy: deque[tuple] = deque()
        waiting: deque[tuple] = deque()

        def finish_one():
            request, row, outputs, _ = busy.popleft()
            request.wait()
            for number, output in enumerate(outputs):
                output[row] = request.get_output_tensor(number).data[0]
            idle.append(request)

        def given(rows, outputs):
            return rows, outputs if len(outputs) > 1 else outputs[0]

        try:
            for rows, pixels in batches:
                pixels = np.ascontiguousarray(pixels)
                outputs = tuple(np.empty((len(pixels), *shape), np.float32) for shape in self._shapes)
                waiting.append((rows, outputs))
                for row in range(len(pixels)):
                    if not idle:
                        finish_one()
                    request = idle.pop()
                    image = pixels[row : row + 1]
                    request.start_async({0: image}, share_inputs=True)
                    busy.append((request, row, outputs, image))
                    # They finish in order: once one of this batch is the oldest, all before it are done.
                    while waiting[0][1] is not busy[0][2]:
                        yield given(*waiting.popleft())
            while busy:
                finish_one()
            while waiting:
                yield given(*waiting.popleft())
        finally:
            # Left early, by an error or because no more is wanted: nothing may be computed on freed memory.
            for request, *_ in busy:
                request.wait()


def fastest(
    reference: Callable[[], KerasNetwork],
    name: str,
    key: dict | None = None,
    engine: str = "auto",
    precision: str = "float32",
) -> KerasNetwork | CompiledNetwork:
    """What computes a network here: Keras where TensorFlow has a GPU, else the compiled form, once it is trusted.

    Parameters
    ----------
    reference : makes the network in Keras; not called where a compiled form is on disk.
    name : of the network, for messages and files.
    key : plain JSON that stands for everything that changes the output. The compiled form is then kept under
        ``compiled/`` in the cache, where the next run finds it and does not even import Keras.
    engine : ``openvino`` or ``keras`` to insist on one; ``auto``.
    precision : of the arithmetic, see `PRECISIONS`; the comparison with Keras is made in float32 all the same.

    Raises
    ------
    ValueError : there is no such engine, or Keras should compute in another precision than float32.
    PrecisionUnavailable : the processor can't compute so.
    NotTrusted : the compiled form failed, and Keras may not step in: OpenVINO or another precision was asked for. With
        ``auto`` and float32 Keras computes then, after a `NotTrustedWarning`.
    """
    if engine not in ("auto", "openvino", "keras"):
        raise ValueError(f"engine must be auto, openvino or keras; got {engine!r}")
    check_precision(precision)
    if engine == "keras" or (engine == "auto" and precision == "float32" and has_gpu()):
        if precision != "float32":
            raise ValueError(f"{name}: {precision} is computed by openvino, not by keras")
        return reference()
    try:
        return CompiledNetwork(_graph(reference, name) if key is None else _kept(reference, name, key), precision)
    except NotTrusted as error:
        if engine == "openvino" or precision != "float32":
            raise
        warnings.warn(f"{error} Keras computes {name}.", NotTrustedWarning, stacklevel=2)
        return reference()


def check_precision(precision: str) -> None:
    """
    Raises
    ------
    ValueError : there is no such precision.
    PrecisionUnavailable : the processor can't compute so.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}; got {precision!r}")
    if precision == "float32":
        return
    there = _openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    wanted = {"bfloat16": "BF16", "float16": "FP16"}
    if wanted[precision] not in there:
        can = [name for name in PRECISIONS if name == "float32" or wanted[name] in there]
        raise PrecisionUnavailable(f"this processor can't compute in {precision}; it can in {', '.join(can)}")


def has_gpu() -> bool:
    """Whether TensorFlow can compute on a GPU; it is not imported to ask where there is no driver of one."""
    if shutil.which("nvidia-smi") is None and not Path("/proc/driver/nvidia").exists():
        return False
    import tensorflow as tf

    return bool(tf.config.list_physical_devices("GPU"))


def difference(network, reference, pixels: np.ndarray) -> np.ndarray:
    """float64 (b,): how far the two outputs for each image are apart, over the length of the reference's."""
    found, wanted = (_flat(each(pixels)) for each in (network, reference))
    length = np.linalg.norm(wanted, axis=1)
    return np.linalg.norm(found - wanted, axis=1) / np.where(length > 0, length, 1)


def _flat(output: np.ndarray | tuple[np.ndarray, ...]) -> np.ndarray:
    """float64 (b, n): each image's whole output in one row."""
    parts = output if isinstance(output, tuple) else (output,)
    return np.concatenate([part.reshape(len(part), -1) for part in parts], axis=1, dtype=np.float64)


def _graph(reference: Callable[[], KerasNetwork], name: str) -> "openvino.Model":
    """OpenVINO's form of Keras's graph, after it gave Keras's output for synthetic images.

    Raises
    ------
    NotTrusted : it did not, or there are operations in it that OpenVINO does not know.
    """
    keras = reference()
    size = keras.graph.structured_input_signature[0][0].shape[1]
    try:
        # By name: of some networks OpenVINO would give what lies on loose ends, too.
        with _root_logger_unchanged():
            graph = _openvino().convert_model(keras.graph, output=[tensor.name for tensor in keras.graph.outputs])
        graph.reshape([1, size, size, 3])
        network = CompiledNetwork(graph)
    except Exception as error:  # OpenVINO's errors have nothing else in common
        raise NotTrusted(f"{name} can't be compiled by OpenVINO ({_in_short(error)}).") from error
    # Not photographs from files: an installed package has none.
    off = difference(network, keras, synthetic.photograph_like(COMPARED, size))
    if not (off <= TOLERANCE).all():
        raise NotTrusted(
            f"{name} as compiled by OpenVINO gives other output than Keras: off by {off.max():.1g} of its length, and "
            f"{TOLERANCE:g} is allowed. A network with random weights does that; are these trained?"
        )
    return graph


@contextmanager
def _root_logger_unchanged() -> Iterator[None]:
    """A conversion that fails sets Python's root logger to errors only, which would hide the warnings of all others."""
    root = logging.getLogger()
    level, filters = root.level, list(root.filters)
    try:
        yield
    finally:
        root.setLevel(level)
        root.filters[:] = filters


def _in_short(error: Exception) -> str:
    """The line that says what is wrong; around it stand places in OpenVINO's source."""
    lines = [line.strip(" -") for line in str(error).splitlines() if line.strip()]
    return next((line for line in lines if "operation" in line.lower()), lines[-1] if lines else repr(error))


def _kept(reference: Callable[[], KerasNetwork], name: str, key: dict) -> "openvino.Model":
    """`_graph`, from the cache where it was made before."""
    openvino = _openvino()
    key = {**key, "name": name, "format": FORMAT, "openvino": openvino.__version__}
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
    folder = paths.cache_dir() / "compiled" / f"{name}-{digest}"
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder.with_suffix(".lock"))
        lock.acquire()
    except OSError as error:
        warnings.warn(f"{folder} can't be written ({error}): {name} is compiled, but not kept.", stacklevel=4)
        return _graph(reference, name)
    try:
        if folder.is_dir():
            try:
                return _read(folder)
            except (OSError, ValueError, KeyError, RuntimeError) as error:
                warnings.warn(f"{folder} is damaged ({error}): {name} is compiled again.", stacklevel=4)
                shutil.rmtree(folder)
        graph = _graph(reference, name)
        try:
            _write(folder, graph, key)
        except (OSError, RuntimeError) as error:
            warnings.warn(f"{folder} can't be written ({error}): {name} is compiled, but not kept.", stacklevel=4)
        return graph
    finally:
        lock.release()


def _write(folder: Path, graph: "openvino.Model", key: dict) -> None:
    part = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.part")
    try:
        part.mkdir()
        _openvino().save_model(graph, part / "network.xml", compress_to_fp16=False)
        sums = {name: _sum(part / name) for name in ("network.xml", "network.bin")}
        (part / "card.json").write_text(json.dumps({"key": key, "sha256": sums}, indent=1))
        part.replace(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _read(folder: Path) -> "openvino.Model":
    for name, expected in json.loads((folder / "card.json").read_text())["sha256"].items():
        if _sum(folder / name) != expected:
            raise ValueError(f"the checksum of {name} is wrong")
    return _openvino().Core().read_model(folder / "network.xml")


def _sum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _openvino():
    """The package, without the part of it that reports its use over the network."""
    # It does so at its import already; where that part can't be imported, it goes without.
    sys.modules.setdefault("openvino_telemetry", None)
    import openvino

    return openvino
