"""`lookalike index --regions` and searches by parts of images, on photographs with color histograms."""

import json
import shutil

import cv2
import numpy as np
import pytest

from helpers.cli import main as cli
from helpers.cli.common import NEGATIVE, OK, USAGE
from helpers.images import samples
from helpers.images.reading import read_image


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    """The current folder, with ``photos``, six images of birds, and ``my.engine`` with the regions of a grid."""
    folder = tmp_path_factory.mktemp("regions")
    images = samples.photos()
    (folder / "photos").mkdir()
    for row in np.flatnonzero(images.labels == images.class_names.index("birds"))[:6]:
        shutil.copy(images.paths[row], folder / "photos" / images.paths[row].name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOOKALIKE_CACHE", str(folder / "cache"))
        patch.chdir(folder)
        assert cli.main(["index", "photos", "-x", "hsv-histogram", "--regions", "grid"]) == OK
        yield folder


@pytest.fixture
def run(engine, capsys):
    def run_command(*arguments):
        capsys.readouterr()
        code = cli.main([str(argument) for argument in arguments])
        return code, *capsys.readouterr()

    return run_command


def first_image(engine):
    return sorted((engine / "photos").iterdir())[0]


def test_a_part_of_an_image_finds_it_and_its_box(engine, run):
    path = first_image(engine)
    height, width = read_image(path).shape[:2]
    box = f"0,0,{width // 2},{height // 2}"
    code, out, _ = run("search", path, "--box", box, "--json", "-k", 3)
    ((result, *_),) = [one["results"] for one in json.loads(out)]
    assert code == OK and result["path"] == str(path)
    (region,) = result["regions"]
    assert region["part"] == 1 and region["class_name"] is None and region["score"] == pytest.approx(result["score"])
    assert max(abs(np.array(region["box"]) - [0, 0, width / 2, height / 2]) / [width, height, width, height]) < 0.15
    assert ",".join(map(str, region["box"])) in run("search", path, "--box", box)[1].splitlines()[0]
    lines = run("search", path, "--box", box, "--csv")[1].splitlines()
    assert lines[0].endswith(",regions") and lines[1].endswith(f'"{",".join(map(str, region["box"]))}"')


def test_several_parts_match_different_regions(engine, run):
    path = first_image(engine)
    height, width = read_image(path).shape[:2]
    boxes = ["--box", f"0,0,{width // 2},{height // 2}", "--box", f"{width // 2},{height // 2},{width // 2 - 1},60"]
    code, out, _ = run("search", path, *boxes, "--json", "-k", 2)
    (found,) = json.loads(out)
    results = found["results"]
    assert code == OK and found["score_kind"] == "geometric mean of cosines"
    for result in results:
        assert [one["part"] for one in result["regions"]] == [1, 2]
        assert result["regions"][0]["box"] != result["regions"][1]["box"]
    assert "; " in run("search", path, *boxes, "-k", 1)[1]


def test_the_grid_outlines_the_matched_part(engine, run, tmp_path):
    path = first_image(engine)
    for name, options in (("whole.png", ["--whole"]), ("parts.png", ["--box", "10,10,60,60"])):
        assert run("search", path, *options, "-k", 2, "--grid", tmp_path / name)[0] == OK
    blue = [
        int((cv2.imread(str(tmp_path / name)) == [178, 114, 0]).all(axis=2).sum())
        for name in ("whole.png", "parts.png")
    ]
    assert blue[0] < 20 < 100 < blue[1]


def test_changes_of_the_engine_are_followed(engine, run):
    path = first_image(engine)
    shutil.copytree("my.engine", "changed.engine")
    image = cv2.imread(str(path))
    (engine / "new").mkdir()
    cv2.imwrite("new/inverted.png", 255 - image)
    code, _, err = run("add", "-e", "changed.engine", "new/inverted.png")
    assert code == OK and "regions by grid added" in err
    assert (
        run("search", "new/inverted.png", "-e", "changed.engine", "-k", 1, "--paths")[1]
        .strip()
        .endswith("inverted.png")
    )
    assert run("remove", "-e", "changed.engine", "new/inverted.png")[0] == OK
    assert "inverted" not in run("search", "new/inverted.png", "-e", "changed.engine", "--box", "0,0,50,50")[1]
    assert "of removed images deleted" in run("compact", "-e", "changed.engine")[2]
    code, _, err = run("index", "photos", "-x", "hsv-histogram", "-o", "changed.engine", "--regions", "proposals")
    assert code == OK and "by proposals added" in err


def test_an_engine_made_again_without_cosines_has_no_regions(engine, run):
    shutil.copytree("my.engine", "distances.engine")
    code, _, err = run(
        "index", "photos", "-x", "hsv-histogram", "-o", "distances.engine", "--backend", "exact:euclidean", "--force"
    )
    assert code == OK and "no longer has regions" in err
    code, out, _ = run("search", first_image(engine), "-e", "distances.engine", "-k", 1)
    assert code == OK and first_image(engine).name in out and "[" not in out
    again = "index", "photos", "-x", "hsv-histogram", "-o", "distances.engine", "--force", "--regions", "grid"
    assert run(*again)[0] == OK
    assert "[whole image]" in run("search", first_image(engine), "-e", "distances.engine", "-k", 1)[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--box", "1,2,3"], "four numbers"),
        (["--box", "10,10,0,20"], "positive width and height"),
        (["--box", "5000,10,20,20"], "outside of the image"),
        (["--box", "10,10,2,2"], "too small"),
        (["--box", "10,10,50,50", "--rerank", "expansion"], "--box, --object and --detect cannot be combined with"),
        (["--detector", "no.onnx", "--object", "1"], "give both --detector and --labels"),
        (["--detector", "no.onnx", "--labels", "no.txt", "--object", "1"], "no.txt"),
    ],
)
def test_bad_queries_are_clear_errors(engine, run, options, message):
    code, out, err = run("search", first_image(engine), *options)
    assert code != OK and not out and message in err


