"""A saved engine that many processes search and change at once."""

import json
import shutil
import signal
import subprocess
import sys
import threading
import time
import traceback

import numpy as np
import pytest
from PIL import Image

from helpers import cli, paths
from helpers.pictures.imageset import from_folder
from helpers.search.engine import CARD, Engine, EngineFolderError, UnopenedDescriber, read_card
from helpers.search.index import IndexFileError
from helpers.search.journal import NAME, Journal
from helpers.search.live import LiveEngine


class MeanColour:
    """Describes a picture by its mean colour."""

    name = "mean-colour"
    dim = 3
    fingerprint = "mean-colour-1"

    def describe(self, images, **_):
        with_each = [np.asarray(Image.open(path).convert("RGB")) for path in images.paths]
        return self.describe_arrays(with_each)

    def describe_arrays(self, pictures):
        return np.array([picture.mean(axis=(0, 1)) for picture in pictures], np.float32)


def paint(path, colour):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (6, 4), colour).save(path)
    return path


@pytest.fixture
def pictures(tmp_path):
    for red in range(0, 250, 50):
        paint(tmp_path / "pictures" / "old" / f"{red:03}.png", (red, 0, 0))
    return tmp_path / "pictures"


@pytest.fixture(params=["exact:euclidean", "faiss:hnsw?metric=euclidean"])
def folder(request, pictures, tmp_path):
    return Engine(MeanColour(), request.param).fit(from_folder(pictures)).save(tmp_path / "my.index")


@pytest.fixture
def live(folder):
    with LiveEngine.open(folder, MeanColour()) as live:
        yield live


def more(tmp_path, *colours, name="new"):
    for colour in colours:
        paint(tmp_path / name / "more" / "-".join(map(str, colour)) / "p.png", colour)
    return from_folder(tmp_path / name / "more")


def nearest(engine, red, green=0, k=1):
    return [answer.id for answer in engine.query_vector(np.array([red, green, 0], np.float32), k)]


def test_what_is_added_and_removed_is_seen_by_all_and_lasts(live, folder, tmp_path):
    with LiveEngine.open(folder, MeanColour()) as other:
        ids = live.add(more(tmp_path, (0, 200, 0), (0, 250, 0)))
        assert ids.tolist() == [5, 6] and len(live) == 7 and live.changes == 2
        assert nearest(live.engine, 0, 190) == [5]
        assert nearest(other.engine, 0, 190) != [5]
        assert other.refresh() and not other.refresh()
        assert nearest(other.engine, 0, 190) == [5]
        assert other.engine.answers(other.engine.query_id(5, 1).ranking)[0].class_name == "0-250-0"
        other.remove([0, 5])
        assert nearest(live.engine, 0, 190) == [5]
        assert live.refresh()
        assert nearest(live.engine, 0, 190) == [6] and nearest(live.engine, 0) == [1]
        with pytest.raises(KeyError, match="5"):
            live.remove([1, 5])
        assert len(live) == 5
    for engine in (Engine.load(folder, MeanColour()), Engine.load(folder, MeanColour(), mmap=True)):
        assert engine.index.ids.tolist() == [1, 2, 3, 4, 6]
        assert engine.skipped.tolist() == [0, 5]
        assert engine.gallery.paths == live.engine.gallery.paths
        assert engine.gallery.class_name(6) == "0-250-0"


def test_folding_changes_no_answer_and_gives_no_id_twice(live, folder, tmp_path):
    with LiveEngine.open(folder, MeanColour()) as other:
        live.add(more(tmp_path, (0, 200, 0), (0, 250, 0)))
        live.remove([1, 6])
        before = nearest(live.engine, 10, 90, k=5)
        live.fold()
        assert live.changes == 0 and read_card(folder)["counts"] == {"pictures": 7, "indexed": 5}
        assert nearest(live.engine, 10, 90, k=5) == before
        assert live.engine.index.ids.tolist() == [0, 2, 3, 4, 5]
        # The other has not looked since, and adds: it sees the fold first.
        assert other.add(more(tmp_path, (0, 0, 200), name="third")).tolist() == [7]
        assert live.refresh() and live.engine.index.ids.tolist() == [0, 2, 3, 4, 5, 7]
        assert other.engine.index.ids.tolist() == [0, 2, 3, 4, 5, 7]
    assert len(list(folder.glob("vectors-*.index"))) == 1


