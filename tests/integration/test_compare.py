"""`lookalike compare` from the command line to the report, on images of the sample."""

import json
import os
import re
import shlex
import shutil
from html.parser import HTMLParser

import numpy as np
import pytest

from helpers.cli import main as cli
from helpers.cli.common import BAD_INPUT, OK, USAGE
from helpers.features.registry import open_extractor
from helpers.images import samples

NAMES = ("--extractors", "hsv-histogram,hog")


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    """One cache for all tests, so that features are extracted once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOOKALIKE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The current folder, with ``photos``: birds, fruit and vehicles, eight of each, and names that HTML escapes."""
    images = samples.photos()
    for name in ("birds", "fruit", "vehicles"):
        for number, row in enumerate(np.flatnonzero(images.labels == images.class_names.index(name))[:8]):
            target = tmp_path / "photos" / f"{name} & <b>" / f'"{number}" {images.paths[row].name}'
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(images.paths[row], target)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(capsys):
    def run(*arguments):
        code = cli.main([str(one) for one in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


class _Page(HTMLParser):
    """Collects the elements of a page, the values of their attributes, and the text."""

    def __init__(self, source):
        super().__init__()
        self.tags, self.sources, self.text = [], [], ""
        self.feed(source)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.sources += [value for name, value in attributes if name in ("src", "href", "srcset", "action")]

    def handle_data(self, data):
        self.text += data


def without_times(content):
    """The record without what differs between runs."""
    for one in content["methods"]:
        for name in ("images_per_second", "query_ms"):
            assert one.pop(name) > 0
    # The cheaper method depends on the times.
    content.pop("recommendation"), content.pop("disagreements")
    return content


def test_the_recorded_command_repeats_the_scores(here, run):
    code, out, err = run("compare", "photos", *NAMES, "--queries", 20, "--seed", 3, "-o", "a.json", "-o", "a.html")
    assert code == OK and "20 queries, drawn from 24 images; gallery of 24 images; classes" in err
    assert "hog" in out and "chance" in out and " minus " in out and "has the highest mAP on these 20 queries" in out
    first = json.loads((here / "a.json").read_text(encoding="utf-8"))
    line = shlex.split(first["command"])
    assert line[0] == "lookalike"
    code, out, _ = run(*line[1:], "--json")
    second = json.loads(out)
    assert code == OK
    assert without_times(first) == without_times(second)
    assert first["queries"]["count"] == 20 and first["images"] == {"found": 24, "compared": 24, "unreadable": 0}
    code, out, err = run("compare", "photos", *NAMES, "--images", 12, "--seed", 4, "--json")
    other = json.loads(out)
    assert "note: 12 of 24 images were drawn" in err and other["images"]["compared"] == other["gallery"] == 12
    assert other["queries"]["keys"] != first["queries"]["keys"]


def test_the_report_is_one_file_that_needs_nothing_else(here, run):
    # A file name that is not UTF-8.
    file = next((here / "photos").rglob("*.jpg"))
    file.rename(os.fsdecode(os.fsencode(file.parent) + b"/\xe9.jpg"))
    assert run("compare", "photos", *NAMES, "-o", "report.html", "-o", "report.json")[0] == OK
    source = (here / "report.html").read_text(encoding="utf-8")
    content = json.loads((here / "report.json").read_text(encoding="utf-8"))
    page = _Page(source)
    assert page.sources and all(each.startswith("data:image/jpeg;base64,") for each in page.sources)
    assert not {"script", "link", "iframe"} & set(page.tags) and "http" not in source and "url(" not in source
    assert "b" in page.tags and "birds & <b>" in page.text and "birds & <b>" not in source
    for sentence in re.split(r"(?<=\.) (?=[A-Z])", content["recommendation"]["text"]):
        assert sentence in page.text
    shown = content["disagreements"]
    assert shown and all(f"{each['query']}" in page.text for each in shown)
    assert page.text.count("average precision") > 2 * len(shown)
    for one in content["methods"]:
        assert f"{one['metrics']['mAP']['value']:.3f}" in page.text
    assert content["command"].split()[-1] in page.text


def test_a_folder_without_classes_is_compared_by_changed_copies(here, run):
    (here / "flat").mkdir()
    for file in sorted((here / "photos").rglob("*.jpg")):
        shutil.copy(file, here / "flat")
    arguments = ("compare", "flat", *NAMES, "--queries", 16, "-o", "report.html", "--json")
    code, out, err = run(*arguments)
    content = json.loads(out)
    assert code == OK and "note: the folder has no classes, so changed copies of its images are the queries" in err
    assert "note: known items measure how well an image is found again" in err
    assert content["mode"] == "known items" and content["command"].endswith("--known-items")
    assert content["queries"]["count"] == content["queries"]["images"] == 16
    assert set(content["top1_by_change"]) == {
        "crop 0.7", "rotation 15", "perspective 0.2", "scale 0.25", "blur 2", "noise 20", "jpeg 10", "brightness 0.5",
    }  # fmt: skip
    assert all(one["metrics"]["mAP"]["ceiling"] == 1 for one in content["methods"])
    text = _Page((here / "report.html").read_text(encoding="utf-8")).text
    assert "how well an image is found again, not whether results show similar things" in text
    # A second run reads all vectors from the cache.
    fingerprint = open_extractor("hog").fingerprint
    from helpers.features.store import VectorStore

    with VectorStore(fingerprint, 1764) as store:
        before = len(store)
    assert without_times(json.loads(run(*arguments)[1])) == without_times(content)
    with VectorStore(fingerprint, 1764) as store:
        assert len(store) == before


@pytest.mark.slow  # compiles a network
def test_a_network_backends_and_rerankers(here, run):
    code, out, err = run(
        "compare", "photos", "--extractors", "efficientnet-lite0,hsv-histogram", "--backends",
        "exact:cosine,exact:euclidean", "--rerankers", "none,k-reciprocal", "--json",
    )  # fmt: skip
    content = json.loads(out)
    assert code == OK and "k-reciprocal with exact:euclidean is left out" in err
    names = [one["name"] for one in content["methods"]]
    assert len(names) == 6 and "efficientnet-lite0 in exact:cosine with k-reciprocal" in names
    # Photographs of three classes: the network is far better than colors.
    assert content["recommendation"]["best"].startswith("efficientnet-lite0")
    assert any(name.startswith("hsv-histogram") for name in content["recommendation"]["worse"])
    assert content["duplicates"]["searched"] == ["bytes", "hash", "mirror", "crop"]
    # Vectors of length one have the same order by both metrics.
    scores = {one["name"]: one["average_precision"] for one in content["methods"]}
    for name in ("efficientnet-lite0", "hsv-histogram"):
        assert scores[f"{name} in exact:cosine"] == pytest.approx(scores[f"{name} in exact:euclidean"])


@pytest.mark.parametrize(
    ("arguments", "expected", "message"),
    [
        (("photos", "--extractors", "hog"), USAGE, "these options name 1 method; a comparison needs 2 to 24"),
        (("photos", "--extractors", "hog,nonsense"), USAGE, "unknown extractor 'nonsense'"),
        (("photos", "--extractors", "hog,,pixels"), USAGE, "names separated by commas"),
        (("photos", *NAMES, "--backends", "exact:cosine,nowhere"), USAGE, "there is no index 'nowhere'"),
        (
            ("photos", *NAMES, "--backends", "elasticsearch://host:9200/name"),
            USAGE,
            "needs one: choose another backend",
        ),
        (("photos", *NAMES, "--rerankers", "best"), USAGE, "no re-ranker 'best'"),
        (("photos", *NAMES, "--seed", "-1"), USAGE, "must be at least 0"),
        (("photos", *NAMES, "--queries", "0"), USAGE, "must be at least 1"),
        (("photos", *NAMES, "-o", "report.txt"), USAGE, "must end in .html or .json"),
        (
            ("photos", *NAMES, "-o", "missing/report.html"),
            BAD_INPUT,
            "the folder missing of missing/report.html does not exist",
        ),
        (("photos/birds & <b>", *NAMES), BAD_INPUT, "has 8 images; a comparison needs at least 10"),
        (("alone", *NAMES), BAD_INPUT, "--known-items"),
        (("one", *NAMES), BAD_INPUT, "has only one class, birds"),
        (("nowhere", *NAMES), BAD_INPUT, "does not exist"),
    ],
)
def test_bad_input_is_named_before_the_work(here, run, monkeypatch, arguments, expected, message):
    files = sorted((here / "photos").rglob("*.jpg"))[:12]
    for number, file in enumerate(files):
        for target in (here / "alone" / str(number), here / "one" / "birds"):
            target.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, target)
    code, out, err = run("compare", *arguments)
    assert (code, out) == (expected, "") and message in err
    assert "Traceback" not in err and not list(here.glob("*.html"))