def test_queries_of_parts_need_one_image_and_cosines(engine, run):
    assert run("search", "photos", "--box", "0,0,50,50")[0] == USAGE
    code, _, err = run(
        "index", "photos", "-x", "hsv-histogram", "-b", "exact:l1", "--regions", "grid", "-o", "l1.engine"
    )
    assert code == USAGE and "needs cosines" in err


def test_an_engine_without_regions_compares_a_part_with_whole_images(engine, run):
    assert run("index", "photos", "-x", "hsv-histogram", "-o", "plain.engine")[0] == OK
    code, out, _ = run("search", first_image(engine), "-e", "plain.engine", "--box", "0,0,50,50", "-k", 2)
    assert code == OK and len(out.splitlines()) == 2 and "[" not in out
    code, _, err = run("search", first_image(engine), "-e", "plain.engine", "--box", "0,0,50,50", "--box", "40,0,50,50")
    assert code != OK and "--regions detector" in err


def test_detected_objects_are_listed_and_searched(engine, run, detector):
    """A photograph of a car of the sample."""
    images = samples.photos()
    cars = [images.paths[row] for row in np.flatnonzero(images.labels == images.class_names.index("vehicles"))]
    for path in cars:
        code, out, err = run("search", path, "--detect", "--json")
        if code == OK:
            break
    assert code == OK
    code, table, err = run("search", path, "--detect")
    assert code == OK and f"next: lookalike search {path} --object 1\n" in err
    assert len(table.splitlines()) == len(json.loads(out))
    objects = json.loads(out)
    assert [one["object"] for one in objects] == list(range(1, len(objects) + 1))
    assert objects[0]["score"] >= objects[-1]["score"] >= 0.2
    by_object = run("search", path, "--object", 1, "--json")[1]
    by_box = run("search", path, "--box", ",".join(map(str, objects[0]["box"])), "--json")[1]
    first, second = (json.loads(text)[0]["results"] for text in (by_object, by_box))
    assert [one["id"] for one in first] == [one["id"] for one in second]
    code, _, err = run("search", path, "--object", len(objects) + 1)
    assert code == USAGE and f"--object {len(objects) + 1}: " in err and "--detect lists the objects" in err


def test_a_tiny_image_has_no_objects(engine, run, detector, tmp_path):
    cv2.imwrite(str(tmp_path / "tiny.png"), np.full((20, 20, 3), 128, np.uint8))
    code, out, err = run("search", tmp_path / "tiny.png", "--detect")
    assert (code, out) == (NEGATIVE, "") and "--box" in err
    assert run("search", tmp_path / "tiny.png", "--box", "0,0,10,10")[0] == OK
