"""Keras networks compiled by OpenVINO for the CPU, and used after their output was compared with Keras's.

The compiled graph includes preprocessing, so its input is pixels. Each image is computed alone, and several in
parallel. On a CPU this is as fast as batches, and the output for an image does not depend on other images.

If the outputs differ, Keras computes. This happens with random weights: the activations of EfficientNetV2L grow to 1e9,
and rounding errors change the vector (cosine 0.7). Keras's own output then differs as much between batches. After its
normalization layers are adapted, all outputs agree (`tests/measured/test_compiled_networks.py`).
"""

import functools
import hashlib
import json
import logging
import os
import secrets
import shutil
import sys
import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
from filelock import FileLock

from helpers import paths
from helpers.images import synthetic

if TYPE_CHECKING:
    import keras
    import openvino

#: Precision of the arithmetic → its name in OpenVINO.
PRECISIONS = {"float32": "f32", "bfloat16": "bf16", "float16": "f16"}
#: Precision → the processor's capability in OpenVINO.
_CAPABILITIES = {"float32": "FP32", "bfloat16": "BF16", "float16": "FP16"}

#: Maximum distance of the compiled output from Keras's, relative to the length of Keras's.
TOLERANCE = 1e-4

#: Number of synthetic images for the comparison.
COMPARED = 4

#: Part of the key of a cached network; another way to store it needs another number.
FORMAT = 2
#: File with the key and the checksums of a cached network.
_FACTS = "network.json"

#: Held during a conversion, which changes a class of OpenVINO and Python's root logger.
_CONVERSION = threading.Lock()


class NotTrusted(RuntimeError):
    """The compiled network's output differs from Keras's; the message has the difference."""


class NotTrustedWarning(UserWarning):
    """Keras computes because the compiled network was not trusted; the message has the reason."""


class PrecisionUnavailable(ValueError):
    """The processor does not support this precision; the message lists those that it supports."""


#: float32 (b, …), or a tuple of them if a model has several outputs.
Output = np.ndarray | tuple[np.ndarray, ...]


class KerasNetwork:
    """A network that Keras computes: the reference for comparisons, and for GPUs.

    model : (b, size, size, 3) → one or several outputs (b, …).
    prepare : float32 pixels (b, size, size, 3) in 0 … 255 → the model's input.
    batch : the only number of images that it takes; None for any.
    """

    engine = "keras"

    def __init__(self, model: "keras.Model", prepare: Callable, size: int, batch: int | None = None):
        import tensorflow as tf

        @tf.function(input_signature=[tf.TensorSpec((batch, size, size, 3), tf.uint8)])
        def step(pixels):
            return model(prepare(tf.cast(pixels, tf.float32)), training=False)

        self.graph = step.get_concrete_function()
        self.size = size
        # Without the model, its weights would be freed, because the graph does not keep them.
        self._model = model

    def __call__(self, pixels: np.ndarray) -> Output:
        """uint8 (b, size, size, 3) → `Output`."""
        found = self.graph(pixels)
        outputs = found if isinstance(found, list | tuple) else [found]
        return _single([np.asarray(output, np.float32) for output in outputs])

    def stream(self, batches: Iterable[tuple[np.ndarray, np.ndarray]]) -> Iterator[tuple[np.ndarray, Output]]:
        """(rows, pixels) → (rows, output), batch by batch."""
        for rows, pixels in batches:
            yield rows, self(pixels)


