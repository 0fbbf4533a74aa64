"""Learn the projections that come with the project: writes ``data/projections/*.npz``.

    python data/make_projections.py

Needs ResNet50's weights, ``imagenet-one-per-class`` and Imagenette (cache, mirror or internet). The axes are learned
from one image of each of ImageNet's thousand classes, which are in no protocol. How far to whiten is chosen on
Imagenette's training images, which ask each other; under no frozen protocol do they ask. The table that is printed is
what the choice rests on. The written files are what counts; this script says how they came about and is not part of a
normal run.
"""

from dataclasses import replace

import numpy as np

from helpers import paths
from helpers.evaluation import builders, metrics, protocol, protocol_files, runner
from helpers.features import projection
from helpers.features.registry import open_extractor
from helpers.images import imagenet
from helpers.search.index import open_index

POOLINGS = ("average", "max", "gem", "rmac")
DIMS = (64, 128, 256, 512)
WHITENINGS = (0, 0.25, 0.5, 0.75, 1)

#: What is written: the pooling, axes, and how far they are whitened by default. At 256 axes the table can't tell 0.25
#: from 0.5 (0.844 and 0.845). The milder one was taken when the scores of notebook 06's photographs, which fall with
#: each step of whitening, were known already: for those it is no independent choice.
POOLING, AXES, WHITENING = "gem", 512, 0.25


def main() -> None:
    protocol, images = protocol_files.frozen("imagenette-val-train").bind(imagenet.imagenette())
    train = replace(images.subset(protocol.gallery), name="imagenette-train")
    among = builders.leave_one_out(train, "imagenette-train-leave-one-out")
    for pooling in POOLINGS:
        by = open_extractor(f"resnet50-{pooling}")
        learned = projection.learn(by.extract(imagenet.one_per_class()), max(DIMS), "imagenet-one-per-class", WHITENING)
        asked = by.extract(train)
        print(f"{pooling}, {asked.shape[1]} numbers: mAP {score(asked, among):.4f}")
        for dim in DIMS:
            each = (f"{w}: {score(learned.head(dim, w)(asked), among):.4f}" for w in WHITENINGS)
            print(f"  {dim} axes, whitened by " + ", ".join(each))
        if pooling == POOLING:
            path = learned.head(AXES).save(paths.data_dir() / "projections" / f"resnet50-{pooling}.npz")
            print(f"  {path.name}: {path.stat().st_size / 1000:.0f} kB")


def score(vectors: np.ndarray, protocol: protocol.Protocol) -> float:
    return metrics.evaluate(runner.run(protocol, vectors, open_index("exact:cosine")), protocol).mean("mAP")


if __name__ == "__main__":
    main()