def test_a_query_by_id_never_answers_with_itself(live):
    assert [answer.id for answer in live.engine.query_id(2, 2)] == [1, 3]
    assert 2 not in [answer.id for answer in live.engine.query_id(2, 10)]
    assert [answer.id for answer in live.engine.query_id(2, 1, exclude=[1])] == [3]
    with pytest.raises(KeyError, match="id 99"):
        live.engine.query_id(99)


def test_uploads_in_the_folder_move_with_it(live, folder, pictures, tmp_path):
    own = paint(folder / "pictures" / "up.png", (0, 0, 250))
    live.add_described([own, pictures / "old" / "000.png", paint(tmp_path / "far.png", (0, 99, 0))],
                       np.float32([[0, 0, 250], [1, 1, 1], [0, 99, 0]]), [None, "old", "far"])  # fmt: skip
    live.fold()
    live.close()
    moved = shutil.move(folder, tmp_path / "elsewhere.index")
    gallery = Engine.load(moved, MeanColour()).gallery
    assert gallery.paths[5] == tmp_path / "elsewhere.index" / "pictures" / "up.png"
    assert gallery.paths[5:] == (gallery.paths[5], pictures / "old" / "000.png", tmp_path / "far.png")
    assert gallery.labels[5:].tolist() == [-1, 0, 1]


def test_an_engine_that_missed_something_does_not_overwrite_it(live, folder, tmp_path):
    stale = Engine.load(folder, MeanColour())
    live.add(more(tmp_path, (0, 200, 0)))
    with pytest.raises(EngineFolderError, match="changed 1 times since"):
        stale.save(folder)
    stale.save(tmp_path / "copy.index")
    fresh = Engine.load(folder, MeanColour())
    live.remove([1])
    live.fold()
    with pytest.raises(EngineFolderError, match="not what this engine was loaded from any more"):
        fresh.fold(folder)
    # One that knows all may, and starts anew; who has the folder open follows.
    known = Engine.load(folder, MeanColour())
    known.remove([0])
    known.save(folder)
    assert live.refresh() and live.engine.index.ids.tolist() == [2, 3, 4, 5]
    assert live.add(more(tmp_path, (0, 0, 9), name="x")).tolist() == [6]


def test_what_can_not_be_added_changes_nothing(live, pictures):
    path = pictures / "old" / "000.png"
    for vectors, names, message in (
        (np.zeros((1, 2), np.float32), [None], "shape"),
        (np.zeros((1, 3), np.float32), [], "class names"),
        (np.full((1, 3), np.nan, np.float32), [None], "NaN"),
    ):
        with pytest.raises(ValueError, match=message):
            live.add_described([path], vectors, names)
    assert live.changes == 0 and len(live) == 5


def test_damage_is_named(live, folder, tmp_path):
    live.add(more(tmp_path, (0, 200, 0)))
    live.close()
    with pytest.raises(RuntimeError, match="closed"):
        live.refresh()
    journal = (folder / NAME).read_bytes()
    (folder / NAME).write_bytes(b"no journal" * 500)
    with pytest.raises(IndexFileError, match=NAME):
        LiveEngine.open(folder, MeanColour())
    (folder / NAME).write_bytes(journal)
    card = json.loads((folder / CARD).read_text())
    (folder / CARD).write_text(json.dumps(card | {"fingerprint": "other"}))
    with pytest.raises(EngineFolderError, match="can't be compared"):
        LiveEngine.open(folder, MeanColour())
    (folder / CARD).unlink()
    with pytest.raises(EngineFolderError, match="holds no engine"):
        LiveEngine.open(folder, MeanColour())


