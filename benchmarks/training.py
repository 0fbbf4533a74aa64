"""Seconds per epoch of small networks: TensorFlow with oneDNN against TensorFlow without it.

    python -m benchmarks.training
    python -m benchmarks.training --epochs 8 --images 200

Each training runs in a new process, because TensorFlow reads the variable ``TF_ENABLE_ONEDNN_OPTS`` when it is
imported. The networks are those of notebook 04, with its batch sizes. The first epoch, in which TensorFlow traces the
network, is not counted.
"""

import argparse
import json
import tempfile

from benchmarks.inputs import conditions
from benchmarks.processes import child
from helpers.images import samples

#: Network → side of its images.
NETWORKS = {"student-faces": 96, "student-objects": 96, "corrected": 64}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=5, help="epochs that are measured; default: %(default)s")
    parser.add_argument("--images", type=int, default=100, help="number of images; default: %(default)s")
    parser.add_argument("--child", choices=NETWORKS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps({"seconds": epoch_seconds(options.child, options.images, options.epochs)}))
        return
    images = samples.photos()
    print(f"{conditions(images.subset(range(options.images)))}; median seconds per epoch of {options.epochs}")
    print(f"  {'':18}{'oneDNN':>8}{'without':>9}   without / oneDNN")
    for network in NETWORKS:
        fast, slow = (measured(network, value, options) for value in "10")
        print(f"  {network:18}{fast:8.3f}{slow:9.3f}   {slow / fast:.2f}")


def measured(network: str, onednn: str, options: argparse.Namespace) -> float:
    """`epoch_seconds` in a new process, with an empty cache. onednn : ``1`` or ``0``."""
    arguments = ["--child", network, "--images", str(options.images), "--epochs", str(options.epochs)]
    with tempfile.TemporaryDirectory() as cache:
        variables = {"TF_ENABLE_ONEDNN_OPTS": onednn, "LOOKALIKE_CACHE": cache}
        return child("benchmarks.training", *arguments, variables=variables)["seconds"]


def epoch_seconds(name: str, images: int, epochs: int) -> float:
    """Median seconds of the epochs after the first one, without validation."""
    from dataclasses import replace

    from helpers.networks import baselines, examples

    part = samples.photos().subset(range(images))
    make, schedule = baselines.NETWORKS[name]
    model = make(len(part.class_names), size=NETWORKS[name])
    train = examples.images(part, NETWORKS[name])
    schedule = replace(schedule, epochs=epochs + 1, patience=None)
    history = baselines.train(model, schedule, train, train, name=name, progress=False)
    return float(history.table["seconds"].iloc[1:].median())


if __name__ == "__main__":
    main()
