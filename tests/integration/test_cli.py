"""The command line: output, errors, exit codes and Ctrl-C."""

import csv
import inspect
import io
import json
import os
import pty
import re
import shlex
import shutil
import signal
import sqlite3
import subprocess
import sys
import termios
import time
from concurrent.futures import ThreadPoolExecutor
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from helpers import paths
from helpers.cli import common, result_output
from helpers.cli import main as cli
from helpers.cli.common import (
    BAD_INPUT,
    INTERNAL_ERROR,
    INTERRUPTED,
    NEGATIVE,
    OK,
    UNAVAILABLE,
    USAGE,
    explain_error,
    pluralize,
    printable,
)
from helpers.evaluation import builders, leaderboard, metrics, protocol_files, runner
from helpers.features import registry as extractors
from helpers.images import duplicates, samples
from helpers.images.folders import from_folder
from helpers.lessons import runner as notebooks
from helpers.loopback import reserved_port
from helpers.networks import weights
from helpers.search.backends.remote import ServerUnavailable
from helpers.search.engine import Engine
from helpers.search.index import BACKENDS, UnsupportedByIndex, open_index
from helpers.search.persist import snapshot, wal
from helpers.search.rerank import NAMES
from helpers.service import server
from helpers.service.settings import Settings
from helpers.text import clean_text

COMMANDS = (
    "index", "sync", "add", "remove", "compact", "relocate", "info", "list", "search", "classify", "tags", "words",
    "evaluate", "leaderboard", "compare", "audit", "extractors", "backends", "encoders", "serve", "notebook",
    "completion",
)  # fmt: skip
#: Ctrl-C works here even if the process that started the tests ignores it.
PROGRAM = (
    "import signal, sys\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
    "from helpers.cli.main import main\nsys.exit(main())"
)


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    """One cache for all tests, so that features are extracted once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOOKALIKE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty current folder with ``photos``: birds, fruit and vehicles, six of each."""
    images = samples.photos()
    for name in ("birds", "fruit", "vehicles"):
        for row in np.flatnonzero(images.labels == images.class_names.index(name))[:6]:
            target = tmp_path / "photos" / name / images.paths[row].name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(images.paths[row], target)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(capsys):
    """Run a command line in this process: (exit code, standard output, standard error)."""

    def run_command(*arguments):
        capsys.readouterr()
        code = cli.main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return code, out, err

    return run_command


@pytest.fixture
def engine(here, run):
    """``my.engine`` of the photos, with color histograms."""
    assert run("index", "photos", "-x", "hsv-histogram")[0] == OK
    return here / "my.engine"


def images(folder="photos"):
    return sorted(Path(folder).rglob("*.jpg"))


def found(run, *arguments):
    """The results of one query, from JSON."""
    code, out, _ = run("search", *arguments, "--json")
    assert code == OK
    return json.loads(out)[0]["results"]


def start_process(*arguments, folder, **options):
    environment = os.environ | {"PYTHONPATH": str(paths.ROOT), "COLUMNS": "200"}
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *map(str, arguments)], cwd=folder, env=environment, text=True, **options
    )


# ---- help ------------------------------------------------------------------------------------------


def command_parsers():
    return next(action for action in cli.parser()._actions if hasattr(action, "choices") and action.choices).choices


def examples(text):
    """The command lines in a help text or in README, without variables before, and redirections and comments behind."""
    lines = [line.strip() for line in text.splitlines()]
    lines = [re.split(r"\s{2,}|\s+[#|<>]\s", re.sub(r"^([A-Z_]+=\S+ )+", "", line))[0] for line in lines]
    return [shlex.split(line)[1:] for line in lines if line.startswith("lookalike ")]


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_shows_examples_that_parse(name):
    parser = command_parsers()[name]
    lines = examples(parser.epilog)
    assert "examples:" in parser.format_help() and lines
    for line in lines:
        assert line[0] == name
        assert cli.parser().parse_args(line).command == name


def test_these_tests_cover_all_commands():
    assert set(command_parsers()) == set(COMMANDS)


def test_the_examples_of_the_main_help_and_of_readme_parse():
    main = examples(cli.parser().epilog)
    readme = examples((paths.ROOT / "README.md").read_text(encoding="utf-8"))
    assert {line[0] for line in main} == {"index", "search", "serve"}
    assert {line[0] for line in readme} >= {"index", "search", "evaluate", "audit", "add", "remove", "serve"}
    for line in main + readme:
        cli.parser().parse_args(line)


#: Names in README and in the help → names of quick extractors, which need no weights.
QUICK = {"efficientnet-lite0": "hsv-histogram", "resnet50": "pixels"}


@pytest.fixture
def reader(here, monkeypatch):
    """The files that the examples name, and a quick default extractor."""
    monkeypatch.setattr(common, "DEFAULT_EXTRACTOR", "hsv-histogram")
    others = samples.with_distractors().paths[-12:]
    for number, name in enumerate(
        ("new/blurred.jpg", "new/photos/1.jpg", "queries/1.jpg", "queries/2.jpg", "holiday.jpg", "one.jpg",
         "front.jpg", "side.jpg", "owls/1.jpg", "owls/2.jpg"),
    ):  # fmt: skip
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(others[number], name)
    Image.open("holiday.jpg").convert("RGB").resize((640, 480)).save("holiday.jpg")
    for name in ("two.png", "another.png"):
        Image.open("one.jpg").resize((50, 40)).save(name)
    Path("table.csv").write_text("path,label\n" + "".join(f"{path},{path.parent.name}\n" for path in images()))
    return here


def run_example(run, line):
    """Run an example, with standard input and quick extractors."""
    code, _, err = run(*(QUICK.get(word, word) for word in line))
    assert code in (OK, NEGATIVE) and "Traceback" not in err, (line, err)


def test_the_commands_of_readme_work_for_a_stranger(reader, run, monkeypatch):
    """Takes over 5 s on a busy computer, because --grid draws an image, and evaluate compares two extractors."""
    text = (paths.ROOT / "README.md").read_text(encoding="utf-8")
    block = text.partition("## Searching your own images")[2].split("```")[1]
    lines = [line for line in examples(block) if line[0] != "serve"]
    assert [line[0] for line in lines][:2] == ["index", "search"] and len(lines) >= 14
    for line in lines:
        give(monkeypatch, Path("holiday.jpg").read_bytes())
        run_example(run, line)
    assert Path("results.png").exists() and Path("report.html").exists()


def test_the_examples_of_the_help_work(reader, run, monkeypatch):
    """Those that need no weights, no servers and no folder outside: the others are only parsed.

    Takes over 5 s, because it runs forty commands.
    """
    other = ("--text", "--as", "--detect", "--object", "--regions", "/new/", "/old/", "my-protocol.json", "sample-")
    shutil.copytree("owls", "photos/owls")
    run("index", "photos", "-o", "photos.engine")
    for name in ("train", "test", "data/train", "data/dev", "data/images", "data/new"):
        shutil.copytree("photos", name)
    for name in ("index", "add", "sync", "info", "list", "search", "compact", "audit", "evaluate", "completion"):
        # Each command stands for itself.
        run("index", "photos", "--force")
        for line in examples(command_parsers()[name].epilog):
            if not any(word.startswith(other) for word in line):
                run_example(run, line)


