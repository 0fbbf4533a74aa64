"""One table of all networks of the zoo: size, arithmetic, what fine-tuning trains, speed, and scores.

Structure and speed do not depend on the weights, so networks without trained weights are built with random ones. Scores
are only measured with trained weights that are on this computer; nothing is downloaded.
"""

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property
from importlib.metadata import version
from statistics import median
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from helpers import extras
from helpers.evaluation import metrics, runner
from helpers.evaluation.metrics import Scores
from helpers.evaluation.protocol import Protocol
from helpers.features import results
from helpers.features.registry import open_extractor
from helpers.images import synthetic
from helpers.images.imageset import ImageSet
from helpers.networks import compiled, specs, transfer, weights, zoo
from helpers.search.index import open_index
from helpers.visualization import tables

if TYPE_CHECKING:
    import keras

with extras.importing("notebooks", "IPython"):
    from IPython.display import Markdown

#: Operations of TensorFlow that count: convolutions and dense layers. Published numbers count the same, or a few
#: percent more if they include normalizations and activations.
OPERATIONS = ("Conv2D", "DepthwiseConv2dNative", "MatMul")
METRICS = ("top-1", "top-3", "top-5", "top-10", "mAP")
NO_WEIGHTS = "not measured: no weights here"
STRUCTURE = (
    "network", "input", "million parameters", "GFLOPs (2 × multiply-adds)", "layers frozen", "layers trained",
    "dimensions", "ms per image",
)  # fmt: skip
COLUMNS = (*STRUCTURE, *METRICS, "mAP low", "mAP high", "scores")

#: A measurement of the speed is repeated this often, unless it has taken this many seconds.
_ROUNDS, _SECONDS = 5, 1.0
#: Part of the keys of stored facts and times. Raise it when a function below changes its results.
_VERSION = 1


@dataclass(frozen=True)
class NetworkFacts:
    """The structure of a network up to its embedding, at its own input size.

    size : side of the input in pixels.
    parameters : number of values in all layers, including the statistics of batch normalizations.
    flops : floating-point operations for one image: 2 for each multiply-add of convolutions and dense layers.
    frozen, trained : number of layers with weights that `helpers.networks.transfer.freeze` freezes and trains.
    dim : length of the embedding.
    """

    name: str
    size: int
    parameters: int
    flops: int
    frozen: int
    trained: int
    dim: int


def describe_networks(names: Sequence[str] | None = None) -> list[NetworkFacts]:
    """Describe the structure of networks, by default all of the zoo.

    Each network is built once, with random weights. Its facts are then read from the cache, until the network's row in
    `helpers.networks.specs.ZOO` or the version of Keras changes.
    """
    return [_facts(_Untrained(name)) for name in _names(names)]


def measure_speed(name: str, images: int = 4) -> float:
    """Milliseconds per image of a compiled network on this computer, with random weights.

    The time does not depend on the values of the weights. It includes preprocessing, but not reading images. The
    network computes several images at the same time, so that all cores are used; the time is that of all images divided
    by their number, the median of up to `_ROUNDS` rounds.

    images : number of images in one round; at least twice the number that the network computes at the same time.
    """
    return _milliseconds(_Untrained(name), images)


def score_networks(
    protocol: Protocol, images: ImageSet, names: Sequence[str] | None = None, progress: bool = False
) -> dict[str, Scores]:
    """Score the networks whose trained weights are on this computer, off the shelf, by cosine.

    images : row i is image i of the protocol, see `Protocol.bind`.
    names : networks, by default all of the zoo. Those without weights here are left out.
    """
    scores = {}
    for name in with_weights(names):
        vectors = open_extractor(name).extract(images, progress=progress)
        scores[name] = metrics.evaluate(runner.run(protocol, vectors, open_index("exact:cosine")), protocol)
    return scores


def with_weights(names: Sequence[str] | None = None) -> list[str]:
    """Those of the networks, by default of the zoo, whose trained weights are on this computer."""
    return [name for name in _names(names) if weights.local(name)]


def zoo_table(protocol: Protocol, images: ImageSet, names: Sequence[str] | None = None) -> pd.DataFrame:
    """Structure, speed and scores of networks, by default of all: one row each, then chance and ceiling of the scores.

    For protocol and images see `score_networks`. Speed is measured once on a computer, and then read from the cache.

    Returns
    -------
    The table with `COLUMNS`. ``mAP low`` and ``mAP high`` bound the 95 % bootstrap interval over queries. Scores of
    networks without trained weights are NaN, and the column ``scores`` says so.
    """
    scores = score_networks(protocol, images, names)
    lines = []
    for name in _names(names):
        network = _Untrained(name)
        line = dict(zip(STRUCTURE, (*_structure(_facts(network)), _speed(network)), strict=True))
        if name in scores:
            rows = scores[name].table().set_index("metric")
            line |= {metric: rows.loc[metric, "value"] for metric in METRICS}
            line |= {"mAP low": rows.loc["mAP", "low"], "mAP high": rows.loc["mAP", "high"], "scores": "measured"}
        lines.append({"scores": NO_WEIGHTS} | line)
    if scores:
        rows = next(iter(scores.values())).table().set_index("metric")
        for bound in ("chance", "ceiling"):
            lines.append({"network": bound, "scores": ""} | {metric: rows.loc[metric, bound] for metric in METRICS})
    return pd.DataFrame(lines, columns=list(COLUMNS))


