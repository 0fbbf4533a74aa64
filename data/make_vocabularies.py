"""Learn the shipped vocabularies of visual words: writes ``data/vocabularies/*.npz``.

    python data/make_vocabularies.py

Needs Imagenette (cache, mirror or internet), whose training images are queries under no frozen protocol. On two cores
it takes some minutes. The script documents the origin of the committed files and is not part of a normal run.
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