def test_help_imports_nothing_heavy():
    script = (
        "import sys\nfrom helpers.cli.main import main\ncode = main(['search', '--help'])\n"
        "print(code, sorted({'numpy', 'pandas', 'PIL', 'tensorflow', 'matplotlib', 'fastapi'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=paths.ROOT, check=True)
    assert done.stdout.splitlines()[-1] == "0 []"


@pytest.mark.parametrize(
    ("line", "usage", "message"),
    [
        (["serch", "a.jpg"], "lookalike", "unknown command 'serch'. Did you mean search?"),
        (["nonsense"], "lookalike", "unknown command 'nonsense'. `lookalike --help` lists the commands."),
        (["--verison"], "lookalike", "unknown option --verison. Did you mean --version?"),
        (["index"], "lookalike index", "the following arguments are required: FOLDER"),
        (["index", "--forse"], "lookalike index", "unknown option --forse. Did you mean --force?"),
        (["search", "a.jpg", "--reranck=none"], "lookalike search", "Did you mean --rerank?"),
        (["search", "a.jpg", "-k", "0"], "lookalike search", "must be at least 1, got 0"),
        (["index", "a", "--no"], "lookalike index", "unknown option --no."),
        (["index", "a", "-z"], "lookalike index", "unrecognized arguments: -z"),
        # An option is not abbreviated, so that a script stays right when a command gets another one.
        (["search", "a.jpg", "--eng", "b"], "lookalike search", "unknown option --eng. Did you mean --engine?"),
        (["compact", "my.engine"], "lookalike compact", "unrecognized arguments: my.engine"),
    ],
)
def test_wrong_arguments_show_the_usage_of_the_command_and_what_was_meant(run, line, usage, message):
    code, out, err = run(*line)
    assert (code, out) == (USAGE, "")
    assert err.startswith(f"usage: {usage} [") and f"{usage}: error: " in err and message in err


def test_a_command_line_without_arguments_prints_the_help(run):
    assert run() == run("--help") and run()[0] == OK and "lookalike index photos" in run()[1]


def test_the_version_is_that_of_the_package(run):
    import tomllib

    project = tomllib.loads((paths.ROOT / "pyproject.toml").read_text())["project"]
    assert run("--version") == (OK, f"lookalike {project['version']}\n", "")


# ---- index -----------------------------------------------------------------------------------------


def test_index_prints_a_summary_and_the_next_command(here, run):
    code, out, err = run("index", "photos", "-x", "hsv-histogram", "--backend", "faiss:hnsw", "-o", "the fast.engine")
    assert (code, err) == (OK, "next: lookalike search IMAGE -e 'the fast.engine'\n")
    assert out.startswith("the fast.engine: 18 images in 3 classes; hsv-histogram, faiss:hnsw; ")
    assert len(Engine.load("the fast.engine")) == 18
    # The second run takes the features from the cache and replaces the engine of the same folder.
    Path(images()[0]).unlink()
    code, out, _ = run("index", "photos", "-x", "hsv-histogram", "-o", "the fast.engine")
    assert (code, out) == (
        OK,
        "the fast.engine: 17 images in 3 classes; hsv-histogram, exact:cosine; 0 extracted, 17 from the cache; "
        "the previous engine was replaced\n",
    )


def test_index_takes_a_table(here, run):
    chosen = images()[:3]
    Path("table.csv").write_text("path,label\n" + "".join(f"{path},{path.parent.name}\n" for path in chosen))
    assert run("index", "table.csv", "-x", "hsv-histogram")[0] == OK
    assert Engine.load("my.engine").gallery.paths == tuple(path.resolve() for path in chosen)


def test_index_caches_the_keypoints_of_geometric_reranking(here, run, own_cache):
    code, _, err = run("index", "photos", "-x", "hsv-histogram", "--keypoints")
    assert code == OK and err.splitlines()[0] == "note: the keypoints of 18 images are cached"
    stored = {path: path.stat().st_size for path in (own_cache / "keypoints").glob("*.sqlite")}
    assert len(stored) == 1
    code, out, _ = run("search", images()[0], "--rerank", "geometry", "--json")
    assert code == OK and len(json.loads(out)[0]["results"]) == 10
    assert {path: path.stat().st_size for path in (own_cache / "keypoints").glob("*.sqlite")} == stored


def test_add_takes_a_table(here, run):
    first, second, *_ = images()
    Path("one.csv").write_text(f"path,label\n{first},{first.parent.name}\n")
    Path("two.csv").write_text(f"path,label\n{first},{first.parent.name}\n{second},other\n")
    assert run("index", "one.csv", "-x", "hsv-histogram")[0] == OK
    code, out, _ = run("add", "-e", "my.engine", "two.csv")
    assert code == OK and out.startswith("my.engine: 1 image added")
    assert Engine.load("my.engine").gallery.class_names == (first.parent.name, "other")


def test_the_files_that_were_left_out_are_counted_in_the_last_line(here, run):
    Path("photos/notes.txt").write_text("no image")
    (Path("photos") / images()[0].parent.name / "raw.dng").write_bytes(b"raw")
    code, _, err = run("index", "photos", "-x", "hsv-histogram")
    assert code == OK and err.splitlines()[0] == "next: lookalike search IMAGE"
    assert re.fullmatch(r"note: .*photos: 20 files: 18 images; skipped: 1 \.dng \(.*\), 1 \.txt", err.splitlines()[-1])
    assert "skipped" not in run("search", images()[0])[2]


@pytest.mark.parametrize(
    "name, delimiter, note", [("t.csv", ";", "semicolons"), ("t.tsv", "\t", "tabs"), ("t.txt", "\t", "tabs")]
)
def test_index_says_how_it_read_a_table(here, run, name, delimiter, note):
    rows = ["path,label", *(f"{path},{path.parent.name}" for path in images()), ","]
    Path(name).write_text("\r\n".join(rows).replace(",", delimiter), encoding="utf-16" if name == "t.txt" else "utf-8")
    code, out, err = run("index", name, "-x", "hsv-histogram")
    assert code == OK and "18 images in 3 classes" in out
    assert err.splitlines()[0] == f"note: {name}: separated by {note}"
    assert run("search", images()[0], "-k", "1", "--paths")[1] == f"{images()[0].resolve()}\n"


def test_bad_rows_of_a_table_make_no_engine(here, run):
    first, second, *_ = images()
    Path("table.csv").write_text(f"path,label\n{first},Smith, John\n{second},x\nno\x1b.jpg,y\n")
    code, _, err = run("index", "table.csv", "-x", "hsv-histogram")
    assert code == BAD_INPUT and not Path("my.engine").exists()
    assert err.splitlines() == [
        f"lookalike index: {here}/table.csv: 2 rows cannot be used:",
        "  line 2: 3 cells, but the header has 2. A cell that contains ',' must be in double quotes",
        r"  line 4: no\x1b.jpg does not exist",
        "Paths are relative to the table's folder.",
    ]


def test_images_inside_an_engine_are_not_indexed_with_the_folder_that_contains_it(here, run):
    target = Path("photos") / "my.engine"
    assert run("index", "photos", "-x", "hsv-histogram", "-o", target)[0] == OK
    (target / "images").mkdir()
    shutil.copy(images()[0], target / "images" / "1.jpg")
    assert run("index", "photos", "-x", "hsv-histogram", "-e", target)[0] == OK
    gallery = Engine.load(target).gallery
    assert len(gallery) == 18 and gallery.class_names == ("birds", "fruit", "vehicles")


def test_unreadable_images_are_listed_or_an_error_with_strict(here, run):
    Path("photos/fruit/broken.jpg").write_bytes(b"\xff\xd8\xff no more")
    code, out, err = run("index", "photos", "-x", "hsv-histogram")
    assert code == OK and "18 images" in out and err.count("broken.jpg") == 1
    code, out, err = run("index", "photos", "-x", "hsv-histogram", "-o", "strict.engine", "--strict")
    assert (code, out) == (BAD_INPUT, "") and "broken.jpg" in err and not Path("strict.engine").exists()


def test_index_never_overwrites_a_folder_that_is_not_an_engine(here, run):
    Path("notes").mkdir()
    Path("notes/thoughts.txt").write_text("mine")
    for force in ([], ["--force"]):
        code, _, err = run("index", "photos", "-x", "hsv-histogram", "-o", "notes", *force)
        assert code == BAD_INPUT and "notes exists and is not an engine" in err
    assert [path.name for path in Path("notes").iterdir()] == ["thoughts.txt"]


def test_an_engine_of_other_images_is_replaced_only_with_force(engine, run):
    shutil.copytree("photos/birds", "other/birds")
    before = snapshot.manifest_of(engine)
    code, _, err = run("index", "other", "-x", "hsv-histogram")
    assert code == BAD_INPUT and "18 images that would be lost" in err and "--force" in err
    assert snapshot.manifest_of(engine) == before
    code, out, _ = run("index", "other", "-x", "hsv-histogram", "--force")
    assert code == OK and "6 images in 1 class;" in out and "replaced" in out
    # Nothing is lost if the new folder holds all images.
    code, out, err = run("index", "photos", "-x", "hsv-histogram", "-o", "birds.engine")
    assert run("index", "photos/birds", "-x", "hsv-histogram", "-o", "birds.engine")[0] == BAD_INPUT
    assert run("index", "photos/birds", "-x", "hsv-histogram", "-o", "birds.engine", "--force")[0] == OK
    code, out, err = run("index", "photos", "-x", "hsv-histogram", "-o", "birds.engine")
    assert code == OK and "18 images in 3 classes" in out and "replaced" in out


def test_errors_name_what_does_not_exist_and_the_remedy(here, run):
    for line, code, message in (
        (["index", "nowhere"], BAD_INPUT, "nowhere does not exist"),
        (["index", "photos", "-x", "resnet51"], USAGE, "'resnet51'. Did you mean resnet50 or"),
        (["index", "photos", "-x", "hog+hsv-histgram"], USAGE, "'hsv-histgram'. Did you mean hsv-histogram"),
        (["index", "photos", "-x", "nonsense"], USAGE, "lookalike extractors"),
        (["classify", "--network", "resnet51", "-e", "nowhere"], BAD_INPUT, "nowhere does not exist"),
        (["index", "photos", "-b", "faiss:nonsense"], USAGE, "lookalike backends"),
        (["search", "photos"], BAD_INPUT, "lookalike index FOLDER"),
        (["search", "photos", "-e", "photos"], BAD_INPUT, "photos holds no engine"),
        (["remove", "-e", "nowhere", "1"], BAD_INPUT, "nowhere does not exist"),
        (["evaluate", "nowhere"], BAD_INPUT, "sample-distractors"),
    ):
        result, out, err = run(*line)
        assert (result, out, message in err) == (code, "", True), (line, err)
    Path("empty").mkdir()
    assert run("index", "empty")[0] == BAD_INPUT


# ---- search ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("existed", [False, True])
def test_an_interrupt_while_saving_leaves_the_old_engine_or_none(here, run, monkeypatch, existed):
    if existed:
        run("index", "photos", "-x", "hsv-histogram")
        before = run("search", "photos", "--json")[1]
        shutil.copy(samples.with_distractors().paths[300], "photos/birds/new.jpg")

    def interrupt(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(snapshot, "replace_snapshot", interrupt)
        patch.setattr(wal, "add", interrupt)
        code, out, err = run("index", "photos", "-x", "hsv-histogram")
    assert (code, out) == (INTERRUPTED, "") and "run the same command again" in err
    assert Path("my.engine").exists() == existed
    if existed:
        shutil.move("photos/birds/new.jpg", "new.jpg")
        assert run("search", "photos", "--json")[1] == before
    assert run("index", "photos", "-x", "hsv-histogram")[0] == OK


def test_an_image_of_the_engine_is_its_own_first_result(engine, run):
    query = images()[7]
    code, out, err = run("search", query, "-k", "3")
    lines = out.splitlines()
    assert (code, err, len(lines)) == (OK, "", 3)
    assert re.fullmatch(rf"   1    1\.0000  fruit +{re.escape(str(query.resolve()))}", lines[0])


def test_json_csv_and_paths_equal_the_results_of_the_engine(engine, run):
    query = images()[7]
    expected = Engine.load(engine).query(query, k=4)
    code, out, _ = run("search", query, "-k", "4", "--json")
    (record,) = json.loads(out)
    assert code == OK and list(record) == ["query", "score_kind", "results"] and record["query"] == str(query)
    assert [list(result) for result in record["results"]] == [["rank", "id", "score", "key", "path", "class_name"]] * 4
    assert [(a["rank"], a["id"], a["path"], a["class_name"]) for a in record["results"]] == [
        (a.rank, a.id, str(a.path), a.class_name) for a in expected
    ]
    assert [a["score"] for a in record["results"]] == pytest.approx([a.score for a in expected], abs=1e-5)
    assert record["results"][0]["key"] == query.relative_to("photos").as_posix()
    rows = list(csv.DictReader(io.StringIO(run("search", query, "-k", "4", "--csv")[1])))
    assert tuple(rows[0]) == result_output.COLUMNS
    assert [
        {k: str(v) for k, v in ({"query": str(query), "score_kind": "cosine"} | a).items()} for a in record["results"]
    ] == rows
    assert run("search", query, "-k", "4", "--paths")[1].split("\n")[:-1] == [a["path"] for a in record["results"]]


def test_each_image_of_a_folder_is_a_query(engine, run):
    queries = images("photos/birds")
    Path("photos/birds/broken.jpg").write_bytes(b"no image")
    code, out, err = run("search", "photos/birds", images()[-1], "-k", "2", "--json")
    results = json.loads(out)
    assert code == OK and "1 of 8 images could not be read" in err
    assert [each["query"] for each in results] == [*map(str, queries), str(images()[-1])]
    assert all(each["results"][0]["path"] == str(Path(each["query"]).resolve()) for each in results)
    plain = run("search", "photos/birds", "-k", "2")[1].split("\n\n")
    assert [block.splitlines()[0] for block in plain] == list(map(str, queries))


def test_a_named_query_that_cannot_be_read_is_an_error(engine, run):
    Path("broken.jpg").write_bytes(b"no image")
    code, out, err = run("search", images()[0], "broken.jpg", "--json")
    assert (code, out) == (BAD_INPUT, "") and err.startswith("lookalike search: broken.jpg is not an image")
    Path("broken").mkdir()
    Path("broken.jpg").rename("broken/1.jpg")
    assert run("search", "broken")[0] == BAD_INPUT
    assert "does not exist" in run("search", "nowhere.jpg")[2]


def test_k_beyond_the_number_of_images_returns_all_with_a_note(engine, run):
    code, out, err = run("search", images()[0], "-k", "1000000000")
    assert code == OK and len(out.splitlines()) == 18
    assert err == "note: 1,000,000,000 results were requested, but the engine holds 18 images\n"


def test_the_only_engine_of_the_folder_is_the_default(engine, run):
    query = images()[0]
    engine.rename("birds.engine")
    assert run("search", query)[0] == OK
    shutil.copytree("birds.engine", "more.engine")
    code, _, err = run("search", query)
    assert code == USAGE and "birds.engine, more.engine" in err
    assert run("search", query, "-e", "more.engine")[0] == OK
    assert "name it with the option -e more.engine" in run("search", "more.engine", query)[2]


def test_a_damaged_engine_is_named(engine, run):
    (vectors,) = engine.glob("vectors-*.index")
    vectors.write_bytes(vectors.read_bytes()[:-100])
    code, out, err = run("search", images()[0])
    assert (code, out) == (BAD_INPUT, "") and vectors.name in err and "Traceback" not in err
    code, _, err = run("index", "photos", "-x", "hsv-histogram")
    assert code == BAD_INPUT and "--force" in err
    assert run("index", "photos", "-x", "hsv-histogram", "--force")[0] == OK


def test_the_grid_shows_queries_and_results(engine, run):
    query = images()[7]
    assert run("search", query, "-k", "12", "--grid", "one.png")[0] == OK
    # 130 pixels per image: the query and ten results, in two rows.
    assert Image.open("one.png").size == (1430, 338)
    colors = np.asarray(Image.open("one.png").convert("RGB")).reshape(-1, 3)
    assert len(np.unique(colors, axis=0)) > 1000
    assert run("search", query, "--grid", "one.txt")[0] == USAGE


def test_the_grid_says_what_it_shows(engine, run):
    _, _, err = run("search", images()[7], "-k", "3", "--grid", "one.png")
    assert err == "one.png: image of 1 query with 3 results\n"
    code, _, err = run("search", images()[7], "--threshold", "2", "--grid", "none.png")
    assert code == NEGATIVE and "none.png was not written, because there is no result" in err
    # A query without a result is shown, too.
    options = ["--threshold", "0.98", "--exclude", images()[0], "--grid", "some.png"]
    code, _, err = run("search", *images()[:2], *options)
    assert code == OK and err == "some.png: image of 2 queries with 1 result\n"


def test_a_file_that_cannot_be_written_is_noticed_before_the_work(engine, run):
    """The images do not exist, so that any work would be an error of its own."""
    for command in (
        ["search", "nowhere.jpg", "--grid", "no/grid.png"], ["audit", "nowhere", "-o", "no/report.html"],
        ["evaluate", "nowhere", "--save", "no/protocol.json"], ["compare", "nowhere", "-o", "no/report.html"],
    ):  # fmt: skip
        code, _, err = run(*command)
        assert code == BAD_INPUT and f"the folder no of {command[-1]} does not exist: make it first" in err
    code, _, err = run("index", "nowhere", "-o", images()[0] / "my.engine")
    assert code == BAD_INPUT and "my.engine cannot be made in" in err
    Path("one.png").mkdir()
    code, _, err = run("search", "nowhere.jpg", "--grid", "one.png")
    assert code == BAD_INPUT and "one.png cannot be written" in err


def give(monkeypatch, content):
    """Set standard input to some bytes."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))


def test_a_hyphen_is_an_image_from_standard_input(engine, run, monkeypatch):
    query = images()[7]
    for options in ([], ["--rerank", "geometry"], ["--box", "1,1,20,20"], ["--grid", "grid.png", "-k", "1"]):
        give(monkeypatch, query.read_bytes())
        code, out, err = run("search", "-", "--json", *options)
        assert code == OK, err
        (record,) = json.loads(out)
        assert (code, record["query"]) == (OK, "-") and record["results"] == found(run, query, *options)
    give(monkeypatch, query.read_bytes())
    both = json.loads(run("search", images()[0], "-", "--json")[1])
    assert [record["query"] for record in both] == [str(images()[0]), "-"]
    give(monkeypatch, query.read_bytes())
    (record,) = json.loads(run("search", images()[0], "-", "--together", "--json")[1])
    assert record["query"] == f"{images()[0]} + -"
    for content, message in ((b"", "standard input is empty"), (b"no image", "standard input: ")):
        give(monkeypatch, content)
        code, out, err = run("search", "-")
        assert (code, out) == (BAD_INPUT, "") and message in err
    assert run("search", "-", "-")[0] == USAGE


def test_a_url_is_named_as_unsupported(engine, run):
    url = "https://example.org/owl.jpg?size=1&x=2"
    for command in (["search", url], ["index", url], ["add", url], ["audit", url], ["tags", url]):
        code, _, err = run(*command)
        assert code == USAGE and "URLs are not supported: download the image first" in err
        assert f"curl -L '{url}' | lookalike search -" in err


def test_a_threshold_leaves_out_results_below_it(engine, run):
    query = images()[7]
    every = found(run, query, "-k", "18")
    assert found(run, query, "-k", "18", "--threshold", every[4]["score"] - 1e-6) == every[:5]
    code, out, err = run("search", query, "--threshold", "1.5", "--json")
    assert (code, json.loads(out)[0]["results"]) == (NEGATIVE, [])
    assert "no result has a score of 1.5 or more; the best has 1.0" in err
    code, _, err = run("search", query, "--threshold", "0.5", "--rerank", "diffusion")
    assert code == USAGE and "the scores of --rerank diffusion have another unit" in err


@pytest.mark.parametrize("options", [[], ["--rerank", "k-reciprocal"], ["--rerank", "expansion"], ["--together"]])
def test_excluded_images_are_not_found_and_have_no_say(engine, run, options):
    query = images()[7]
    names = ["--exclude", query, "--exclude", "birds/*", "--exclude", "2"]
    results = found(run, query, "-k", "11", *options, *names)
    assert len(results) == 11 and not {result["class_name"] for result in results} & {"birds"}
    assert str(query.resolve()) not in [result["path"] for result in results]
    # The same as in an engine without them.
    run("remove", "photos/birds", query)
    assert found(run, query, "-k", "11", *options) == results


def test_names_to_exclude_are_folders_keys_and_patterns(engine, run):
    query = images()[7]
    for name, left in (
        ("photos/fruit", 12),
        ("fruit", 12),
        ("fruit/../fruit", 18),
        (f"fruit/{query.name}", 17),
        ("*/fruit/*.jpg", 12),
        ("photos/b*", 12),
        ("nothing", 18),
    ):
        code, out, err = run("search", query, "-k", "18", "--exclude", name)
        assert code == OK and len(out.splitlines()) == left
        assert (f"--exclude {name}: no image of the engine has this name" in err) == (left == 18)
    code, _, err = run("search", query, "--exclude", "*")
    assert code == NEGATIVE and "holds no images that are not excluded" in err


def test_marks_move_the_query(engine, run):
    query = images()[7]
    plain = found(run, query, "-k", "18")
    last, first = plain[-1], plain[1]
    for name in (str(last["id"]), last["key"], last["path"]):
        moved = found(run, query, "-k", "18", "--good", name, "--bad", str(first["id"]))
        places = [each["id"] for each in moved]
        assert places.index(last["id"]) < 5 and places.index(first["id"]) > 1
    # A part of the query, and a text or several images, are moved too.
    box = ["--box", "0,0,40,40"]
    assert found(run, query, *box) != found(run, query, *box, "--good", last["path"])
    assert found(run, query, "--together") != found(run, query, "--together", "--bad", first["path"])


@pytest.mark.parametrize(
    ("marks", "message"),
    [
        (["--good", "nothing.jpg"], "--good nothing.jpg: this is not an id, key or path of the engine"),
        (["--bad", "photos/fruit"], "--bad photos/fruit: this is a folder or the path of several images"),
        (["--good", "3", "--bad", "3"], "image 3 has both marks, --good and --bad"),
    ],
)
def test_a_mark_is_one_image(engine, run, marks, message):
    code, _, err = run("search", images()[7], *marks)
    assert code == USAGE and message in err


def test_scores_of_reranking_are_labeled(engine, run):
    query = images()[7]
    lines = run("search", query, "-k", "3", "--rerank", "k-reciprocal")[1].splitlines()
    assert all(re.match(r" +\d +-?\d\.\d{4}  k-reciprocal  (birds|fruit|vehicles) ", line) for line in lines)
    for options, kind in (
        ([], "cosine"), (["--rerank", "k-reciprocal"], "re-ranking by k-reciprocal"),
        (["--together"], "weighted mean of cosines"),
    ):  # fmt: skip
        (record,) = json.loads(run("search", query, "--json", *options)[1])
        assert record["score_kind"] == kind
        assert {
            row["score_kind"] for row in csv.DictReader(io.StringIO(run("search", query, "--csv", *options)[1]))
        } == {kind}
    run("index", "photos", "-x", "hsv-histogram", "-b", "exact:euclidean", "-o", "distances.engine")
    (record,) = json.loads(run("search", query, "--json", "-e", "distances.engine")[1])
    assert record["score_kind"] == "negative euclidean distance"


def test_images_that_were_moved_are_found_below_root(engine, run):
    Path("photos").rename("moved")
    query = images("moved")[0]
    code, _, err = run("search", query, "-k", "1", "--grid", "grid.png")
    assert code == BAD_INPUT and "--root" in err and not Path("grid.png").exists()
    code, out, _ = run("search", query, "-k", "1", "--grid", "grid.png", "--root", "moved", "--paths")
    assert code == OK and Path("grid.png").exists() and Path(out.splitlines()[0]) == query.resolve()
    assert run("search", query, "--root", "nowhere")[0] == BAD_INPUT


@pytest.mark.parametrize("name", NAMES)
def test_reranked_results_are_the_images_of_the_engine(engine, run, name):
    query = images()[7]
    results = found(run, query, "--rerank", name, "-k", "18")
    assert results[0]["path"] == str(query.resolve())
    assert sorted(result["id"] for result in results) == list(range(18))
    assert [a["score"] for a in results] == sorted((a["score"] for a in results), reverse=True)
    # The results of an image do not depend on the other queries of a folder.
    together = json.loads(run("search", "photos/birds", "--rerank", name, "-k", "18", "--json")[1])
    assert {each["query"]: each["results"] for each in together} == {
        str(path): found(run, path, "--rerank", name, "-k", "18") for path in images("photos/birds")
    }


def test_reranking_by_geometry_finds_the_same_image_first(engine, run):
    # Color histograms cannot find a gray image.
    whole = Image.open(images("photos/vehicles")[0])
    ImageOps.grayscale(whole.resize((whole.width * 3 // 4, whole.height * 3 // 4))).save("gray.png")
    plain = [result["path"] for result in found(run, "gray.png", "-k", "18")]
    verified = [result["path"] for result in found(run, "gray.png", "-k", "18", "--rerank", "geometry")]
    assert plain[0] != verified[0] == str(images("photos/vehicles")[0].resolve())


# ---- add, remove, compact --------------------------------------------------------------------------


def test_added_images_are_found_and_added_once(engine, run):
    images = samples.with_distractors()
    shutil.copy(images.paths[300], "one.jpg")
    Path("new/owls").mkdir(parents=True)
    shutil.copy(images.paths[301], "new/owls/two.jpg")
    shutil.copy(images.paths[302], "new/three.jpg")
    code, out, _ = run("add", "-e", engine, "one.jpg", "--class", "things")
    assert (code, out) == (OK, f"{engine}: 1 image added (id 18), 19 in total\n")
    code, out, err = run("add", "-e", engine, "one.jpg", "new", "new/three.jpg")
    assert (code, err) == (OK, "")
    assert out == f"{engine}: 2 images added (ids 19 to 20), 1 already indexed, 21 in total\n"
    for name, class_name in (("one.jpg", "things"), ("new/owls/two.jpg", "owls"), ("new/three.jpg", None)):
        best = found(run, name)[0]
        assert (best["path"], best["class_name"]) == (str(Path(name).resolve()), class_name)
    # The key is relative inside the engine's root, and the full path elsewhere.
    assert found(run, "one.jpg")[0]["key"] == Path("one.jpg").resolve().as_posix()


def recolor(path, color):
    Image.new("RGB", (40, 30), color).save(path)


def test_changed_copied_and_known_images_are_reported(engine, run):
    first, second = images()[:2]
    recolor(first, "red")
    assert run("add", "-e", engine, first)[1] == f"{engine}: 1 image changed and was replaced (id 18), 18 in total\n"
    assert found(run, first)[0]["score"] == pytest.approx(1) and found(run, first)[0]["class_name"] == "birds"
    assert run("add", "-e", engine, first)[1] == f"{engine}: the image was already indexed, 18 in total\n"
    assert run("add", "-e", engine, "photos")[1] == f"{engine}: all 18 images were already indexed, 18 in total\n"
    shutil.copy(second, "copy.jpg")
    shutil.copy(second, "again.jpg")
    code, out, _ = run("add", "-e", engine, "copy.jpg")
    assert out == f"{engine}: 1 image added, a copy of an indexed image (id 19), 19 in total\n"
    recolor("new.jpg", "blue")
    out = run("add", "-e", engine, "again.jpg", "new.jpg", "./copy.jpg", Path("photos/../copy.jpg").absolute())[1]
    assert out == (
        f"{engine}: 2 images added, 1 of them a copy of an indexed image (ids 20 to 21), 1 already indexed, "
        "21 in total\n"
    )
    # By request, a known image gets another class.
    assert "1 image moved to another class (id 22)" in run("add", "-e", engine, "new.jpg", "--class", "blue")[1]
    assert found(run, "new.jpg")[0]["class_name"] == "blue"
    # What was removed can be added again.
    assert run("remove", "-e", engine, "new.jpg")[0] == OK and run("remove", "-e", engine, "new.jpg")[0] == BAD_INPUT
    assert run("add", "-e", engine, "new.jpg")[1] == f"{engine}: 1 image added (id 23), 21 in total\n"


def test_index_add_and_sync_keep_the_images_of_each_other(engine, run):
    first, second, third = images()[:3]
    Path("elsewhere").mkdir()
    recolor("elsewhere/new.png", "red")
    run("add", "-e", engine, "elsewhere")
    recolor(first, "navy")
    second.unlink()
    recolor("photos/fruit/new.png", "teal")
    assert run("remove", "-e", engine, third)[0] == OK
    code, out, err = run("index", "photos", "-x", "hsv-histogram")
    assert (code, out) == (
        OK,
        "my.engine: 19 images in 3 classes; hsv-histogram, exact:cosine; 2 images added, 1 image changed and was "
        "replaced (ids 19 to 21), 15 already indexed, 1 removed, because its file is gone, 1 from elsewhere kept; "
        "2 extracted\n",
    )
    held = {result["path"] for result in found(run, first, "-k", "19")}
    assert held == {str(path.resolve()) for path in [*images(), *images("elsewhere"), *Path().rglob("new.png")]}
    # The same without naming the folder; and nothing is left to do.
    shutil.move("photos/fruit/new.png", "photos/birds/moved.png")
    code, out, err = run("sync")
    assert (code, err) == (OK, "") and "1 image added (id 22), 17 already indexed, 1 removed" in out
    assert "all 18 images were already indexed, 1 from elsewhere kept" in run("sync", "-e", engine)[1]
    # With another backend, the engine is made again of the same images.
    code, out, _ = run("index", "photos", "-x", "hsv-histogram", "-b", "faiss:hnsw")
    assert code == OK and out.endswith("; the previous engine was replaced, 1 from elsewhere kept\n")
    assert len(Engine.load(engine)) == 19
    # The file of the added image is needed for that.
    Path("elsewhere/new.png").unlink()
    code, _, err = run("index", "photos", "-x", "lab-histogram")
    assert code == BAD_INPUT and "new.png" in err and "--force" in err and len(Engine.load(engine)) == 19
    code, out, err = run("index", "photos", "-x", "lab-histogram", "--force")
    assert code == OK and "1 added image dropped, because their files are gone" in err and "18 images" in out


def test_sync_says_what_it_will_do(engine, run):
    first, second, third, fourth = images()[:4]
    recolor(first, "navy")
    second.unlink()
    shutil.move(third, third.with_name("renamed.jpg"))
    shutil.move(fourth, Path("photos/fruit") / fourth.name)
    recolor("elsewhere.png", "teal")
    run("add", "elsewhere.png")
    before = run("list", "--json")[1]
    code, out, err = run("sync", "--dry-run")
    new = [third.with_name("renamed.jpg"), Path("photos/fruit") / fourth.name]
    expected = {f"replace   {first.resolve()}"} | {f"add       {path.resolve()}" for path in new}
    expected |= {f"remove    {path.absolute()}" for path in (second, third, fourth)}
    assert code == OK and set(out.splitlines()) == expected
    assert err == (
        "my.engine: 2 to add, 1 to replace, 0 to reclass, 3 to remove; 1 image from elsewhere kept; "
        "nothing was changed\n"
    )
    assert run("list", "--json")[1] == before
    assert "2 images added, 1 image changed and was replaced" in run("sync")[1]
    code, out, err = run("sync", "-n")
    assert (code, out) == (OK, "") and "0 to add, 0 to replace" in err


def test_sync_keeps_the_images_of_a_drive_that_is_not_mounted(engine, run):
    before = run("list", "--json")[1]
    # The whole folder: absent, and present as an empty mount point.
    Path("photos").rename("drive")
    code, _, err = run("sync")
    assert code == BAD_INPUT and "does not exist" in err and "--root FOLDER" in err
    Path("photos").mkdir()
    code, _, err = run("sync", "--force")
    assert (
        code == BAD_INPUT and "contains no images" in err and "Nothing was changed. If the folder is on a drive" in err
    )
    Path("photos").rmdir()
    Path("drive").rename("photos")
    # A folder in it.
    Path("photos/fruit").rename("fruit")
    Path("photos/fruit").mkdir()
    for command in (["sync"], ["index", "photos", "-x", "hsv-histogram"], ["index", "photos", "-x", "lab-histogram"]):
        code, out, err = run(*command)
        assert (code, out) == (BAD_INPUT, "") and "6 images would be removed" in err
        assert f"{Path('photos/fruit').absolute()} is now empty" in err and "--force" in err
    assert "without --dry-run, this would be an error" in run("sync", "--dry-run")[2]
    # Most of the images.
    Path("photos/fruit").rmdir()
    Path("photos/birds").rename("birds")
    code, _, err = run("sync")
    assert code == BAD_INPUT and "12 images would be removed" in err and "the folder now has only 6 images" in err
    assert run("list", "--json")[1] == before
    # Files that were renamed are not lost, and a folder that was deleted is not a drive.
    Path("birds").rename("photos/more birds")
    assert "6 images added" in run("sync")[1]
    Path("fruit").rename("photos/fruit")
    assert "6 images added" in run("sync")[1]
    shutil.rmtree("photos/fruit")
    assert run("sync")[1].count("6 removed, because their files are gone") == 1
    Path("photos/vehicles").rename("vehicles")
    Path("photos/vehicles").mkdir()
    assert "6 images in 1 class" in run("sync", "--force")[1]


def test_sync_of_a_table_reads_the_table(here, run):
    rows = [f"{path},{path.parent.name}" for path in images()[:4]]
    Path("table.csv").write_text("\n".join(["path,label", *rows[:3]]))
    assert run("index", "table.csv", "-x", "hsv-histogram")[0] == OK
    Path("table.csv").write_text("\n".join(["path,label", f"{images()[0]},owls", *rows[2:]]))
    code, out, _ = run("sync")
    assert code == OK
    assert "1 image added, 1 image moved to another class (ids 3 to 4), 1 already indexed" in out
    # Its file exists, so it may have been added by hand.
    assert "1 kept that table does not list" in out
    Engine("hsv-histogram").fit(from_folder("photos")).save("library.engine")
    code, _, err = run("sync", "-e", "library.engine")
    assert code == BAD_INPUT and "lookalike index FOLDER -o library.engine" in err
    assert run("index", "photos", "-x", "hsv-histogram", "-o", "library.engine")[0] == OK
    assert run("sync", "-e", "library.engine")[0] == OK


def test_moved_images_are_noticed_and_relocated(engine, run):
    Path("photos").rename("moved")
    query = images("moved")[0]
    note = "are not there (5 checked): pass --root NEWFOLDER, or run lookalike relocate NEWFOLDER -e my.engine"
    code, out, err = run("search", query, "-k", "1")
    assert code == OK and out and f"note: the images of {Path('photos').absolute()} {note}" in err
    assert run("search", query, "--root", "moved")[2] == ""
    code, _, err = run("add", "-e", engine, query)
    assert code == OK and "run lookalike relocate" in err and "--root" not in err
    run("remove", "-e", engine, query)
    Path("other").mkdir()
    assert run("relocate", "-e", engine, "other")[0] == BAD_INPUT
    images("moved")[1].unlink()
    code, out, err = run("relocate", "-e", engine, "moved")
    assert (code, out) == (OK, f"{engine}: 17 of 18 images found in moved\n") and "lookalike sync" in err
    assert run("search", query, "--paths", "-k", "1")[1:] == (f"{query.resolve()}\n", "")
    # Moved together, an engine finds its images by itself.
    Path("together").mkdir()
    for name in ("moved", "my.engine"):
        shutil.move(name, f"together/{name}")
    query = Path("together") / query
    code, out, err = run("search", query, "-e", "together/my.engine", "--paths", "-k", "1")
    assert (out, err) == (f"{query.resolve()}\n", "")
    assert "all 17 images were already indexed" in run("add", "-e", "together/my.engine", "together/moved")[1]


def test_an_engine_of_another_format_is_replaced_only_with_force(engine, run):
    with sqlite3.connect(engine / "engine.sqlite") as connection:
        connection.execute("alter table manifest drop column source")
        connection.execute("pragma user_version = 3")
    connection.close()
    for line in (["search", images()[0]], ["sync"], ["index", "photos", "-x", "hsv-histogram"]):
        code, _, err = run(*line)
        assert code == BAD_INPUT and "has format 3" in err and "-o OTHER" in err and "elete" not in err
    assert run("index", "photos", "-x", "hsv-histogram", "--force")[0] == OK
    assert run("search", images()[0])[0] == OK


def test_adding_unreadable_images_is_an_error(engine, run):
    Path("broken.jpg").write_bytes(b"no image")
    code, out, err = run("add", "-e", engine, "broken.jpg")
    assert (code, out) == (BAD_INPUT, "") and "broken.jpg" in err
    assert run("add", "-e", engine, "nowhere.jpg")[0] == BAD_INPUT


@pytest.mark.parametrize("kind", ["id", "key", "path", "folder", "folder of keys"])
def test_removed_images_are_not_found(engine, run, kind):
    query = images("photos/fruit")[2]
    id = found(run, query)[0]["id"]
    named = {"id": id, "key": f"fruit/{query.name}", "path": query, "folder": "photos/fruit"}.get(kind, "fruit")
    code, out, _ = run("remove", "-e", engine, named)
    left = 12 if "folder" in kind else 17
    assert code == OK and out.endswith(f"removed, {left} in total\n")
    assert id not in [result["id"] for result in found(run, query, "-k", "18")]
    # Removing it again is an error, and the other image is kept.
    code, _, err = run("remove", "-e", engine, images()[0], named)
    assert code == BAD_INPUT and "nothing was removed" in err
    assert len(found(run, query, "-k", "18")) == left


def test_compact_keeps_the_changes(engine, run):
    shutil.copy(samples.with_distractors().paths[300], "one.jpg")
    run("add", "-e", engine, "one.jpg")
    run("remove", "-e", engine, 0, 1)
    before = run("search", "photos", "one.jpg", "--json")[1]
    assert run("compact")[1] == "my.engine: 3 changes written into the index, 17 images in total\n"
    assert run("compact", "-e", engine)[1].startswith(f"{engine}: 0 changes")
    assert run("search", "photos", "one.jpg", "--json")[1] == before


def test_an_engine_without_images_finds_nothing(engine, run):
    assert run("remove", "-e", engine, "photos")[0] == OK
    code, out, err = run("search", images()[0], "--json")
    assert code == NEGATIVE and "holds no images" in err and out == ""


# ---- info, list ------------------------------------------------------------------------------------


def test_info_says_what_an_engine_is(engine, run):
    facts = json.loads(run("info", "--json")[1])
    assert facts["classes"] == {"birds": 6, "fruit": 6, "vehicles": 6} and facts["source"] == str(
        Path("photos").resolve()
    )
    assert (facts["images"], facts["extractor"], facts["backend"]) == (18, "hsv-histogram", "exact:cosine")
    files = [path for path in engine.rglob("*") if path.is_file()]
    assert facts["bytes"] == sum(path.stat().st_size for path in files) > facts["index_bytes"] > 18 * 4 * facts["dim"]
    assert (facts["pending_changes"], facts["class_scores"], facts["regions"]) == (0, None, None)
    run("remove", 0, 1)
    shutil.copy(samples.with_distractors().paths[300], "one.jpg")
    run("add", "one.jpg")
    later = json.loads(run("info", "-e", engine, "--json")[1])
    assert (later["images"], later["pending_changes"], later["classes"]["birds"]) == (17, 3, 4)
    assert facts["first_added"] == later["first_added"] <= later["last_added"] <= later["changed"]
    text = dict(line.split("  ", 1) for line in run("info")[1].splitlines())
    assert text["classes"].strip() == "3: fruit 6, vehicles 6, birds 4"
    assert "3 changes; lookalike compact" in text["pending"] and "numbers per image" in text["extractor"]


def test_list_has_the_images_of_the_engine(engine, run):
    shutil.copy(samples.with_distractors().paths[300], "one.jpg")
    run("add", "one.jpg")
    run("remove", 0)
    rows = json.loads(run("list", "--json")[1])
    assert [row["id"] for row in rows] == list(range(1, 19))
    assert [row["path"] for row in rows] == [str(path.resolve()) for path in [*images()[1:], Path("one.jpg")]]
    assert (rows[0]["key"], rows[0]["class_name"]) == (f"birds/{images()[1].name}", "birds")
    assert rows[-1]["class_name"] is None and re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", rows[-1]["added"])
    table = list(csv.DictReader(io.StringIO(run("list", "--csv", "--class", "fruit")[1])))
    assert [int(row["id"]) for row in table] == [row["id"] for row in rows if row["class_name"] == "fruit"]
    assert run("list")[1].splitlines()[-1].endswith(str(Path("one.jpg").resolve()))
    code, _, err = run("list", "--class", "fruits")
    assert code == BAD_INPUT and "has no class fruits. Did you mean fruit?" in err
    run("remove", "photos/birds")
    code, out, err = run("list", "--class", "birds")
    assert (code, out) == (NEGATIVE, "") and "holds no images of the class birds" in err


# ---- evaluate --------------------------------------------------------------------------------------


def test_evaluate_gives_the_scores_of_the_protocol(here, run):
    images = from_folder("photos")
    protocol = builders.leave_one_out(images, "photos-leave-one-out")
    vectors = extractors.open_extractor("hsv-histogram").extract(images)
    scores = metrics.evaluate(runner.run(protocol, vectors, open_index("exact:cosine")), protocol)
    code, out, err = run("evaluate", "photos", "-x", "hsv-histogram", "--json")
    (result,) = json.loads(out)
    assert (code, err) == (
        OK,
        "layout: 18 images, 3 classes (birds, fruit, vehicles), no split\nnote: each image is a query\n",
    )
    assert (result["protocol"], result["extractor"], result["backend"]) == (
        protocol.name,
        "hsv-histogram",
        "exact:cosine",
    )
    assert (result["queries"], result["gallery"]) == (18, 18)
    assert result["metrics"] == scores.table().to_dict("records")
    rows = list(csv.DictReader(io.StringIO(run("evaluate", "photos", "-x", "hsv-histogram", "--csv")[1])))
    assert [float(row["value"]) for row in rows] == scores.table()["value"].tolist()


def test_several_extractors_are_compared_on_the_same_queries(here, run):
    code, out, _ = run("evaluate", "photos", "-x", "hsv-histogram", "-x", "pixels")
    lines = out.splitlines()
    assert code == OK and lines[0].startswith("photos-leave-one-out: 18 queries, gallery of 18 images; exact:cosine")
    assert [line.split()[0] for line in lines[1:6]] == ["top-1", "hsv-histogram", "pixels", "chance", "ceiling"]
    assert re.match(r"pixels minus hsv-histogram: top-1 [+-]\d\.\d+ \[.*\], p [=<] \d", lines[6])


def test_a_frozen_protocol_gives_the_leaderboards_number(run):
    code, out, err = run("evaluate", "sample-leave-one-out", "-x", "hsv-histogram", "--json")
    assert re.search(r"sample-leave-one-out uses 246 of the \d+ images; the others are left out", err)
    board = leaderboard.load(paths.ROOT / "figures" / "leaderboard.csv")
    row = board.query(
        "protocol == 'sample-leave-one-out' and extractor == 'hsv-histogram' and index == 'exact:cosine' and "
        "metric == 'mAP'"
    )
    (score,) = [each for each in json.loads(out)[0]["metrics"] if each["metric"] == "mAP"]
    assert code == OK and score["value"] == pytest.approx(row["value"].item(), abs=1e-4)


def test_copies_are_ignored_unless_they_are_kept(here, run):
    shutil.copy(images("photos/birds")[0], "photos/birds/zz copy.jpg")
    code, out, err = run("evaluate", "photos", "-x", "hsv-histogram", "--json")
    kept = run("evaluate", "photos", "-x", "hsv-histogram", "--json", "--keep-copies")
    assert code == OK and "1 duplicate found" in err and "duplicate" not in kept[2]
    ignored, counted = (
        next(each["value"] for each in json.loads(text)[0]["metrics"] if each["metric"] == "mAP")
        for text in (out, kept[1])
    )
    assert ignored < counted


def test_a_saved_protocol_gives_the_same_scores(here, run):
    first = run("evaluate", "photos", "-x", "hsv-histogram", "--json", "--save", "protocol.json")
    Path("photos").rename("moved")
    assert run("evaluate", "protocol.json", "-x", "hsv-histogram", "--json", "--images", "moved")[1] == first[1]
    assert run("evaluate", "protocol.json", "-x", "hsv-histogram")[0] == USAGE
    images("moved")[0].unlink()
    code, _, err = run("evaluate", "protocol.json", "-x", "hsv-histogram", "--images", "moved")
    assert code == BAD_INPUT and "lacks 1 of the protocol's 18 images" in err
    Path("protocol.json").write_text("{")
    assert run("evaluate", "protocol.json")[0] == BAD_INPUT


def split_images(folder="split"):
    """Copy two images of each class to test and the others to train."""
    for number, path in enumerate(images()):
        target = Path(folder) / ("test" if number % 3 == 0 else "train") / path.parent.name / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    return Path(folder)


def test_folders_named_train_and_test_are_gallery_and_queries(here, run):
    split_images()
    code, out, err = run("evaluate", "split", "-x", "hsv-histogram", "--json", "--save", "protocol.json")
    assert err.startswith("layout: gallery train (12 images, 3 classes), queries test (6 images, 3 classes)\n")
    (result,) = json.loads(out)
    assert (code, result["protocol"], result["queries"], result["gallery"]) == (OK, "split-test-train", 6, 12)
    protocol = protocol_files.load("protocol.json")
    assert protocol.class_names == ("birds", "fruit", "vehicles")
    assert {protocol.keys[i].split("/")[0] for i in protocol.queries} == {"test"}
    assert run("evaluate", "protocol.json", "-x", "hsv-histogram", "--images", "split", "--json")[1] == out
    Path("split/test").rename("split/gallery")
    code, _, err = run("evaluate", "split", "-x", "hsv-histogram")
    assert code == USAGE and "name the folder of the queries with --test" in err


def scores_of(run, *arguments):
    """The protocol, the number of queries and of gallery images, the mAP, and the messages."""
    code, out, err = run("evaluate", *arguments, "-x", "hsv-histogram", "--json")
    assert code == OK
    (result,) = json.loads(out)
    (score,) = [each["value"] for each in result["metrics"] if each["metric"] == "mAP"]
    return (result["protocol"], result["queries"], result["gallery"], score), err


def test_files_next_to_the_sides_do_not_change_the_scores(here, run):
    """They turned the sides into two classes, and the scores were those of another task."""
    split = split_images()
    expected, _ = scores_of(run, split)
    shutil.copy(images()[0], split / "preview.jpg")
    (split / "unlabeled").mkdir()
    shutil.copy(images()[1], split / "unlabeled")
    shutil.copytree(split / "test", split / "dev")
    found, err = scores_of(run, split)
    assert found == expected and expected[:3] == ("split-test-train", 6, 12)
    assert "left out: unlabeled (1 image), next to the sides: preview.jpg (1 image), dev (6 images)" in err
    assert scores_of(run, split, "--test", "dev")[0] == ("split-dev-train", *expected[1:])
    by_path = scores_of(run, split, "--train", "split/train", "--train", "unlabeled", "--test", split / "test")[0]
    assert by_path[:3] == ("split-test-train-unlabeled", 6, 13)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["photos/birds"], "no image has a class"),
        (["split", "--test", "nowhere"], "has no folder nowhere with images"),
        (["split", "--test", "test/birds"], "no class in common"),
        (["split", "--images", "photos"], "--images is for protocols"),
        (["sample-leave-one-out", "--train", "photos"], "are for folders"),
        (["deep"], "deep has only one class, train, so that every result would be correct. It holds the folders birds"),
        (["half"], "test in half holds no images"),
    ],
)
def test_layouts_without_valid_scores_are_refused(here, run, arguments, message):
    split_images()
    shutil.copytree("split/train", "deep/train")
    shutil.copytree("split/train", "half/train")
    Path("half/test").mkdir()
    code, out, err = run("evaluate", *arguments)
    assert (code, out) == (USAGE, "") and message in err
    if arguments == ["deep"]:
        assert scores_of(run, "deep/train")[0][1:3] == (12, 12)
        assert scores_of(run, "deep", "--classes-from", "parent")[0][1:3] == (12, 12)


def test_evaluate_reads_a_table(here, run):
    rows = [f"{path},{path.parent.name}" for path in images()]
    Path("table.csv").write_text("\n".join(["path,label", *rows]))
    found, err = scores_of(run, "table.csv")
    assert found == ("table-leave-one-out", *scores_of(run, "photos")[0][1:]) and "18 images, 3 classes" in err
    code, _, err = run("evaluate", "table.csv", "--classes-from", "parent")
    assert code == USAGE and "column of classes" in err


# ---- leaderboard -----------------------------------------------------------------------------------


def test_the_leaderboard_is_filtered(run):
    board = leaderboard.load()
    code, out, _ = run("leaderboard", "--protocol", "sample-*", "--extractor", "resnet50*", "--metric", "mAP", "--csv")
    rows = list(csv.DictReader(io.StringIO(out)))
    chosen = board[
        board["protocol"].str.startswith("sample-")
        & board["extractor"].str.startswith("resnet50")
        & (board["metric"] == "mAP")
    ]
    assert code == OK and len(rows) == len(chosen) > 5
    assert sorted(float(row["value"]) for row in rows) == sorted(chosen["value"])
    best = json.loads(
        run("leaderboard", "--protocol", "sample-drawings", "--metric", "mAP", "--best", "1", "--json")[1]
    )
    drawings = board[(board["protocol"] == "sample-drawings") & (board["metric"] == "mAP")]
    assert [row["value"] for row in best] == [drawings["value"].max()]


def test_the_leaderboard_as_a_table(run):
    code, out, _ = run(
        "leaderboard", "--protocol", "sample-distractors", "--extractor", "resnet50", "--backend", "exact:*"
    )
    lines = out.splitlines()
    assert code == OK and lines[0] == "sample-distractors (sample): 246 queries, gallery of 419"
    assert lines[1].split() == ["extractor", "dim", "backend", "top-1", "top-5", "top-10", "mAP"]
    assert "0.637 [0.601, 0.670]" in out and lines[-1].startswith("ceiling")


def test_filters_without_matches_find_nothing(run, tmp_path, monkeypatch):
    assert run("leaderboard", "--dataset", "nowhere")[:2] == (NEGATIVE, "")
    assert "top-1" in run("leaderboard", "--metric", "top-2")[2]
    monkeypatch.setenv("LOOKALIKE_FIGURES", str(tmp_path))
    (tmp_path / "leaderboard.csv").write_text("a,b\n1,2\n")
    assert run("leaderboard")[0] == BAD_INPUT


# ---- audit -----------------------------------------------------------------------------------------


class Report(HTMLParser):
    """The images, tags, attributes and headings of a report."""

    def __init__(self, text):
        super().__init__()
        self.images, self.tags, self.attributes, self.headings, self._open = [], [], [], [], None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag == "img":
            self.images.append(dict(attrs))
        self._open = tag

    def handle_endtag(self, tag):
        self._open = None

    def handle_data(self, data):
        if self._open in ("h1", "h2", "h3"):
            self.headings.append(data.strip())


def test_a_folder_without_duplicates_is_clean(here, run):
    code, out, err = run("audit", "photos", "-x", "hsv-histogram", "-o", "report.html")
    assert (code, out) == (OK, "")
    lines = err.splitlines()
    assert lines[:2] == [
        "layout: 18 images, 3 classes (birds, fruit, vehicles), no split",
        "0 duplicates in 0 groups among 18 images; report: report.html",
    ]
    text = Path("report.html").read_text(encoding="utf-8")
    assert "None." in text
    # The recall of each change, as measured.
    table = duplicates.recall(("bytes", "hash", "mirror", "crop"))
    for change, value in zip(table["change"], table["recall"], strict=True):
        assert f"{change} {value:.2f}" in err and f"<td>{change}</td>" in text


def test_duplicates_are_found_and_the_report_shows_them(here, run):
    birds = images("photos/birds")
    shutil.copy(birds[0], 'photos/fruit/<b>&"quoted"\n.jpg')
    ImageOps.mirror(Image.open(birds[1]).convert("RGB")).save("photos/birds/mirrored.png")
    code, out, err = run("audit", "photos", "-x", "none", "--json", "-o", "report.html")
    pairs = json.loads(out)
    assert code == NEGATIVE and "2 duplicates in 2 groups among 20 images" in err
    assert [(pair["how"], pair["leak"], pair["same_class"]) for pair in pairs] == [
        ("bytes", False, False), ("mirror", False, True),
    ]  # fmt: skip
    assert [pair["first"] for pair in pairs] == [f"birds/{birds[0].name}", f"birds/{birds[1].name}"]
    plain = run("audit", "photos", "-x", "none")[1].splitlines()
    assert len(plain) == 2 and plain[0].endswith("DIFFERENT CLASSES") and "\\n" in plain[0]
    rows = list(csv.DictReader(io.StringIO(run("audit", "photos", "-x", "none", "--csv")[1])))
    assert rows[0]["second"] == 'fruit/<b>&"quoted"\n.jpg' and rows[0]["same_class"] == "false"
    text = Path("report.html").read_text(encoding="utf-8")
    report = Report(text)
    assert text.startswith("<!DOCTYPE html>") and ("lang", "en") in report.attributes
    assert len(report.images) == 4 and all(image["alt"] for image in report.images)
    for image in report.images:
        assert image["src"].startswith("data:image/jpeg;base64,") and int(image["width"]) <= 180
    assert not {"script", "link", "iframe", "b"} & set(report.tags)
    links = {value for name, value in report.attributes if name == "href"}
    names = [birds[0], Path('photos/fruit/<b>&"quoted"\n.jpg'), birds[1], Path("photos/birds/mirrored.png")]
    assert links == {path.resolve().as_uri() for path in names}
    assert not [value for name, value in report.attributes if name == "src" and "data:" not in value]
    assert "http" not in re.sub(r"base64,[^\"]*", "", text)
    assert report.headings[:3] == ["Audit of photos", "Duplicates", "1. 2 copies of one image"]
    assert report.headings[-1] == "What this audit can find"
    assert "crops, which need an extractor" in text


def test_the_audit_says_which_copy_to_keep(here, run):
    bird, other = images("photos/birds")[:2]
    with Image.open(bird) as image:
        image.convert("RGB").resize((image.width * 2, image.height * 2)).save("photos/fruit/large.png")
        image.convert("RGB").save("photos/fruit/small.jpg", quality=30)
        size = f"{image.width * 2:,} × {image.height * 2:,}, "
    # Of equal files, the older one, and then the one with the shorter path.
    shutil.copy(other, "photos/fruit/a longer name of the copy.jpg")
    for path, seconds in ((other, 2000), (Path("photos/fruit/a longer name of the copy.jpg"), 1000)):
        os.utime(path, (seconds, seconds))
    code, out, _ = run("audit", "photos", "-x", "none", "--json", "-o", "report.html")
    assert code == NEGATIVE
    kept = {pair["second"]: pair["keep"] for pair in json.loads(out)}
    assert kept == {
        "fruit/large.png": "fruit/large.png", "fruit/small.jpg": "fruit/large.png",
        "fruit/a longer name of the copy.jpg": "fruit/a longer name of the copy.jpg",
    }  # fmt: skip
    text = Path("report.html").read_text(encoding="utf-8")
    assert text.count('<span class="keep">keep</span>') == 2 and text.count(size) == 2
    assert "of these the largest file, then the oldest one, then the one with the shortest path" in text
    assert re.search(r'<span class="keep">keep</span> <a href="file:[^"]+large.png">fruit/large.png</a>', text)
    ends = {
        line.rsplit("  keep ")[1].removesuffix("  DIFFERENT CLASSES")
        for line in run("audit", "photos", "-x", "none")[1].splitlines()
    }
    assert "the second" in ends and ends <= {"the first", "the second", "fruit/large.png"}
    assert "of these the largest file, then the oldest one, then" in " ".join(run("audit", "--help")[1].split())


def test_leaks_between_two_folders(here, run):
    split = split_images()
    code, _, err = run("audit", split / "train", split / "test", "-x", "none")
    assert code == OK and "0 leaks between train and test" in err
    queries = images(split / "test")
    shutil.copy(queries[0], split / "train" / "birds" / "leak.jpg")
    # A duplicate on one side is not a leak.
    shutil.copy(queries[1], split / "test" / "birds" / "again.jpg")
    code, out, err = run("audit", split / "train", split / "test", "-x", "none", "-o", "report.html")
    lines = out.splitlines()
    assert code == NEGATIVE and "2 duplicates" in err and "1 leak between train and test" in err
    assert lines[0].endswith("LEAK") and "train/birds/leak.jpg" in lines[0] and "LEAK" not in lines[1]
    report = Report(Path("report.html").read_text(encoding="utf-8"))
    assert [text for text in report.headings if not text[:1].isdigit()] == [
        "Audit of train and test", "Leaks", "Duplicates within one side", "What this audit can find",
    ]  # fmt: skip
    code, out, _ = run("audit", split, "-x", "none")
    assert code == NEGATIVE and [line.endswith("LEAK") for line in out.splitlines()] == [True, False]
    (split / "train" / "birds" / "leak.jpg").unlink()
    assert run("audit", split, "-x", "none")[0] == OK
    assert run("audit", split, split / "test", "-x", "none")[0] == USAGE
    assert run("audit", split / "train", split / "test", "--test", "dev")[0] == USAGE
    assert run("audit", split, "-o", "report.txt")[0] == USAGE


def test_many_copies_are_one_group(here, run):
    """Output and report grow with the number of images, not of pairs."""
    split, copies = split_images(), 40
    original = images(split / "train")[0]
    for number in range(copies):
        shutil.copy(original, split / "train" / "fruit" / f"placeholder {number:02}.jpg")
    shutil.copy(original, split / "test" / "fruit" / "placeholder.jpg")
    code, out, err = run("audit", split, "-x", "none", "--json", "-o", "report.html")
    pairs = json.loads(out)
    assert code == NEGATIVE and len(pairs) == copies + 1 and len({pair["first"] for pair in pairs}) == 1
    # The image in train represents the group, and the one in test is the leak.
    assert [pair["second"] for pair in pairs if pair["leak"]] == ["test/fruit/placeholder.jpg"]
    assert f"{copies + 1} duplicates in 1 group among {18 + copies + 1} images, 1 leak between train and test" in err
    report = Report(Path("report.html").read_text(encoding="utf-8"))
    assert len(report.images) == 8 and "1. 42 copies of one image" in report.headings
    assert report.images[1]["alt"] == "test/fruit/placeholder.jpg"


# ---- lists -----------------------------------------------------------------------------------------


def test_every_extractor_is_listed(run):
    code, out, _ = run("extractors", "--json")
    entries = json.loads(out)
    assert code == OK and sorted(entry["name"] for entry in entries) == extractors.names()
    assert entries[0]["name"] == "efficientnet-lite0" and all(len(entry["description"]) > 10 for entry in entries)
    by_name = {entry["name"]: entry for entry in entries}
    assert by_name["hsv-histogram"]["available"] and by_name["hsv-histogram"]["remedy"] is None
    # The cache of these tests is empty.
    assert "downloaded" in by_name["vgg16-gem"]["remedy"]
    assert "vgg16" in run("extractors")[1]


def test_encoders_are_listed_with_license_and_size(run):
    code, out, _ = run("encoders", "--json")
    found = json.loads(out)
    assert code == OK and set(found) == {"hub", "onnx"}
    for part in found.values():
        assert len(part["encoders"]) == 4 and {one["text"] for one in part["encoders"]} == {True, False}
        for one in part["encoders"]:
            assert one["license"] and one["megabytes"] > 50 and one["source"].startswith("https://"), one
    clip = found["hub"]["encoders"][0]
    assert clip["name"] == "hub:clip_vit_base_patch32" and clip["megabytes"] == 605 and clip["parameters"] == 151277363
    assert found["onnx"]["remedy"] is None
    text = run("encoders")[1]
    assert "Xenova/dinov2-small" in text and "DINOv3 License" in text and "--all" in text


def test_an_encoder_that_cannot_be_opened(run, here, tmp_path):
    code, _, err = run("index", "photos", "-x", f"onnx:{tmp_path / 'none'}")
    assert code == BAD_INPUT and f"encoder folder {tmp_path / 'none'} does not exist" in err
    code, _, err = run("index", "photos", "-x", f"onnx:{tmp_path}")
    assert code == BAD_INPUT and "has none of the files onnx/vision_model.onnx" in err


def test_every_backend_is_listed_and_opens(run, monkeypatch):
    names = [entry["name"] for entry in json.loads(run("backends", "--json")[1])]
    assert {name.partition(":")[0] for name in names} == set(BACKENDS)
    from helpers.search.backends.faiss_backend import KINDS

    assert {name.partition(":")[2] for name in names if name.startswith("faiss")} == set(KINDS)
    for name in names:
        if not name.startswith(("milvus", "elasticsearch", "opensearch", "annoy")):
            assert not len(open_index(name))
    monkeypatch.setitem(sys.modules, "annoy", None)
    code, out, _ = run("backends")
    assert code == OK and re.search(r"^annoy:cosine .*\[not here\]$", out, re.M)
    assert "[not here]: An annoy: index needs annoy, which is not installed: pip install 'lookalike[annoy]'" in out


# ---- notebook, serve -------------------------------------------------------------------------------


def test_a_notebook_is_opened_or_run(run, monkeypatch):
    commands = []
    monkeypatch.setattr(subprocess, "call", lambda command: commands.append(command) or 0)
    assert run("notebook", "9")[0] == OK
    assert commands == [[sys.executable, "-m", "jupyterlab", str(notebooks.select("09")[0])]]
    monkeypatch.setattr(
        notebooks, "run", lambda path, profile, *_, **__: notebooks.Outcome(path.stem, False, 1.0, profile)
    )
    code, out, _ = run("notebook", "00", "--run")
    assert code == NEGATIVE and "00_start_here" in out and "FAILED" in out
    code, _, err = run("notebook", "77")
    assert code == USAGE and "00, 01" in err
    assert run("notebook", "00,01")[0] == USAGE


@pytest.fixture
def port():
    with reserved_port() as port:
        yield port


def test_serve_passes_its_options_to_the_service(engine, run, port, monkeypatch):
    started, signature = [], inspect.signature(server.run)

    def start(*positional, **named):
        arguments = signature.bind(*positional, **named).arguments
        started.append((arguments["workers"], Settings(arguments["engine_folder"], **arguments["settings"])))

    monkeypatch.setattr(server, "run", start)
    line = ["serve", "--port", port, "--workers", "2", "--allow-host", "a.example", "--root-path", "photos/"]
    assert run(*line, "--root", "photos")[0] == OK
    ((workers, settings),) = started
    assert workers == 2 and (settings.folder, settings.root) == (Path("my.engine"), Path("photos"))
    assert (settings.host, settings.port, settings.hosts) == ("127.0.0.1", port, ("a.example",))
    assert settings.root_path == "/photos"
    code, _, err = run("serve", "--port", port, "--root-path", "https://a.example/photos")
    assert code == BAD_INPUT and "a path like /photos" in err
    assert run("serve", "--port", "99999")[0] == USAGE
    assert run("serve", "-e", "nowhere")[0] == BAD_INPUT


def test_serve_opens_the_page_when_it_is_ready(engine, here, port, monkeypatch):
    """With a browser that writes the address of the page, and what it loads there, into a file."""
    browser = here / "browser.py"
    browser.write_text(
        "import pathlib, sys, urllib.request\n"
        "page = urllib.request.urlopen(sys.argv[1], timeout=60).read().decode()\n"
        "pathlib.Path('part.txt').write_text(sys.argv[1] + '\\n' + page)\n"
        "pathlib.Path('part.txt').rename('opened.txt')\n"
    )
    monkeypatch.setenv("BROWSER", f"{sys.executable} {browser} %s")
    process = start_process(
        "serve", "--open", "--port", port, folder=here, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        stop = time.monotonic() + 120
        while not Path("opened.txt").exists() and process.poll() is None and time.monotonic() < stop:
            time.sleep(0.1)
        address, page = Path("opened.txt").read_text().split("\n", 1)
    finally:
        process.terminate()
        process.communicate(timeout=60)
    assert address == f"http://127.0.0.1:{port}/" and "<html" in page


def test_a_port_in_use_is_an_error_before_anything_is_loaded(engine, run):
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        code, _, err = run("serve", "--port", taken.getsockname()[1])
    assert code == UNAVAILABLE and "is not available" in err and "--port" in err


def test_a_service_that_does_not_start_is_an_error(engine, run, port, monkeypatch):
    def stop(*_, **__):
        raise SystemExit(3)

    monkeypatch.setattr(server, "run", stop)
    assert run("serve", "--port", port)[0] == UNAVAILABLE


# ---- errors and names --------------------------------------------------------------------------


def test_missing_weights_have_their_own_exit_code(here, run, monkeypatch):
    def missing(name):
        raise weights.WeightsUnavailable(f"The weights of {name} are not available. Remedy: internet")

    monkeypatch.setattr(weights, "origin", missing)
    code, out, err = run("index", "photos", "-x", "vgg16")
    assert (code, out) == (UNAVAILABLE, "")
    assert err == "lookalike index: The weights of vgg16 are not available. Remedy: internet\n"
    assert not Path("my.engine").exists()


def test_an_internal_error_is_reported_and_debug_shows_it(here, run, monkeypatch):
    def broken(*_, **__):
        raise TypeError("broken")

    monkeypatch.setattr(leaderboard, "load", broken)
    code, _, err = run("leaderboard")
    assert code == INTERNAL_ERROR and "TypeError: broken" in err and "--debug" in err and "Traceback" not in err
    with pytest.raises(TypeError):
        run("leaderboard", "--debug")


def test_system_errors_name_the_file():
    assert explain_error(PermissionError(13, "Permission denied", "a/b.csv")) == (
        BAD_INPUT,
        "a/b.csv: Permission denied",
    )
    assert explain_error(KeyError("no such id")) == (BAD_INPUT, "no such id")
    for error in (ImportError("x is not installed"), ServerUnavailable("x:9 did not serve"), UnsupportedByIndex("x")):
        assert explain_error(error)[0] == UNAVAILABLE


def test_pluralize_and_printable():
    assert [pluralize(1, "class"), pluralize(2, "class"), pluralize(1000, "query")] == [
        "1 class",
        "2 classes",
        "1,000 queries",
    ]
    # Names of screenshots contain a narrow space, which is kept.
    assert printable("a\nb\x1b[31m ü 中\u202fPM") == "a\\nb\\x1b[31m ü 中\u202fPM"


def test_unusual_file_names(here, run):
    names = ["a b.jpg", 'it\'s "quoted".jpg', "new\nline.jpg", "ünï 中 😀.jpg", "$5 $x.jpg", "-k.jpg", "#1.jpg"]
    names.append(os.fsdecode(b"latin \xe9.jpg"))
    Path("odd").mkdir()
    for name, path in zip(names, images(), strict=False):
        shutil.copy(path, Path("odd") / name)
    assert run("index", "odd", "-x", "hsv-histogram")[0] == OK
    code, out, _ = run("search", "odd", "-k", "2", "--json", "--grid", "grid.png")
    # One row per query, 130 pixels per image.
    assert Image.open("grid.png").size == (390, 8 * 169)
    shown = {clean_text(name) for name in names}
    assert shown - set(names) == {"latin \\xe9.jpg"}
    assert code == OK and {each["query"] for each in json.loads(out)} == {f"odd/{name}" for name in shown}
    assert {each["results"][0]["key"] for each in json.loads(out)} == shown
    rows = list(csv.DictReader(io.StringIO(run("search", "odd", "-k", "1", "--csv")[1], newline="")))
    assert "odd/new\nline.jpg" in [row["query"] for row in rows]
    code, out, err = run("search", "odd", "-k", "1", "--paths")
    assert (code, out) == (USAGE, "") and "new\\nline.jpg contains a line break: use --paths --null" in err
    for name in names:
        assert run("remove", "-e", "my.engine", "--", Path("odd") / name)[0] == OK
        assert run("add", "-e", "my.engine", "--", Path("odd") / name)[0] == OK
    assert run("compact")[0] == OK
    assert {each["results"][0]["key"] for each in json.loads(run("search", "odd", "--json")[1])} == shown
    # Keys and paths are accepted as they are printed.
    assert run("remove", "-e", "my.engine", "latin \\xe9.jpg")[0] == OK
    assert run("add", "-e", "my.engine", Path("odd") / names[-1])[0] == OK
    assert run("remove", "-e", "my.engine", Path("odd").resolve() / "latin \\xe9.jpg")[0] == OK


# ---- processes -------------------------------------------------------------------------------------


def test_paths_are_bytes_that_xargs_reads(here, capsysbinary):
    names = [b"latin \xe9.jpg", b"new\nline.jpg", b" space 'quote'.jpg", b"-k.jpg"]
    files = {os.fsencode(here) + b"/odd/" + name for name in names}
    Path("odd").mkdir()
    for name, path in zip(names, images(), strict=False):
        shutil.copy(path, Path("odd") / os.fsdecode(name))
    assert cli.main(["index", "odd", "-x", "hsv-histogram"]) == OK
    capsysbinary.readouterr()
    assert cli.main(["search", "odd/-k.jpg", "--paths", "--null"]) == OK
    found = capsysbinary.readouterr().out
    sums = subprocess.run(["xargs", "-0", "md5sum", "-z"], input=found, capture_output=True, check=True).stdout
    assert {line.partition(b"  ")[2] for line in sums.split(b"\0")[:-1]} == files
    assert cli.main(["remove", "-e", "my.engine", "new\nline.jpg"]) == OK
    capsysbinary.readouterr()
    assert cli.main(["search", "odd/-k.jpg", "-k", "3", "--paths"]) == OK
    assert set(capsysbinary.readouterr().out.splitlines()) == {file for file in files if b"\n" not in file}


def test_null_needs_paths(engine, run):
    code, _, err = run("search", images()[0], "--null", "--json")
    assert code == USAGE and "--null needs --paths" in err


def test_a_closed_pipe_is_not_an_error(engine, here):
    # More than the buffer of a pipe holds: 18 times 18 lines of over 200 bytes.
    deep = here / ("d" * 200)
    (here / "photos").rename(deep)
    process = start_process(
        "search",
        deep,
        "-k",
        "18",
        "--paths",
        "--root",
        deep,
        folder=here,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout.readline().startswith(str(deep))
    process.stdout.close()
    assert (process.stderr.read(), process.wait(timeout=60)) == ("", OK)
    process.stderr.close()


def test_ctrl_c_keeps_extracted_vectors_and_the_same_command_continues(tmp_path, own_cache, run, monkeypatch):
    noise = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (900, 1200, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(noise, "JPEG", quality=90)
    (tmp_path / "photos").mkdir()
    for number in range(96):
        # Bytes behind the end of a JPEG change the file, but no pixel.
        (tmp_path / "photos" / f"{number}.jpg").write_bytes(noise.getvalue() + b"%d" % number)

    def extracted():
        for file in own_cache.glob("vectors/*.sqlite"):
            with sqlite3.connect(file) as store:
                if store.execute("select count(*) from sqlite_master").fetchone()[0]:
                    return store.execute("select count(*) from vectors").fetchone()[0]
        return 0

    command = ("index", "photos", "-x", "hsv-histogram")
    process = start_process(*command, folder=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    stop = time.monotonic() + 60
    while not extracted() and time.monotonic() < stop:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (INTERRUPTED, "")
    assert err == "stopped; extracted vectors are kept: run the same command again to continue\n"
    kept = extracted()
    assert 0 < kept < 96 and not (tmp_path / "my.engine").exists()
    # Again on a terminal: it shows the progress bar, and standard output has the result only.
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 100))
    monkeypatch.chdir(tmp_path)
    with ThreadPoolExecutor(1) as pool, os.fdopen(theirs, "w") as terminal:
        shown = pool.submit(read_all, ours)
        monkeypatch.setattr(sys, "stderr", terminal)
        code, out, _ = run(*command)
        terminal.close()
    assert (code, out) == (
        OK,
        f"my.engine: 96 images; hsv-histogram, exact:cosine; {96 - kept} extracted, {kept} from the cache\n",
    )
    assert f"{96 - kept}/{96 - kept}" in shown.result() and "image/s" in shown.result()


def read_all(descriptor):
    """Everything written to a terminal, until its other end is closed."""
    parts = []
    try:
        while part := os.read(descriptor, 65536):
            parts.append(part)
    except OSError:
        pass  # Linux raises this error when the other end is closed
    os.close(descriptor)
    return b"".join(parts).decode()
