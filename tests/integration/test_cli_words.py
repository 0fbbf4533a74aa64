"""`lookalike classify`, `words` and `search --text`, with EfficientNet-Lite0 on photographs of the sample."""

import json
import shutil

import pytest

from helpers.cli import main as cli
from helpers.cli.common import BAD_INPUT, OK, USAGE
from helpers.images import samples
from tests.unit.test_word_index import stored_scores

#: Word vectors with an axis each for birds, vehicles and music.
VECTORS = """bird 1 0 0
parrot 0.9 0 0.1
car 0 1 0
truck 0.1 0.9 0
jet 0 0.8 0.1
magpie 0.9 0.1 0
macaw 1 0 0.1
guitar 0 0 1
violin 0.05 0 1
"""
NAMES = ("birds", "vehicles", "instruments")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Photographs of three classes, and word vectors."""
    folder = tmp_path_factory.mktemp("words")
    photos = samples.photos()
    for name in NAMES:
        label = photos.class_names.index(name)
        for path, _ in [pair for pair in zip(photos.paths, photos.labels, strict=True) if pair[1] == label][:6]:
            (folder / "photos" / name).mkdir(parents=True, exist_ok=True)
            shutil.copy(path, folder / "photos" / name)
    (folder / "vectors.txt").write_text(VECTORS)
    return folder


@pytest.fixture(autouse=True)
def here(folder, monkeypatch):
    monkeypatch.chdir(folder)


@pytest.fixture(scope="module")
def engine(folder):
    assert cli.main(["index", str(folder / "photos"), "-o", str(folder / "my.engine")]) == OK
    assert cli.main(["classify", "-e", str(folder / "my.engine")]) == OK
    return folder / "my.engine"


def classes(capsys, *arguments):
    assert cli.main(["search", "--json", "--vectors", "vectors.txt", *arguments]) == OK
    [found] = json.loads(capsys.readouterr().out)
    return [result["class_name"] for result in found["results"]]


def test_words_find_images_of_their_kind(engine, capsys):
    capsys.readouterr()
    assert classes(capsys, "--text", "parrots", "-k", "4").count("birds") >= 3
    assert classes(capsys, "--text", "car", "-k", "3").count("vehicles") >= 2


def test_an_image_without_a_word(engine, capsys):
    photo = next((engine.parent / "photos" / "birds").iterdir())
    capsys.readouterr()
    near = classes(capsys, str(photo), "--text", "car", "--text-weight", "2", "-k", "4")
    assert near.count("vehicles") >= 2
    far = classes(capsys, str(photo), "--without", "bird", "--text-weight", "3", "-k", "6")
    # Birds whose ImageNet classes have no word in the file stay.
    assert far.count("birds") <= 3 < classes(capsys, str(photo), "--text", "bird", "-k", "6").count("birds")


def test_an_addition_gets_class_scores(engine, tmp_path, capsys):
    before = len(stored_scores(engine))
    photos = samples.photos()
    new = tmp_path / "new.jpg"
    shutil.copy(photos.paths[-1], new)
    assert cli.main(["add", "-e", str(engine), str(new)]) == OK
    assert "class scores of 1 image computed" in capsys.readouterr().err
    assert len(stored_scores(engine)) == before + 1


def test_an_engine_without_class_scores_names_the_command(folder, capsys):
    assert cli.main(["index", "photos", "-o", "plain.engine", "-x", "pixels"]) == OK
    assert cli.main(["search", "-e", "plain.engine", "--text", "bird", "--vectors", "vectors.txt"]) == BAD_INPUT
    assert "lookalike classify -e plain.engine" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "code", "message"),
    [
        ("", BAD_INPUT, "the text is empty"),
        ("xyzzy", BAD_INPUT, "none of the words of 'xyzzy' has a vector"),
        ("gitar", BAD_INPUT, "'guitar'"),
        ("bird " * 2000, BAD_INPUT, "10,000 characters"),
    ],
)
def test_bad_texts(engine, capsys, text, code, message):
    assert cli.main(["search", "--vectors", "vectors.txt", "--text", text]) == code
    assert message in capsys.readouterr().err


def test_ignored_words_are_named(engine, capsys):
    assert cli.main(["search", "--vectors", "vectors.txt", "--text", "a xyzzy bird"]) == OK
    assert "a, xyzzy" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name an image"),
        (["--without", "bird"], "name an image"),
        (["--text", "bird", "--rerank", "expansion"], "--rerank"),
        (["--text", "bird", "--grid", "grid.png"], "--grid"),
        (["photos", "--weights", "1,2"], "--weights needs --together"),
        (["photos", "--weights", "1,0", "--together"], "other than 0"),
        (["photos", "--weights", "a,1", "--together"], "must be numbers between -1000 and 1000"),
        (["photos", "--weights", "1000,1", "--together"], "must be numbers between -1000 and 1000"),
        (["photos", "--weights", "1,2", "--together"], "2 numbers for 18 images"),
        (["photos", "--vectors", "vectors.txt", "--together"], "--vectors"),
    ],
)
def test_options_that_do_not_go_together(engine, capsys, arguments, message):
    assert cli.main(["search", *arguments]) == USAGE
    assert message in capsys.readouterr().err


def test_another_network_replaces_the_scores_and_an_unknown_one_does_not(engine, capsys):
    assert cli.main(["classify", "-e", str(engine), "--network", "resnet5"]) == USAGE
    assert "resnet5" in capsys.readouterr().err
    assert cli.main(["search", "--vectors", "vectors.txt", "--text", "bird"]) == OK


def test_similar_words(capsys):
    assert cli.main(["words", "birds", "--vectors", "vectors.txt", "-k", "2", "--json"]) == OK
    assert [one["word"] for one in json.loads(capsys.readouterr().out)] == ["macaw", "parrot"]
    assert cli.main(["words", "xyzzy", "--vectors", "vectors.txt"]) == BAD_INPUT


def test_a_file_of_vectors_with_a_wrong_dimension(engine, folder, capsys):
    (folder / "bad.txt").write_text("bird 1 0 0\ncar 0 1\n")
    assert cli.main(["search", "--vectors", "bad.txt", "--text", "bird"]) == BAD_INPUT
    assert "bad.txt, line 2" in capsys.readouterr().err


def test_words_for_images(folder, capsys):
    [violin] = [path for path in samples.photos().paths if path.stem == "violin"]
    assert cli.main(["tags", str(violin)]) == OK
    assert "violin 0." in capsys.readouterr().out
    assert cli.main(["tags", "photos", "--csv", "-k", "1"]) == OK
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "image,tag,score" and len(lines) == 19
    assert cli.main(["tags", "photos", "--json", "--threshold", "1"]) == OK
    assert all(not one["tags"] for one in json.loads(capsys.readouterr().out))


def test_sidecars_are_written_once(folder, tmp_path, capsys):
    shutil.copytree(folder / "photos" / "birds", tmp_path / "birds")
    assert cli.main(["tags", str(tmp_path / "birds"), "--sidecars"]) == OK
    written = sorted((tmp_path / "birds").glob("*.jpg.xmp"))
    assert written and f"{len(written)} sidecars written" in capsys.readouterr().out
    before = [path.read_bytes() for path in written]
    assert cli.main(["tags", str(tmp_path / "birds"), "--sidecars"]) == OK
    captured = capsys.readouterr()
    assert "0 sidecars written" in captured.out and f"{len(written)} sidecars kept" in captured.err
    assert [path.read_bytes() for path in written] == before


def test_like_this_image_but_as_another_class(engine, capsys):
    photo = next((engine.parent / "photos" / "birds").iterdir())
    capsys.readouterr()
    assert cli.main(["search", str(photo), "--as", "sports car", "--json", "-k", "3"]) == OK
    [found] = json.loads(capsys.readouterr().out)
    assert found["results"][0]["class_name"] == "vehicles"
    assert cli.main(["search", "--as", "sports car"]) == USAGE
    assert cli.main(["search", str(photo), "--as", "cars", "--vectors", "vectors.txt", "-k", "1"]) == OK
    assert "the nearest one is" in capsys.readouterr().err


@pytest.mark.parametrize("way", ["ridge", "devise"])
def test_a_map_learned_on_the_own_classes(engine, folder, capsys, way):
    (folder / "classes.txt").write_text("birds 1 0 0\nparrot 0.9 0 0.1\nvehicles 0 1 0\ninstruments 0 0 1\n")
    capsys.readouterr()
    assert cli.main(["search", "--text", "parrot", "--vectors", "classes.txt", "--way", way, "-k", "5", "--json"]) == OK
    [found] = json.loads(capsys.readouterr().out)
    assert [result["class_name"] for result in found["results"]] == ["birds"] * 5


def test_captions(engine, folder, capsys):
    first, second = sorted((folder / "photos" / "birds").iterdir())[:2]
    table = folder / "captions.csv"
    table.write_text(f"path,caption\nbirds/{first.name},a guitar\nphotos/birds/{second.name},a car\nno.jpg,bird\n")
    capsys.readouterr()
    arguments = ["search", "--vectors", "vectors.txt", "--way", "captions", "-k", "1", "--json"]
    for text, path in (("violin", first), ("truck", second)):
        assert cli.main([*arguments, "--text", text, "--captions", str(table)]) == OK
        captured = capsys.readouterr()
        assert json.loads(captured.out)[0]["results"][0]["path"] == str(path)
        assert "1 path is not in the engine" in captured.err
    assert cli.main([*arguments, "--text", "car"]) == USAGE
    table.write_text("path,caption\nno.jpg,bird\n")
    assert cli.main([*arguments, "--text", "car", "--captions", str(table)]) == BAD_INPUT


def test_images_with_weights(engine, folder, capsys):
    bird, car = (sorted((folder / "photos" / name).iterdir())[0] for name in ("birds", "vehicles"))
    for weights, class_name in (("1,3", "vehicles"), ("3,-1", "birds")):
        capsys.readouterr()
        arguments = [str(bird), str(car), "--together", "--weights", weights, "--json", "-k", "3"]
        assert cli.main(["search", *arguments]) == OK
        [found] = json.loads(capsys.readouterr().out)
        assert found["results"][0]["class_name"] == class_name
