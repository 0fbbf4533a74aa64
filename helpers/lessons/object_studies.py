"""Measurements of notebook 15: sources of boxes, and masks, against the known objects of scenes."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from helpers.evaluation.detection import DetectionScores, KnownObjects, ScoredBoxes, evaluate_detections
from helpers.evaluation.intervals import bootstrap_interval, wilson_interval
from helpers.features import masks
from helpers.features.region_vectors import crop
from helpers.features.regions import detect
from helpers.images import reading
from helpers.images.imageset import ImageSet
from helpers.images.scenes import Scenes
from helpers.networks import boxes
from helpers.networks.detectors import Detections, Detector

#: Class of the pretrained detector → photographs of the sample that show it. All photographs of the sample's class
#: "vehicles" show a Vehicle.
SHOWN = {
    "Vehicle": (),
    "Car": ("beetle", "sedan", "sportscar2", "indycar"),
    "Cattle": ("bull", "cow", "cow_white", "zebu"),
    "Dog": ("dog", "dingo"),
}
#: Photographs for which it is doubtful whether they show the class, such as toys. They need not be found.
DOUBTFUL = {"Vehicle": ("balloon360", "walnutboat", "pink_tricycle"), "Cattle": ("yak", "bison"), "Dog": ("fox",)}
#: An object is covered by a box with at least this IoU.
COVERED = 0.5


def known_objects(scenes: Scenes, class_names: Sequence[str]) -> KnownObjects:
    """The objects of the scenes whose class is in `SHOWN`, with labels from the detector's ``class_names``.

    An object can have several classes: a car is also a vehicle. Doubtful objects are ignored.
    """
    rows = []
    for each in scenes.objects:
        name = scenes.photos.paths[each.photo].stem
        for class_name in SHOWN:
            doubtful = name in DOUBTFUL.get(class_name, ())
            is_vehicle = class_name == "Vehicle" and each.class_name == "vehicles"
            if doubtful or is_vehicle or name in SHOWN[class_name]:
                rows.append((each.scene, class_names.index(class_name), each.box, doubtful))
    images, labels, found, ignored = zip(*rows, strict=True)
    return KnownObjects(np.array(images), np.array(labels), np.array(found), np.array(ignored))


def scored_boxes(found: Sequence[Detections]) -> ScoredBoxes:
    """The detections of the classes in `SHOWN` in images 0, 1, …, for `evaluate_detections`."""
    images = np.repeat(np.arange(len(found)), [len(each.classes) for each in found])
    labels, boxes_, scores = (
        np.concatenate([getattr(each, name) for each in found]) for name in ("classes", "boxes", "scores")
    )
    kept = np.isin(labels, [found[0].class_names.index(name) for name in SHOWN])
    return ScoredBoxes(images[kept], labels[kept], boxes_[kept], scores[kept])


def class_table(
    known: KnownObjects, found: ScoredBoxes, n_images: int, class_names: Sequence[str], score: float
) -> pd.DataFrame:
    """Precision and recall of detections of at least ``score``, and AP at IoU 0.5, of each class and of all.

    Columns: class, objects, precision, recall, AP, with bounds of 95 % intervals over images (``… low``, ``… high``),
    and chance: the AP if the boxes of each image are used for the next image, which they do not depend on.
    """
    scores = evaluate_detections(known, found, n_images, COVERED)
    moved = replace(found, images=(found.images + 1) % n_images)
    chance = evaluate_detections(known, moved, n_images, COVERED)
    labels = sorted(scores.average_precisions, key=lambda label: -scores.matches[label].objects.sum())
    parts = {class_names[label]: DetectionScores({label: scores.matches[label]}, n_images) for label in labels}
    rows = []
    for name, part in [*parts.items(), ("mean / all", scores)]:
        bounds = part.intervals(score, resamples=300)
        row = {"class": name, "objects": sum(int(each.objects.sum()) for each in part.matches.values())}
        for metric, value in (part.at(score)._asdict() | {"mAP": part.mean_average_precision}).items():
            column = metric.removeprefix("m")
            row |= {column: value, f"{column} low": bounds[metric].low, f"{column} high": bounds[metric].high}
        others = [value for label, value in chance.average_precisions.items() if label in part.matches]
        rows.append(row | {"AP chance": float(np.mean(others))})
    return pd.DataFrame(rows)


def best_ious(scenes: Scenes, found: Sequence[np.ndarray]) -> np.ndarray:
    """The largest IoU of each object with a box of its scene: float64 (objects,); 0 without a box.

    found : floating (n, 4), the boxes of each scene.
    """
    best = np.zeros(len(scenes.objects))
    for scene, boxes_ in enumerate(found):
        rows = np.flatnonzero(scenes.rows == scene)
        if len(boxes_) and len(rows):
            best[rows] = boxes.iou(scenes.boxes[rows], boxes_).max(axis=1)
    return best


def coverage(scenes: Scenes, sources: Mapping[str, Sequence[Sequence[np.ndarray]]]) -> pd.DataFrame:
    """The share of known objects that are covered (`COVERED`), by source and number of boxes.

    sources : name → for each setting, the boxes of each scene.

    Columns: source, boxes (their mean number in a scene), recall, low and high, by a bootstrap over scenes.
    """
    rows = []
    for name, settings in sources.items():
        for found in settings:
            covered = best_ious(scenes, found) >= COVERED
            low, high = bootstrap_interval(covered.astype(float), clusters=scenes.rows)
            rows.append((name, np.mean([len(each) for each in found]), covered.mean(), low, high))
    return pd.DataFrame(rows, columns=["source", "boxes", "recall", "low", "high"])


def mask_ious(scenes: Scenes, rows: Sequence[int], found: Sequence[np.ndarray]) -> pd.DataFrame:
    """How well boxes and GrabCut's masks agree with the known masks of objects.

    rows : scenes. found : floating (n, 4), the boxes of each scene of the set; an object takes the box with its largest
        IoU, if that is at least `COVERED`.

    Columns: scene, object (its number in the scene), box IoU (with the known box), box (the box as a mask) and GrabCut:
    IoU with the known mask.
    """
    table = []
    for scene in rows:
        if not len(found[scene]):
            continue
        image, known = reading.read_image(scenes.images.paths[scene]), scenes.masks(scene)
        height, width = image.shape[:2]
        overlaps = boxes.iou(scenes.boxes[scenes.rows == scene], found[scene])
        for number in np.flatnonzero(overlaps.max(axis=1) >= COVERED):
            box = found[scene][overlaps[number].argmax()]
            as_mask = masks.box_mask(box, width, height)
            ious = (masks.mask_iou(mask, known[number]) for mask in (as_mask, masks.grab_cut(image, box)))
            table.append((scene, int(number), overlaps[number].max(), *ious))
    return pd.DataFrame(table, columns=["scene", "object", "box IoU", "box", "GrabCut"])


def cut_outs(scenes: Scenes) -> dict[str, list[np.ndarray]]:
    """The first object of each scene, cropped at its known box: uint8 (height, width, 3) each.

    With the background (``box``), and without the pixels outside of GrabCut's (``GrabCut``) and of the known mask
    (``known mask``).
    """
    found: dict[str, list[np.ndarray]] = {"box": [], "GrabCut": [], "known mask": []}
    for scene, path in enumerate(scenes.images.paths):
        image, box = reading.read_image(path), scenes.of(scene)[0].box
        found["box"].append(crop(image, box))
        found["GrabCut"].append(crop(masks.without_background(image, masks.grab_cut(image, box)), box))
        found["known mask"].append(crop(masks.without_background(image, scenes.masks(scene)[0]), box))
    return found


def classes_found(sets: Sequence[tuple[ImageSet, str, str]], detector: Detector, score: float) -> pd.DataFrame:
    """In how many of the first 30 images of a class the detector finds it.

    sets : an image set, the name of one of its classes, and that of the detector's class.

    Columns: dataset, class, detector's class, images, found, share, low, high (Wilson's 95 % interval).
    """
    rows = []
    for images, name, class_name in sets:
        chosen = images.subset(np.flatnonzero(images.labels == images.class_names.index(name))[:30])
        found = sum(class_name in each.names for each in detect(chosen, detector, threshold=score))
        share = found / len(chosen)
        bounds = wilson_interval(share, len(chosen))
        rows.append((images.name, name, class_name, len(chosen), found, share, *bounds))
    columns = ["dataset", "class", "detector's class", "images", "found", "share", "low", "high"]
    return pd.DataFrame(rows, columns=columns)