def show(table: pd.DataFrame) -> Markdown:
    """Format a table of `zoo_table` as Markdown. The caption names the processor."""
    lines = []
    for row in table.to_dict("records"):
        line = {name: _text(row[name], digits) for name, digits in _DIGITS.items()}
        if not pd.isna(row["mAP low"]):
            line["mAP"] += f" [{row['mAP low']:.3f}, {row['mAP high']:.3f}]"
        bound = row["network"] in ("chance", "ceiling")
        lines.append(
            {"network": f"*{row['network']}*" if bound else row["network"]}
            | {name: f"*{value}*" if bound and value else value for name, value in line.items()}
            | {"scores": row["scores"]}
        )
    caption = (
        "Up to the embedding, at the network's own input size. FLOPs are those of convolutions and dense layers. "
        f"Times: {compiled.processor()}, OpenVINO {version('openvino')}, several images at the same time, random "
        "weights (their values do not change the time), measured once and then read from the cache."
    )
    return Markdown(f"{caption}\n\n{tables.markdown(pd.DataFrame(lines)).data}")


#: Column → number of decimals in `show`.
_DIGITS = dict(zip(STRUCTURE[1:], (0, 1, 2, 0, 0, 0, 1), strict=True)) | dict.fromkeys(METRICS, 3)


def _text(value: float, digits: int) -> str:
    return "" if pd.isna(value) else f"{value:,.{digits}f}"


class _Untrained:
    """A network up to its embedding with random weights, built on first use."""

    def __init__(self, name: str):
        self.row = specs.network(name)

    @cached_property
    def model(self) -> "keras.Model":
        return specs.embedding_architecture(self.row.name)

    @cached_property
    def keras(self) -> compiled.KerasNetwork:
        """For single images, because the profiler counts only tensors of known size."""
        return compiled.KerasNetwork(self.model, zoo.preprocessing(self.row.name), self.row.size, batch=1)


def _names(names: Sequence[str] | None) -> list[str]:
    return [specs.network(name).name for name in (specs.ZOO if names is None else names)]


def _structure(facts: NetworkFacts) -> tuple:
    """The values of the columns `STRUCTURE`, without the time."""
    return (
        facts.name, facts.size, facts.parameters / 1e6, facts.flops / 1e9, facts.frozen, facts.trained, facts.dim,
    )  # fmt: skip


def _key(row: specs.Network) -> dict:
    return {"network": asdict(row), "keras": version("keras"), "version": _VERSION}


def _facts(network: _Untrained) -> NetworkFacts:
    row = network.row

    def compute() -> dict[str, np.ndarray]:
        frozen, trained = transfer.freeze(network.model, row.frozen_until)
        parameters, dim = network.model.count_params(), network.model.output_shape[-1]
        counts = (parameters, _flops(network.keras), len(frozen), len(trained), dim)
        return {"counts": np.array(counts, np.int64)}

    counts = results.cached(f"zoo-structure-{row.name}", _key(row), compute)["counts"]
    return NetworkFacts(row.name, row.size, *counts.tolist())


def _speed(network: _Untrained) -> float:
    """`measure_speed`, stored for this processor."""
    key = _key(network.row) | {"processor": compiled.processor(), "openvino": version("openvino")}
    name = f"zoo-speed-{network.row.name}"
    return float(results.cached(name, key, lambda: {"milliseconds": np.array(_milliseconds(network))})["milliseconds"])


def _milliseconds(network: _Untrained, images: int = 4) -> float:
    run = compiled.without_comparison(network.keras, network.row.name)
    count = max(images, 2 * run.parallel)
    pixels = synthetic.photograph_like(2, network.row.size)[np.arange(count) % 2]
    # The first images allocate memory.
    run(pixels[: run.parallel])
    seconds: list[float] = []
    while len(seconds) < _ROUNDS and sum(seconds) < _SECONDS:
        start = time.perf_counter()
        run(pixels)
        seconds.append(time.perf_counter() - start)
    return 1000 * median(seconds) / count


def _flops(network: compiled.KerasNetwork) -> int:
    """Floating-point operations for one image, counted by TensorFlow's profiler."""
    import tensorflow as tf

    profiler = tf.compat.v1.profiler
    builder = profiler.ProfileOptionBuilder(profiler.ProfileOptionBuilder.float_operation())
    options = builder.with_accounted_types(list(OPERATIONS)).with_empty_output().build()
    with _errors_only(tf.get_logger()):  # the profiler itself calls a deprecated function
        return profiler.profile(network.graph.graph, cmd="op", options=options).total_float_ops


@contextmanager
def _errors_only(logger: logging.Logger) -> Iterator[None]:
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
