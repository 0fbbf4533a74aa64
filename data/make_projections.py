"""Learn the shipped projections: writes ``data/projections/*.npz``.

    python data/make_projections.py

Needs the weights of both networks, ``imagenet-one-per-class`` and Imagenette (cache, mirror or internet). The axes are
learned from one image of each of ImageNet's thousand classes, which are in no protocol. The amount of whitening is
chosen by leave-one-out on Imagenette's training images, which are queries under no frozen protocol; the printed table
shows the scores. The script documents the origin of the committed files and is not part of a normal run.
"""

from dataclasses import replace

import numpy as np

from helpers import paths
from helpers.evaluation import builders, metrics, protocol_files, runner
from helpers.evaluation.protocol import Protocol
from helpers.features import projection
from helpers.features.registry import open_extractor
from helpers.images import imagenet
from helpers.images.imageset import ImageSet
from helpers.search.index import open_index

POOLINGS = ("average", "max", "gem", "rmac")
DIMS = (64, 128, 256, 512)
WHITENINGS = (0, 0.25, 0.5, 0.75, 1)

#: Network → pooling, number of axes and default whitening of its file. For ResNet50 with 256 axes, 0.25 and 0.5 have
#: about the same mAP (0.844 and 0.845). The choice of 0.25 is not independent of notebook 06's photographs: their
#: scores, which decrease with whitening, were already known. For EfficientNet-Lite0 with 256 axes, 0.25 has the highest
#: mAP.
SHIPPED = {"resnet50": ("gem", 512, 0.25), "efficientnet-lite0": ("gem", 512, 0.25)}


def main() -> None:
    protocol, images = protocol_files.frozen("imagenette-val-train").bind(imagenet.imagenette())
    train = replace(images.subset(protocol.gallery), name="imagenette-train")
    leave_one_out = builders.leave_one_out(train, "imagenette-train-leave-one-out")
    for network in SHIPPED:
        for pooling in POOLINGS:
            learn_one(network, pooling, leave_one_out, train)


def learn_one(network: str, pooling: str, leave_one_out: Protocol, train: ImageSet) -> None:
    """Print the scores of one pooling, and write the file if it is the shipped one."""
    shipped, axes, whitening = SHIPPED[network]
    extractor = open_extractor(f"{network}-{pooling}")
    training = extractor.extract(imagenet.one_per_class())
    learned = projection.learn(training, max(DIMS), "imagenet-one-per-class", whitening)
    vectors = extractor.extract(train)
    print(f"{extractor.name}, dimension {vectors.shape[1]}: mAP {score(vectors, leave_one_out):.4f}")
    for dim in DIMS:
        each = (f"{w}: {score(learned.head(dim, w)(vectors), leave_one_out):.4f}" for w in WHITENINGS)
        print(f"  {dim} axes, mAP by whitening: " + ", ".join(each))
    if pooling == shipped:
        path = learned.head(axes).save(paths.data_dir() / "projections" / f"{extractor.name}.npz")
        print(f"  {path.name}: {path.stat().st_size / 1000:.0f} kB")


def score(vectors: np.ndarray, protocol: Protocol) -> float:
    return metrics.evaluate(runner.run(protocol, vectors, open_index("exact:cosine")), protocol).mean("mAP")


if __name__ == "__main__":
    main()
