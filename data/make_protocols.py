"""Freeze the protocols: writes ``data/protocols/*.json``.

    python data/make_protocols.py [name …]

Needs the data sets (cache, mirror or internet) and ResNet50's weights, whose neighbors the audit looks at for crops.
The written files are what counts; this script says how they came about and is not part of a normal run.
"""

import sys
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from helpers import paths
from helpers.evaluation import protocol_files
from helpers.evaluation.builders import held_out, leave_one_out, one_per_class_gallery, query_gallery, unseen_classes
from helpers.evaluation.protocol import Protocol
from helpers.features.registry import open_extractor
from helpers.images import att_faces, caltech101, cifar10, imagenet, lfw, samples
from helpers.images.duplicates import audit
from helpers.images.imageset import ImageSet


def audited(images: ImageSet) -> ImageSet:
    """The set with copies of one original as groups, so that none of them answers for another."""
    found = audit(images, open_extractor("resnet50").extract(images))
    print(found)
    return replace(images, groups=found.groups()) if len(found) else images


def split(images: ImageSet, queries: str, gallery: str, name: str) -> Protocol:
    """One official split asks, the other answers."""
    asks = np.array([key.startswith(f"{queries}/") for key in images.keys])
    results = np.array([key.startswith(f"{gallery}/") for key in images.keys])
    return query_gallery(images, asks, results, name, description=f"{queries} asks, {gallery} answers.")


def grouped(name: str, images: ImageSet) -> ImageSet:
    """The images of a protocol that is frozen already, with the copies that its audit found."""
    return protocol_files.frozen(name).bind(images)[1]


def att_faces_held_out() -> Protocol:
    """Everyone's images 6 to 10 ask, image 1 answers; 1 to 5 may teach."""
    faces = att_faces.load()
    number = np.array([int(path.stem) for path in faces.paths])
    text = "Images 6 to 10 of each person ask, image 1 answers; 1 to 5 may teach."
    return query_gallery(faces, number > 5, number == 1, "att-faces-held-out", description=text)


def sample_drawings() -> Protocol:
    """Drawings ask, photographs and distractors answer."""
    photos, drawings = samples.with_distractors(), samples.drawings()
    both = ImageSet(
        "sample",
        photos.paths + drawings.paths,
        np.concatenate([photos.labels, drawings.labels]),
        photos.class_names,
        root=photos.root,
    )
    asks = np.arange(len(both)) >= len(photos)
    text = "Drawings ask, photographs and distractors answer."
    return query_gallery(both, asks, ~asks, "sample-drawings", description=text)


PROTOCOLS: dict[str, Callable[[], Protocol]] = {
    "sample-leave-one-out": lambda: leave_one_out(audited(samples.photos()), "sample-leave-one-out"),
    "sample-distractors": lambda: leave_one_out(
        audited(samples.with_distractors()),
        "sample-distractors",
        description="Each photograph asks, all others and the distractors answer; its copies are not counted.",
    ),
    "sample-drawings": sample_drawings,
    # In a studio series every second image nearly repeats another; that is the data set, so it is not audited.
    "att-faces-leave-one-out": lambda: leave_one_out(att_faces.load(), "att-faces-leave-one-out"),
    "att-faces-one-per-person": lambda: one_per_class_gallery(att_faces.load(), "att-faces-one-per-person"),
    "lfw-leave-one-out": lambda: leave_one_out(
        audited(lfw.load(min_images=20, singletons=True)),
        "lfw-leave-one-out",
        description="Each image of a person with at least 20 asks, all others and the people with one answer; "
        "copies are not counted.",
    ),
    "imagenette-val-train": lambda: split(audited(imagenet.imagenette()), "val", "train", "imagenette-val-train"),
    "caltech101-leave-one-out": lambda: leave_one_out(
        audited(caltech101.load()),
        "caltech101-leave-one-out",
        description="Each image of a class asks, all others and BACKGROUND_Google answer; copies are not counted.",
    ),
    "cifar10-test-train": lambda: split(audited(cifar10.load()), "test", "train", "cifar10-test-train"),
    # For networks that learn from the same data set: see helpers/evaluation/held_out.py for what they may learn from.
    "att-faces-held-out": att_faces_held_out,
    "att-faces-unseen-people": lambda: unseen_classes(att_faces.load(), "att-faces-unseen-people"),
    "sample-held-out": lambda: held_out(grouped("sample-distractors", samples.with_distractors()), "sample-held-out"),
    "lfw-held-out": lambda: held_out(
        grouped("lfw-leave-one-out", lfw.load(min_images=20, singletons=True)), "lfw-held-out", fraction=0.3
    ),
    "lfw-unseen-people": lambda: unseen_classes(
        grouped("lfw-leave-one-out", lfw.load(min_images=20, singletons=True)), "lfw-unseen-people"
    ),
    "caltech101-unseen-classes": lambda: unseen_classes(
        grouped("caltech101-leave-one-out", caltech101.load()), "caltech101-unseen-classes"
    ),
}


def main(names: list[str]) -> None:
    for name in names or PROTOCOLS:
        made = PROTOCOLS[name]()
        print(made, "→", protocol_files.save(made, paths.protocols_dir() / f"{name}.json").name)


if __name__ == "__main__":
    main(sys.argv[1:])
