"""Freeze the protocols: writes ``data/protocols/*.json``.

    python data/make_protocols.py [name …]

Needs the data sets (cache, mirror or internet) and ResNet50's weights: the audit searches its nearest neighbors for
crops. The written files are the reference; this script documents how they were made and is not part of a normal run.
"""

import sys
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from helpers import paths
from helpers.evaluation import protocol_files, scene_protocols
from helpers.evaluation.builders import held_out, leave_one_out, one_per_class_gallery, query_gallery, unseen_classes
from helpers.evaluation.protocol import Protocol
from helpers.features.registry import open_extractor
from helpers.images import att_faces, caltech101, cifar10, imagenet, lfw, samples, scenes
from helpers.images.duplicates import audit
from helpers.images.imageset import ImageSet


def audited(images: ImageSet) -> ImageSet:
    """The set with copies of one original as groups: a query's copies are ignored."""
    found = audit(images, open_extractor("resnet50").extract(images))
    print(found)
    return replace(images, groups=found.groups()) if len(found) else images


def split(images: ImageSet, queries: str, gallery: str, name: str) -> Protocol:
    """One official split is the query set, the other the gallery."""
    parts = [np.array([key.startswith(f"{part}/") for key in images.keys]) for part in (queries, gallery)]
    text = f"{queries} is the query set, {gallery} is the gallery."
    return query_gallery(images, *parts, name, description=text)


def grouped(name: str, images: ImageSet) -> ImageSet:
    """The images of a frozen protocol, with the copies that its audit found as groups."""
    return protocol_files.frozen(name).bind(images)[1]


def att_faces_held_out() -> Protocol:
    """Images 6 to 10 of each person are queries, image 1 is the gallery; 1 to 5 are for training."""
    faces = att_faces.load()
    number = np.array([int(path.stem) for path in faces.paths])
    text = (
        "Images 6 to 10 of each person are queries, and image 1 is the gallery. "
        "Networks may be trained on images 1 to 5."
    )
    return query_gallery(faces, number > 5, number == 1, "att-faces-held-out", description=text)


def sample_drawings() -> Protocol:
    """Drawings are queries, photographs and distractors the gallery."""
    photos, drawings = samples.with_distractors(), samples.drawings()
    both = ImageSet(
        "sample",
        photos.paths + drawings.paths,
        np.concatenate([photos.labels, drawings.labels]),
        photos.class_names,
        root=photos.root,
    )
    is_drawing = np.arange(len(both)) >= len(photos)
    text = "Drawings are queries, photographs and distractors are the gallery."
    return query_gallery(both, is_drawing, ~is_drawing, "sample-drawings", description=text)


PROTOCOLS: dict[str, Callable[[], Protocol]] = {
    "sample-leave-one-out": lambda: leave_one_out(audited(samples.photos()), "sample-leave-one-out"),
    "sample-distractors": lambda: leave_one_out(
        audited(samples.with_distractors()),
        "sample-distractors",
        description="Every photograph is a query. All photographs and the distractors are the gallery. "
        "The query and its copies are ignored.",
    ),
    "sample-drawings": sample_drawings,
    "scenes-known-item": lambda: scene_protocols.known_item(scenes.load()),
    "scenes-class": lambda: scene_protocols.same_class(scenes.load()),
    # Not audited: in this studio series, near-duplicates are part of the data set.
    "att-faces-leave-one-out": lambda: leave_one_out(att_faces.load(), "att-faces-leave-one-out"),
    "att-faces-one-per-person": lambda: one_per_class_gallery(att_faces.load(), "att-faces-one-per-person"),
    "lfw-leave-one-out": lambda: leave_one_out(
        audited(lfw.load(min_images=20, singletons=True)),
        "lfw-leave-one-out",
        description="Every image of a person with at least 20 images is a query. All images, with those of people with "
        "one image, are the gallery. The query and its copies are ignored.",
    ),
    "imagenette-val-train": lambda: split(audited(imagenet.imagenette()), "val", "train", "imagenette-val-train"),
    "caltech101-leave-one-out": lambda: leave_one_out(
        audited(caltech101.load()),
        "caltech101-leave-one-out",
        description="Every image of a class is a query. All images, with those of BACKGROUND_Google, are the gallery. "
        "The query and its copies are ignored.",
    ),
    "cifar10-test-train": lambda: split(audited(cifar10.load()), "test", "train", "cifar10-test-train"),
    # For networks that are trained on the same data set; `builders.learnable` selects their training images.
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