def test_many_threads_at_once(folder, pictures):
    with LiveEngine.open(folder, MeanColour()) as live, LiveEngine.open(folder, MeanColour()) as other:
        added, errors = [], []

        def add(engine, shade):
            try:
                for step in range(6):
                    vector = np.float32([[shade, step, 200]])
                    added.extend(engine.add_described([pictures / "old" / "000.png"], vector, ["new"]).tolist())
            except Exception as error:
                errors.append(traceback.format_exception(error))

        def look(engine):
            try:
                for _ in range(60):
                    engine.refresh()
                    answers = engine.engine.query_vector(np.float32([9, 9, 200]), 3)
                    assert len(answers) == 3 and all(answer.path.name for answer in answers)
            except Exception as error:
                errors.append(traceback.format_exception(error))

        threads = [threading.Thread(target=add, args=(each, 10 * n)) for n, each in enumerate([live, other] * 2)]
        threads += [threading.Thread(target=look, args=(each,)) for each in (live, other)]
        for thread in threads:
            thread.start()
        live.fold()
        for thread in threads:
            thread.join()
        assert errors == []
        assert sorted(added) == list(range(5, 29))
        live.refresh()
        assert live.engine.index.ids.tolist() == list(range(29))


ADDER = """
import sys
import numpy as np
from helpers.search.live import LiveEngine
from tests.integration.test_live import MeanColour

with LiveEngine.open(sys.argv[1], MeanColour()) as live:
    while True:
        (number,) = live.add_described([sys.argv[2]], np.float32([[250, 250, len(live)]]), [None]).tolist()
        print(number, flush=True)
"""


def test_a_process_that_is_killed_loses_nothing_that_it_acknowledged(folder, pictures):
    command = [sys.executable, "-c", ADDER, str(folder), str(pictures / "old" / "000.png")]
    processes = [subprocess.Popen(command, cwd=paths.ROOT, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    acknowledged = []
    for process in processes:
        acknowledged += [int(process.stdout.readline()) for _ in range(3)]
    time.sleep(0.2)
    for process in processes:
        process.send_signal(signal.SIGKILL)
    for process in processes:
        # The last line may be cut.
        acknowledged += [int(line) for line in process.stdout.read().split("\n")[:-1] if line]
        process.wait()
    with LiveEngine.open(folder, MeanColour()) as live:
        assert len(acknowledged) == len(set(acknowledged)) >= 6
        assert set(acknowledged) <= set(live.engine.index.ids.tolist())
        live.fold()
        assert set(acknowledged) <= set(live.engine.index.ids.tolist())


def test_a_journal_keeps_lineages_apart(tmp_path):
    journal = Journal(tmp_path)
    assert journal.read("a", 0) == [] and not journal.moved() and not journal.path.exists()
    with journal.writing() as writer:
        writer.add("a", [3], ["x"], [None], np.ones((1, 2), np.float32))
        writer.remove("b", [0])
    assert [(change.number, change.id, change.added) for change in journal.read("a", 0)] == [(1, 3, True)]
    assert [change.id for change in journal.read("b", 0)] == [0]
    with pytest.raises(ZeroDivisionError), journal.writing() as writer:
        writer.remove("a", [3])
        raise ZeroDivisionError
    assert len(journal.read("a", 0)) == 1
    journal.drop("a", 0)
    assert journal.read("b", 0) == [] and len(journal.read("a", 0)) == 1
    with journal.writing() as writer:
        assert writer.next_id("a", 2) == 4 and writer.next_id("a", 9) == 9 and writer.next_id("b", 2) == 2
    journal.close()


def test_remove_and_compact_do_not_open_the_describer(folder, capsys):
    """`mean-colour` can't be opened by name, so a search is refused."""
    assert cli.main(["remove", str(folder), "0", "4"]) == 0
    assert cli.main(["compact", str(folder)]) == 0
    assert capsys.readouterr().out.endswith("2 changes written into the index, 3 pictures in all\n")
    with pytest.raises(EngineFolderError, match="'mean-colour', which is not one that can be opened by name"):
        Engine.load(folder)
    assert [read_card(folder)[name] for name in ("describer", "fingerprint")] == ["mean-colour", "mean-colour-1"]
    assert nearest(Engine.load(folder, MeanColour()), 0, k=3) == [1, 2, 3]


def test_an_unopened_describer_refuses_to_describe(folder, pictures):
    with LiveEngine.open(folder, UnopenedDescriber.of(folder)) as live:
        with pytest.raises(RuntimeError, match="loaded without its describer 'mean-colour'"):
            live.add(from_folder(pictures))
        with pytest.raises(RuntimeError, match="loaded without its describer 'mean-colour'"):
            live.engine.query(next(pictures.rglob("*.png")))
        assert live.changes == 0