class CompiledNetwork:
    """A network that OpenVINO computes on all cores, several images at the same time. Raises `PrecisionUnavailable`.

    graph : its input is uint8 (1, height, width, 3).
    single : compute a single image on all cores. On two cores, this takes about half the time. The
        network is compiled twice, which takes the memory of its weights again.
    """

    engine = "openvino"

    def __init__(self, graph: "openvino.Model", precision: str = "float32", single: bool = False):
        check_precision(precision)
        core, settings = openvino_package().Core(), {"INFERENCE_PRECISION_HINT": PRECISIONS[precision]}
        self._compiled = core.compile_model(graph, "CPU", settings | {"PERFORMANCE_HINT": "THROUGHPUT"})
        hint = {"PERFORMANCE_HINT": "LATENCY"}
        self._single = core.compile_model(graph, "CPU", settings | hint) if single else None
        self._shapes = [tuple(output.shape)[1:] for output in self._compiled.outputs]
        #: Number of images that it computes at the same time.
        self.parallel: int = self._compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")
        # Twice as many, so that no core waits for Python.
        self._requests = 2 * self.parallel

    def __call__(self, pixels: np.ndarray) -> Output:
        """uint8 (b, size, size, 3) → `Output`."""
        if self._single is not None and len(pixels) == 1:
            # A request for each call, so that threads can call at the same time.
            found = self._single.create_infer_request().infer({0: np.ascontiguousarray(pixels)})
            return _single([np.array(output, np.float32) for output in found.values()])
        return next(self.stream([(np.arange(len(pixels)), pixels)]))[1]

    def stream(self, batches: Iterable[tuple[np.ndarray, np.ndarray]]) -> Iterator[tuple[np.ndarray, Output]]:
        """(rows, pixels) → (rows, output), in order. The next batch is computed while the current one is used."""
        # Not OpenVINO's AsyncInferQueue: it calls Python from its threads, and sometimes hangs when it is deleted.
        idle = [self._compiled.create_infer_request() for _ in range(self._requests)]
        busy: deque[tuple] = deque()
        pending: deque[tuple] = deque()

        def finish_one() -> None:
            request, row, outputs, _ = busy.popleft()
            request.wait()
            for number, output in enumerate(outputs):
                output[row] = request.get_output_tensor(number).data[0]
            idle.append(request)

        try:
            for rows, pixels in batches:
                pixels = np.ascontiguousarray(pixels)
                outputs = [np.empty((len(pixels), *shape), np.float32) for shape in self._shapes]
                pending.append((rows, outputs))
                for row in range(len(pixels)):
                    if not idle:
                        finish_one()
                    request = idle.pop()
                    image = pixels[row : row + 1]
                    request.start_async({0: image}, share_inputs=True)
                    busy.append((request, row, outputs, image))
                    # Requests finish in order, so all batches before the oldest request's are complete.
                    while pending[0][1] is not busy[0][2]:
                        rows_done, complete = pending.popleft()
                        yield rows_done, _single(complete)
            while busy:
                finish_one()
            for rows, outputs in pending:
                yield rows, _single(outputs)
        finally:
            # After an error or an early end, requests must not compute on freed memory.
            for request, *_ in busy:
                request.wait()


def _single(outputs: list[np.ndarray]) -> Output:
    return tuple(outputs) if len(outputs) > 1 else outputs[0]


def fastest(
    reference: Callable[[], KerasNetwork], name: str, key: dict | None = None, engine: str = "auto",
    precision: str = "float32", unpooled: dict | None = None, single: bool = False,
) -> KerasNetwork | CompiledNetwork:  # fmt: skip
    """The fastest trusted form of a network: Keras if TensorFlow has a GPU, else OpenVINO.

    Parameters
    ----------
    reference : creates the network in Keras. It is not called if the compiled network is cached.
    name : of the network, for messages and files.
    key : plain JSON of everything that changes the output. With a key the compiled network is cached on disk, and the
        next run does not import Keras.
    engine : ``auto``, ``openvino`` or ``keras``.
    precision : of the arithmetic, see `PRECISIONS`. The comparison with Keras always uses float32.
    unpooled : the key of a network whose output is the mean of this one's map. If that network is cached, its last
        layer is removed, which takes a second instead of the import of Keras and a conversion.
    single : see `CompiledNetwork`.

    Raises
    ------
    PrecisionUnavailable : the processor does not support the precision.
    NotTrusted : the compiled network's output differs from Keras's, or OpenVINO cannot compile it. With ``auto`` and
        float32, a `NotTrustedWarning` is issued and Keras computes instead.
    """
    if engine not in ("auto", "openvino", "keras"):
        raise ValueError(f"engine must be auto, openvino or keras; got {engine!r}")
    check_precision(precision)
    if engine == "keras" or (engine == "auto" and precision == "float32" and has_gpu()):
        if precision != "float32":
            raise ValueError(f"{name}: {precision} is computed by openvino, not by keras")
        return reference()
    try:
        graph = _graph(reference, name) if key is None else _cached(reference, name, key, unpooled)
        return CompiledNetwork(graph, precision, single)
    except NotTrusted as error:
        if engine == "openvino" or precision != "float32":
            raise
        warnings.warn(f"{error} Keras computes {name}.", NotTrustedWarning, stacklevel=2)
        return reference()


