"""Search by words, measured: text → image, tags and re-weighting, with GloVe and EfficientNet-Lite0.

Run with ``-s`` to print the tables.
"""

import subprocess
import sys

import numpy as np
import pytest

from helpers import extras, paths
from helpers.evaluation.calibration import calibration_error
from helpers.evaluation.intervals import paired_difference
from helpers.evaluation.text_queries import evaluate_texts, names_table, query_names, text_protocol
from helpers.features.calibration import TemperatureScaling
from helpers.features.class_weights import ClassWeights, reweighted
from helpers.features.deep import ClassScores, NetworkExtractor
from helpers.features.tags import TEMPERATURES
from helpers.features.text import WordVectors
from helpers.features.word_space import Captions, Conse, DeviseNetwork, RidgeDevise
from helpers.images import caltech101, imagenet, samples
from helpers.search.index import open_index

pytestmark = [
    pytest.mark.measured,
    pytest.mark.skipif(
        paths.mirror_dir() is None or bool(extras.missing("text")),
        reason="NOT TESTED: search by words needs the data sets (LOOKALIKE_MIRROR) and the extra text",
    ),
]

NETWORK = "efficientnet-lite0"


@pytest.fixture(scope="module")
def words():
    return WordVectors.glove()


@pytest.fixture(scope="module")
def caltech():
    """28 classes, 840 images. The two classes of faces have the same photographs, and no class of ImageNet."""
    images = caltech101.load()
    left_out = [images.class_names.index(name) for name in ("Faces", "Faces_easy")]
    return images.subset(np.flatnonzero((images.labels >= 0) & ~np.isin(images.labels, left_out)))


@pytest.fixture(scope="module")
def imagenette():
    return imagenet.imagenette().where(lambda key: key.startswith("val/"))


def scores(images):
    return ClassScores(NETWORK).extract(images, progress=False)


def features(images):
    return NetworkExtractor(NETWORK).extract(images, progress=False)


def searched(space, inputs, images):
    protocol = text_protocol(images)
    texts = np.stack([space.embed_text(name) for name in query_names(protocol)])
    return protocol, evaluate_texts(protocol, texts, space.embed_images(inputs), open_index("exact:cosine"))


def table(title, protocol, found, known):
    frame = names_table(found, protocol, known)
    print(f"\n{title}\n{frame.round(3).to_string(index=False)}")
    return frame.set_index("names")


@pytest.fixture(scope="module")
def spaces(words):
    """Each way that sees images, learned from one image of each of ImageNet's classes, and its input."""
    one = imagenet.one_per_class()
    learned = {
        "ridge": RidgeDevise(words),
        "devise": DeviseNetwork(words),
        "devise, loss cosine": DeviseNetwork(words, loss="cosine"),
    }
    fitted = {
        name: (space.fit(features(one), one.labels, one.class_names), features) for name, space in learned.items()
    }
    return {"conse": (Conse(words), scores)} | fitted


def test_text_to_image_on_caltech101(spaces, caltech):
    """Measured apart from the project: ConSE has mAP 0.741 and precision@10 0.861; chance is 0.036."""
    assert (len(caltech), len(set(caltech.labels))) == (840, 28)
    found = {}
    for name, (space, inputs) in spaces.items():
        protocol, result = searched(space, inputs(caltech), caltech)
        found[name] = result.values["mAP"]
        rows = table(f"{name}, Caltech-101", protocol, result, caltech101.KNOWN_TO_IMAGENET)
        assert rows.loc["all", "precision@10 chance"] == pytest.approx(30 / 840)
        if name == "conse":
            assert rows.loc["all", "mAP"] >= 0.72 and rows.loc["all", "precision@10"] >= 0.84
            assert rows["queries"].to_dict() == {"known": 17, "others": 11, "all": 28}
            assert rows.loc["known", "mAP"] > 0.8 > rows.loc["others", "mAP"] > 0.4
            names = query_names(protocol)
            worst = sorted(zip(result.values["mAP"], names, strict=True))[:6]
            print("worst:", *(f"{name} {value:.2f}" for value, name in worst))
    for name in ("ridge", "devise", "devise, loss cosine"):
        difference = paired_difference(found["conse"], found[name])
        print(f"conse - {name}: {difference}")
        assert difference.low > 0.05


def test_text_to_image_on_imagenette(spaces, imagenette):
    assert len(imagenette) == 400
    for name, (space, inputs) in spaces.items():
        protocol, result = searched(space, inputs(imagenette), imagenette)
        rows = table(f"{name}, Imagenette val", protocol, result, set(imagenette.class_names))
        if name == "conse":
            assert rows.loc["all", "mAP"] >= 0.93 and "others" not in rows.index


def test_a_sentence_finds_almost_as_much_as_a_name(words, caltech):
    """With equal weights of all words, the mean of "the lotus" is mostly "the"."""
    inputs = scores(caltech)
    values = {}
    for weight in (words.frequency_weight, None):
        space = Conse(WordVectors(words.words, words.vectors, words.name, weight))
        images, protocol = space.embed_images(inputs), text_protocol(caltech)
        for text in ("{}", "the {}", "a photo of a {}"):
            texts = np.stack([space.embed_text(text.format(name)) for name in query_names(protocol)])
            found = evaluate_texts(protocol, texts, images, open_index("exact:cosine"))
            values[weight, text] = found.mean("mAP")
    print("\n", {key: round(value, 3) for key, value in values.items()})
    assert values[words.frequency_weight, "{}"] == pytest.approx(values[None, "{}"], abs=0.01)
    assert values[words.frequency_weight, "the {}"] > 0.72 and values[None, "the {}"] < 0.55
    assert values[words.frequency_weight, "a photo of a {}"] > 0.4 and values[None, "a photo of a {}"] < 0.2


