"""One table of all networks of the zoo: size, arithmetic, what fine-tuning trains, speed, and scores.

Structure and speed do not depend on the weights, so networks without trained weights are built with random ones. Scores
are only measured with trained weights that are on this computer; nothing is downloaded.
"""

import time
from collections.abc import Sequence
from dataclasses import asdict
from functools import lru_cache
from importlib.metadata import version
from statistics import median
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from helpers import extras, logs
from helpers.evaluation.protocol import Protocol
from helpers.features import results
from helpers.features.registry import open_extractor
from helpers.images import synthetic
from helpers.images.imageset import ImageSet
from helpers.lessons.extractor_comparison import search
from helpers.networks import compiled, specs, transfer, weights, zoo
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
#: Of a network up to its embedding, at its own input size. Parameters include the statistics of batch normalizations;
#: layers are those with weights that `helpers.networks.transfer.freeze` freezes and trains.
STRUCTURE = (
    "network", "input", "million parameters", "GFLOPs (2 × multiply-adds)", "layers frozen", "layers trained",
    "dimensions", "ms per image",
)  # fmt: skip
COLUMNS = (*STRUCTURE, *METRICS, "mAP low", "mAP high", "scores")

#: A measurement of the speed is repeated this often, unless it has taken this many seconds.
_ROUNDS, _SECONDS = 5, 1.0
#: Part of the keys of stored facts and times. Raise it when a function below changes its results.
_VERSION = 1


def with_weights(names: Sequence[str]) -> list[str]:
    """Those of the networks whose trained weights are on this computer."""
    return [row.name for row in map(specs.network, names) if weights.local(row.name)]


def zoo_table(protocol: Protocol, images: ImageSet, names: Sequence[str]) -> pd.DataFrame:
    """Structure, speed and scores of networks: one row each, then chance and ceiling of the scores.

    Structure and speed are measured once, and then read from the cache. Networks are scored off the shelf, by cosine.

    images : row *i* is image *i* of the protocol, see `Protocol.bind`.

    Returns
    -------
    The table with `COLUMNS`. ``mAP low`` and ``mAP high`` bound the 95 % bootstrap interval over queries. Scores of
    networks without trained weights are NaN, and the column ``scores`` says so.
    """
    lines, rows = [], None
    for row in map(specs.network, names):
        line = dict(zip(STRUCTURE, (*structure(row), _speed(row)), strict=True))
        if weights.local(row.name):
            vectors = open_extractor(row.name).extract(images, progress=False)
            rows = search(vectors, protocol).table().set_index("metric")
            line |= {metric: rows.loc[metric, "value"] for metric in METRICS}
            line |= {"mAP low": rows.loc["mAP", "low"], "mAP high": rows.loc["mAP", "high"], "scores": "measured"}
        lines.append({"scores": NO_WEIGHTS} | line)
    if rows is not None:
        for bound in ("chance", "ceiling"):
            lines.append({"network": bound, "scores": ""} | {metric: rows.loc[metric, bound] for metric in METRICS})
    return pd.DataFrame(lines, columns=list(COLUMNS))


def show(table: pd.DataFrame) -> Markdown:
    """Format a table of `zoo_table` as Markdown. The caption names the processor."""
    lines = []
    for row in table.to_dict("records"):
        line = {"network": row["network"]}
        line |= {name: "" if pd.isna(row[name]) else f"{row[name]:,.{n}f}" for name, n in _DIGITS.items()}
        if not pd.isna(row["mAP low"]):
            line["mAP"] += f" [{row['mAP low']:.3f}, {row['mAP high']:.3f}]"
        if row["network"] in ("chance", "ceiling"):
            line = {name: value and f"*{value}*" for name, value in line.items()}
        lines.append(line | {"scores": row["scores"]})
    caption = (
        "Up to the embedding, at the network's own input size. FLOPs are those of convolutions and dense layers. "
        f"Times: {compiled.processor()}, OpenVINO {version('openvino')}, several images at the same time, random "
        "weights (their values do not change the time), measured once and then read from the cache."
    )
    return Markdown(f"{caption}\n\n{tables.markdown(pd.DataFrame(lines)).data}")


#: Column → number of decimals in `show`.
_DIGITS = dict(zip(STRUCTURE[1:], (0, 1, 2, 0, 0, 0, 1), strict=True)) | dict.fromkeys(METRICS, 3)


def _key(row: specs.Network) -> dict:
    return {"network": asdict(row), "keras": version("keras"), "version": _VERSION}


@lru_cache(maxsize=1)
def _untrained(row: specs.Network) -> "tuple[keras.Model, compiled.KerasNetwork]":
    """A network up to its embedding with random weights.

    Its graph is for single images, because the profiler counts only tensors of known size.
    """
    model = specs.embedding_architecture(row.name)
    return model, compiled.KerasNetwork(model, zoo.preprocessing(row.name), row.size, batch=1)


def structure(row: specs.Network) -> tuple:
    """The values of the columns `STRUCTURE`, without the time.

    They are read from the cache, until the network's row in `helpers.networks.specs.ZOO` or the version of Keras
    changes.
    """

    def compute() -> dict[str, np.ndarray]:
        model, graph = _untrained(row)
        frozen, trained = transfer.freeze(model, row.frozen_until)
        counts = (model.count_params(), _flops(graph), len(frozen), len(trained), model.output_shape[-1])
        return {"counts": np.array(counts, np.int64)}

    counts = results.cached(f"zoo-structure-{row.name}", _key(row), compute)["counts"]
    parameters, flops, frozen, trained, dim = counts.tolist()
    return row.name, row.size, parameters / 1e6, flops / 1e9, frozen, trained, dim


def _speed(row: specs.Network) -> float:
    """Milliseconds per image of a compiled network on this computer, with random weights; stored for this processor.

    The time includes preprocessing, but not reading images. The network computes several images at the same time, so
    that all cores are used; the time is that of all images divided by their number, the median of up to `_ROUNDS`
    rounds.
    """

    def measure() -> dict[str, np.ndarray]:
        run = compiled.without_comparison(_untrained(row)[1], row.name)
        count = max(4, 2 * run.parallel)
        pixels = synthetic.photograph_like(2, row.size)[np.arange(count) % 2]
        # The first images allocate memory.
        run(pixels[: run.parallel])
        seconds: list[float] = []
        while len(seconds) < _ROUNDS and sum(seconds) < _SECONDS:
            start = time.perf_counter()
            run(pixels)
            seconds.append(time.perf_counter() - start)
        return {"milliseconds": np.array(1000 * median(seconds) / count)}

    key = _key(row) | {"processor": compiled.processor(), "openvino": version("openvino")}
    return float(results.cached(f"zoo-speed-{row.name}", key, measure)["milliseconds"])


def _flops(network: compiled.KerasNetwork) -> int:
    """Floating-point operations for one image, counted by TensorFlow's profiler."""
    import tensorflow as tf

    profiler = tf.compat.v1.profiler
    builder = profiler.ProfileOptionBuilder(profiler.ProfileOptionBuilder.float_operation())
    options = builder.with_accounted_types(list(OPERATIONS)).with_empty_output().build()
    with logs.silent("tensorflow"):  # the profiler itself calls a deprecated function
        return profiler.profile(network.graph.graph, cmd="op", options=options).total_float_ops