def check_precision(precision: str) -> None:
    """Raise ValueError for an unknown precision, and `PrecisionUnavailable` if the processor does not support it."""
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}; got {precision!r}")
    if precision == "float32":
        return
    capabilities = openvino_package().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    supported = [name for name in PRECISIONS if name == "float32" or _CAPABILITIES[name] in capabilities]
    if precision not in supported:
        raise PrecisionUnavailable(f"this processor does not support {precision}; it supports {', '.join(supported)}")


def has_gpu() -> bool:
    """Whether TensorFlow can compute on a GPU. It is only imported if a driver is installed."""
    if shutil.which("nvidia-smi") is None and not Path("/proc/driver/nvidia").exists():
        return False
    import tensorflow as tf

    return bool(tf.config.list_physical_devices("GPU"))


def difference(
    network: Callable[[np.ndarray], Output], reference: Callable[[np.ndarray], Output], pixels: np.ndarray
) -> np.ndarray:
    """float64 (b,): distance of the two outputs for each image, relative to the length of the reference's."""
    found, expected = (_flat(compute(pixels)) for compute in (network, reference))
    length = np.linalg.norm(expected, axis=1)
    return np.linalg.norm(found - expected, axis=1) / np.where(length > 0, length, 1)


def _flat(output: Output) -> np.ndarray:
    """float64 (b, n): each image's whole output in one row."""
    parts = output if isinstance(output, tuple) else (output,)
    return np.concatenate([part.reshape(len(part), -1) for part in parts], axis=1, dtype=np.float64)


def processor() -> str:
    """The name of the processor, as OpenVINO reports it, and the number of its cores."""
    return f"{openvino_package().Core().get_property('CPU', 'FULL_DEVICE_NAME')}, {os.cpu_count()} cores"


def without_comparison(keras: KerasNetwork, name: str) -> CompiledNetwork:
    """Compile Keras's graph to measure its speed. Its output must not be used, because it was not compared.

    Raises `NotTrusted` if OpenVINO cannot compile it.
    """
    return _converted(keras, name)[1]


def _converted(keras: KerasNetwork, name: str) -> "tuple[openvino.Model, CompiledNetwork]":
    """Keras's graph for OpenVINO, and its compiled form. Raises `NotTrusted` if that fails."""
    try:
        # By name, because OpenVINO would add unconnected outputs of some networks.
        with _CONVERSION, _root_logger_unchanged(), _variables_are_remembered():
            graph = openvino_package().convert_model(
                keras.graph, output=[tensor.name for tensor in keras.graph.outputs]
            )
        graph.reshape([1, keras.size, keras.size, 3])
        return graph, CompiledNetwork(graph)
    except Exception as error:  # OpenVINO's errors have no other common base
        raise NotTrusted(f"{name} cannot be compiled by OpenVINO ({reason(error)}).") from error


def _graph(reference: Callable[[], KerasNetwork], name: str) -> "openvino.Model":
    """Compile Keras's graph and compare the outputs. Raises `NotTrusted` if they differ, or if compiling fails."""
    keras = reference()
    graph, network = _converted(keras, name)
    # Synthetic, because an installed package contains no photographs.
    off = difference(network, keras, synthetic.photograph_like(COMPARED, keras.size))
    if not (off <= TOLERANCE).all():
        raise NotTrusted(
            f"The output of {name}, compiled by OpenVINO, differs from Keras's by {off.max():.1g} of its length; "
            f"{TOLERANCE:g} is allowed. This happens with random weights: are these trained?"
        )
    return graph


@contextmanager
def _root_logger_unchanged() -> Iterator[None]:
    """A conversion that fails sets Python's root logger to errors only; this restores it."""
    root = logging.getLogger()
    level, filters = root.level, list(root.filters)
    try:
        yield
    finally:
        root.setLevel(level)
        root.filters[:] = filters