def test_captions_and_conse_on_the_sample(words, spaces):
    """The names of the sample's classes, such as "fruit", are no classes of ImageNet."""
    images = samples.with_distractors()
    captions = samples.captions(images)
    known = set(imagenet.classes().values())
    for space, inputs in ((Captions(words), captions), (spaces["conse"][0], scores(images))):
        protocol, result = searched(space, inputs, images)
        rows = table(f"{space.name}, sample", protocol, result, known)
        assert rows.loc["others", "queries"] == 10
        assert rows.loc["all", "mAP"] > 0.3 > 3 * rows.loc["all", "mAP chance"]


def test_the_temperature_makes_scores_reliable(imagenette, caltech):
    """Fitted on one image of each class of ImageNet; measured on others, also of another data set."""
    one = imagenet.one_per_class()
    fitted = TemperatureScaling().fit(scores(one), one.labels)
    print(f"\ntemperature {fitted.temperature:.3f}")
    assert fitted.temperature == pytest.approx(TEMPERATURES[NETWORK], abs=0.005)
    names = np.array(list(imagenet.classes().values()))
    known = caltech.subset(
        [row for row, label in enumerate(caltech.labels) if caltech.class_names[label] in caltech101.KNOWN_TO_IMAGENET]
    )
    wanted = {
        "imagenette": (imagenette, np.array(imagenette.class_names)[imagenette.labels]),
        "caltech-101": (
            known,
            np.array([caltech101.KNOWN_TO_IMAGENET[known.class_names[label]] for label in known.labels]),
        ),
    }
    for title, (images, true) in wanted.items():
        before = scores(images)
        after = fitted.transform(before)
        right = names[before.argmax(axis=1)] == true
        errors = [calibration_error(each.max(axis=1), right) for each in (before, after)]
        print(title, len(images), "accuracy", right.mean().round(3), "calibration error", np.round(errors, 3))
        # All tags, not only the best one of each image.
        rows, columns = np.nonzero(after >= 0.1)
        every = calibration_error(after[rows, columns], names[columns] == true[rows])
        print(f"{len(rows)} tags with scores from 0.1: calibration error {every:.3f}")
        assert every < 0.1
        # Caltech-101's classes are coarser: "elephant" is right only for one of ImageNet's two elephants here.
        assert max(errors) < 0.15
        assert errors[1] < 0.07 or title == "caltech-101"


def test_a_class_moves_the_results(words, caltech):
    """Queries of other classes, re-weighted by a class: do its images come first, and what is lost for its own?"""
    vectors, weights = features(caltech), ClassWeights(NETWORK, words)
    random = np.random.default_rng(0)
    moved = {"plain": [], "both": [], "query": []}
    known = [name in caltech101.KNOWN_TO_IMAGENET for name in caltech.class_names]
    used = [label for label in np.unique(caltech.labels) if known[label]]
    for label in used:
        by = weights.weights(caltech101.KNOWN_TO_IMAGENET[caltech.class_names[label]])
        rows = random.choice(np.flatnonzero(caltech.labels != label), 60, replace=False)
        weighted = reweighted(vectors, by)
        for name, queries, gallery in (
            ("plain", vectors, vectors), ("both", weighted, weighted), ("query", weighted, vectors),
        ):  # fmt: skip
            order = np.argsort(-(queries[rows] @ gallery.T), axis=1)
            # The query itself is the first result, or excluded here.
            hits = [caltech.labels[line[line != row]] == label for line, row in zip(order, rows, strict=True)]
            moved[name].append(np.mean([average_precision(each) for each in hits]))
    means = {name: float(np.mean(values)) for name, values in moved.items()}
    print("\nmAP of the class's images:", {name: round(value, 3) for name, value in means.items()})
    difference = paired_difference(np.array(moved["query"]), np.array(moved["plain"]))
    print("query - plain:", difference)
    assert means["plain"] < 0.06 and means["both"] > means["plain"] and means["query"] > 0.75 and difference.low > 0.6


def average_precision(hits):
    """AP of a complete ranking."""
    return float((np.cumsum(hits) / np.arange(1, len(hits) + 1))[hits].mean())


def test_loading_glove_takes_little_time_and_memory():
    """In a new process: time, and what the resident memory grows by. The first load fills the cache of the disk."""
    code = (
        "import time, numpy\n"
        "from helpers.features.text import WordVectors\n"
        "def resident(key):\n"
        "    lines = dict(line.split(':') for line in open('/proc/self/status') if line.startswith('Vm'))\n"
        "    return int(lines[key].split()[0]) / 1024\n"
        "before, start = resident('VmRSS'), time.perf_counter()\n"
        "words = WordVectors.glove()\n"
        "seconds = time.perf_counter() - start\n"
        "print(seconds, resident('VmHWM') - before)\n"
        "start = time.perf_counter(); words.embed_text('a high-speed train'); print(time.perf_counter() - start)\n"
        "start = time.perf_counter(); words.spellings('helicoptre'); print(time.perf_counter() - start)\n"
    )
    runs = [
        subprocess.run(
            [sys.executable, "-c", code], cwd=paths.ROOT, env=paths.child_environment(), capture_output=True, text=True,
            check=True,
        ).stdout.split()
        for _ in range(4)
    ]  # fmt: skip
    print("\nseconds, MB, seconds of a phrase, seconds of a spelling:", *runs[1:], sep="\n")
    best = np.array(runs[1:], float).min(axis=0)
    assert best[0] < 1 and best[1] < 120 and best[2] < 0.05 and best[3] < 1
