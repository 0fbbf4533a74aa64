"""Learn the vocabularies of visual words that come with the project: writes ``data/vocabularies/*.npz``.

    python data/make_vocabularies.py

Needs Imagenette (cache, mirror or internet). They are learned from its training images, which under no frozen protocol
ask; on the two cores of a laptop that takes some minutes. The written files are what counts; this script says how they
came about and is not part of a normal run.
"""

from dataclasses import replace

from helpers import paths
from helpers.evaluation import protocol_files
from helpers.features.visual_words import ENCODINGS
from helpers.features.vocabulary import learn
from helpers.images import imagenet


def main() -> None:
    protocol, images = protocol_files.frozen("imagenette-val-train").bind(imagenet.imagenette())
    train = replace(images.subset(protocol.gallery), name="imagenette-train")
    for words in sorted({encoding.words for encoding in ENCODINGS.values()}):
        path = learn(train, words).save(paths.data_dir() / "vocabularies" / f"rootsift-{words}.npz")
        print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