@contextmanager
def _variables_are_remembered() -> Iterator[None]:
    """OpenVINO reads each variable about ten times, and searches all of the graph's variables for it each time.

    With the thousand variables of a large network, this is most of the time of a conversion.
    """
    openvino_package()
    from openvino.frontend.tensorflow.node_decoder import TFGraphNodeDecoder

    search = TFGraphNodeDecoder.get_variable
    TFGraphNodeDecoder.get_variable = staticmethod(functools.cache(search))
    try:
        yield
    finally:
        TFGraphNodeDecoder.get_variable = staticmethod(search)


def reason(error: Exception) -> str:
    """The line of a message of OpenVINO with the reason; the others are locations in its source."""
    lines = [line.strip(" -") for line in str(error).splitlines() if line.strip()]
    return next((line for line in lines if "operation" in line.lower()), lines[-1] if lines else repr(error))


def _cached(
    reference: Callable[[], KerasNetwork], name: str, key: dict, unpooled: dict | None = None
) -> "openvino.Model":
    """`_graph`, cached on disk. unpooled : as for `fastest`."""
    folder, key = _place(name, key)
    graph = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_suffix(".lock")):
            graph = _read(folder, name)
            if graph is None:
                graph = (_unpooled(name, unpooled) if unpooled else None) or _graph(reference, name)
                _write(folder, graph, key)
    except OSError as error:
        warnings.warn(
            f"{folder} cannot be written ({error}): {name} is compiled, but not cached. Free some space, or set "
            "LOOKALIKE_CACHE to a writable folder.",
            stacklevel=4,
        )
    return _graph(reference, name) if graph is None else graph


def _place(name: str, key: dict) -> tuple[Path, dict]:
    """The folder of a cached network, and its complete key."""
    key = {**key, "name": name, "format": FORMAT, "openvino": openvino_package().__version__}
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
    return paths.cache_dir() / "compiled" / f"{name}-{digest}", key


def _unpooled(name: str, key: dict) -> "openvino.Model | None":
    """The cached network with this key without its last layer, a mean over a map (1, h, w, channels); None if that is
    not possible.

    It needs no comparison with Keras: the mean of its output is that of the trusted network.
    """
    graph = _read(_place(name, key)[0], name)
    if graph is None or len(graph.outputs) != 1:
        return None
    from openvino import opset8

    # Reshapes behind the mean change no number.
    node = graph.outputs[0].get_node().input_value(0).get_node()
    while node.get_type_name() in ("Reshape", "Squeeze"):
        node = node.input_value(0).get_node()
    axes = node.input_value(1).get_node() if node.get_type_name() == "ReduceMean" else None
    if axes is None or axes.get_type_name() != "Constant" or len(node.input_value(0).get_partial_shape()) != 4:
        return None
    output, pooled = node.input_value(0), sorted(axes.get_vector().astype(int).tolist())
    if pooled == [2, 3]:
        output = opset8.transpose(output, [0, 2, 3, 1]).output(0)
    elif pooled != [1, 2]:
        return None
    return openvino_package().Model([opset8.result(output)], graph.get_parameters(), name)


def _write(folder: Path, graph: "openvino.Model", key: dict) -> None:
    """Store the network. All errors are OSErrors."""
    part = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.part")
    try:
        part.mkdir()
        openvino_package().save_model(graph, part / "network.xml", compress_to_fp16=False)
        sums = {name: _sum(part / name) for name in ("network.xml", "network.bin")}
        (part / _FACTS).write_text(json.dumps({"key": key, "sha256": sums}, indent=1))
        part.replace(folder)
    except RuntimeError as error:  # OpenVINO's
        raise OSError(str(error)) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _read(folder: Path, name: str) -> "openvino.Model | None":
    """The stored network, if there is one; if it is damaged, it is deleted with a warning."""
    if not folder.is_dir():
        return None
    try:
        for file, expected in json.loads((folder / _FACTS).read_text())["sha256"].items():
            if _sum(folder / file) != expected:
                raise ValueError(f"the checksum of {file} is wrong")
        return openvino_package().Core().read_model(folder / "network.xml")
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        warnings.warn(f"{folder} is damaged ({error}): {name} is compiled again.", stacklevel=5)
        shutil.rmtree(folder)
        return None


def _sum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def openvino_package() -> ModuleType:
    """The package, without its telemetry, which would report its import over the network."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # None blocks the import
    import openvino

    return openvino
