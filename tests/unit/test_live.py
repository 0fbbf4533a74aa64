"""A saved engine that is searched and changed by several at once, within one process."""

import shutil
import sqlite3
import threading
import time
import traceback

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from helpers.cli import main as cli
from helpers.images.folders import from_folder
from helpers.images.imageset import ImageSet
from helpers.search.engine import Engine, EngineFolderError, UnopenedExtractor
from helpers.search.index import IndexFileError, open_index
from helpers.search.persist import compaction, engine_file, snapshot, wal
from helpers.search.persist import live as live_module
from helpers.search.persist.compaction import compact, is_due
from helpers.search.persist.engine_file import EngineFile
from helpers.search.persist.live import LiveEngine
from helpers.search.persist.snapshot import manifest_of


class MeanColor:
    """The mean color of an image."""

    name = "mean-color"
    dim = 3
    fingerprint = "mean-color-1"

    def extract(self, images, **_):
        return self.extract_arrays([np.asarray(Image.open(path).convert("RGB")) for path in images.paths])

    def extract_arrays(self, images):
        return np.array([image.mean(axis=(0, 1)) for image in images], np.float32)


def paint(path, color):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (6, 4), color).save(path)
    return path


@pytest.fixture
def images(tmp_path):
    for red in range(0, 250, 50):
        paint(tmp_path / "images" / "old" / f"{red:03}.png", (red, 0, 0))
    return tmp_path / "images"


@pytest.fixture(params=["exact:euclidean", "faiss:hnsw?metric=euclidean"])
def folder(request, images, tmp_path):
    return Engine(MeanColor(), request.param).fit(from_folder(images)).save(tmp_path / "my.engine")


@pytest.fixture
def live(folder):
    with LiveEngine.open(folder, MeanColor()) as live:
        yield live


def more(tmp_path, *colors, name="new"):
    for color in colors:
        paint(tmp_path / name / "more" / "-".join(map(str, color)) / "p.png", color)
    return from_folder(tmp_path / name / "more")


def nearest(engine, red, green=0, k=1):
    return [result.id for result in engine.query_vector(np.array([red, green, 0], np.float32), k)]


def wait_until(true, seconds=20):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "the time is over"
        time.sleep(0.005)


def add(live, *vectors, class_name=None):
    return live.add_extracted(["/x.png"] * len(vectors), np.float32(vectors), [class_name] * len(vectors)).ids.tolist()


def test_what_is_added_and_removed_is_seen_by_all_and_lasts(live, folder, tmp_path):
    with LiveEngine.open(folder, MeanColor()) as other:
        ids = live.add(more(tmp_path, (0, 200, 0), (0, 250, 0))).ids
        assert ids.tolist() == [5, 6] and len(live) == 7 and live.changes == 2
        assert nearest(live.engine, 0, 190) == [5]
        assert nearest(other.engine, 0, 190) != [5]
        assert other.refresh() and not other.refresh()
        assert nearest(other.engine, 0, 190) == [5]
        assert other.engine.results(other.engine.query_id(5, 1).ranking)[0].class_name == "0-250-0"
        other.remove([0, 5])
        assert nearest(live.engine, 0, 190) == [5]
        assert live.refresh()
        assert nearest(live.engine, 0, 190) == [6] and nearest(live.engine, 0) == [1]
        with pytest.raises(KeyError, match="5"):
            live.remove([1, 5])
        assert len(live) == 5
    for engine in (Engine.load(folder, MeanColor()), Engine.load(folder, MeanColor(), mmap=True)):
        assert engine.index.ids.tolist() == [1, 2, 3, 4, 6]
        assert engine.skipped.tolist() == [0, 5]
        assert engine.gallery.paths == live.engine.gallery.paths
        assert engine.gallery.class_name(6) == "0-250-0"


def test_a_search_keeps_the_engine_it_began_with(live):
    before = live.engine
    table = before.table
    add(live, [0, 200, 0], class_name="green")
    live.remove([4])
    assert live.engine is not before
    assert nearest(before, 0, 200) == [0] and nearest(before, 200) == [4] and len(before.table) == 5
    assert before.gallery.class_names == ("old",) and before.table is table
    assert nearest(live.engine, 0, 200) == [5] and live.engine.gallery.class_names == ("old", "green")


def test_a_replay_does_not_hold_the_lock_of_the_file(live, folder, monkeypatch):
    """Threads that need the changes wait for it, and one of them replays; others go on."""
    begun, may_end, real, replays, refreshed = threading.Event(), threading.Event(), Engine.replay, [], []

    def replay(engine, changes, roots):
        replays.append(len(changes))
        begun.set()
        assert may_end.wait(20)
        return real(engine, changes, roots)

    with LiveEngine.open(folder, MeanColor()) as other:
        add(other, [0, 200, 0])
        monkeypatch.setattr(Engine, "replay", replay)
        need = [threading.Thread(target=lambda: refreshed.append(live.refresh())) for _ in range(3)]
        for thread in need:
            thread.start()
        assert begun.wait(20)
        before = live.engine
        other_thread = threading.Thread(target=lambda: live.changes)
        other_thread.start()
        other_thread.join(20)
        assert not other_thread.is_alive() and all(thread.is_alive() for thread in need)
        assert nearest(live.engine, 0, 200) == [0] and live.engine is before
        may_end.set()
        for thread in need:
            thread.join(20)
    assert replays == [1] and sorted(refreshed) == [False, False, True]
    assert nearest(live.engine, 0, 200) == [5]


def test_compaction_changes_no_result_and_gives_no_id_twice(live, folder, tmp_path):
    with LiveEngine.open(folder, MeanColor()) as other:
        live.add(more(tmp_path, (0, 200, 0), (0, 250, 0)))
        live.remove([1, 6])
        before, snapshot_id = nearest(live.engine, 10, 90, k=5), manifest_of(folder).snapshot_id
        assert live.compact() == 4 and live.compact() == 0
        manifest = manifest_of(folder)
        assert (live.changes, manifest.images, manifest.indexed, manifest.snapshot_id) == (0, 7, 5, snapshot_id)
        assert nearest(live.engine, 10, 90, k=5) == before
        assert live.engine.index.ids.tolist() == [0, 2, 3, 4, 5] and not hasattr(live.engine.index, "changes")
        # The other has not looked since, and adds: it loads the compacted index first.
        assert other.add(more(tmp_path, (0, 0, 200), name="third")).ids.tolist() == [7]
        assert live.refresh() and live.engine.index.ids.tolist() == [0, 2, 3, 4, 5, 7]
        assert other.engine.index.ids.tolist() == [0, 2, 3, 4, 5, 7]
    assert [path.name for path in folder.glob("vectors-*.index")] == [manifest_of(folder).index_file]


def test_who_knows_all_changes_switches_to_the_compacted_index_later(live, folder, monkeypatch):
    """Without reading the gallery again; until it has switched, it searches and adds over the former index."""
    with LiveEngine.open(folder, MeanColor()) as other:
        add(live, [0, 200, 0], class_name="green")
        live.remove([0])
        assert other.refresh()
        monkeypatch.setattr(live_module.Engine, "load", None)
        may_open, real = threading.Event(), snapshot.open_base
        monkeypatch.setattr(snapshot, "open_base", lambda *args, **named: may_open.wait(20) and real(*args, **named))
        compacting = threading.Thread(target=live.compact)
        may_open.set()
        compacting.start()
        compacting.join()
        may_open.clear()
        table = other.engine.table
        other.refresh()
        assert add(other, [0, 250, 0]) == [6] and other.engine.index.changes == 3
        assert nearest(other.engine, 0, 250) == [6]
        may_open.set()
        wait_until(lambda: other.engine.index.changes == 1)
        assert other.engine.index.ids.tolist() == [1, 2, 3, 4, 5, 6]
        assert other.engine.table.class_name(5) == "green" and other.engine.table._rows is table._rows
        assert nearest(other.engine, 0, 200, 2) == [5, 6]


def test_a_reader_that_loads_during_a_swap_gets_the_new_engine(live, folder, monkeypatch):
    """The index file that its manifest named is deleted before it opens it."""
    add(live, [0, 200, 0])
    real, calls = snapshot.open_base, []

    def late(folder, manifest, *options):
        calls.append(manifest.index_file)
        if len(calls) == 1:
            monkeypatch.setattr(snapshot, "open_base", real)
            compact(folder)
            monkeypatch.setattr(snapshot, "open_base", late)
        return real(folder, manifest, *options)

    monkeypatch.setattr(snapshot, "open_base", late)
    loaded = Engine.load(folder, MeanColor())
    assert len(calls) == 2 and calls[0] != calls[1]
    assert loaded.index.ids.tolist() == [0, 1, 2, 3, 4, 5]


def test_a_query_by_id_never_results_with_itself(live):
    assert [result.id for result in live.engine.query_id(2, 2)] == [1, 3]
    assert 2 not in [result.id for result in live.engine.query_id(2, 10)]
    assert [result.id for result in live.engine.query_id(2, 1, exclude=[1])] == [3]
    with pytest.raises(KeyError, match="id 99"):
        live.engine.query_id(99)


def test_uploads_in_the_folder_move_with_it(live, folder, images, tmp_path):
    own = paint(folder / "images" / "up.png", (0, 0, 250))
    live.add_extracted([own, images / "old" / "000.png", paint(tmp_path / "far.png", (0, 99, 0))],
                       np.float32([[0, 0, 250], [1, 1, 1], [0, 99, 0]]), [None, "old", "far"])  # fmt: skip
    live.compact()
    add(live, [0, 0, 9])
    live.close()
    moved = shutil.move(folder, tmp_path / "elsewhere.index")
    gallery = Engine.load(moved, MeanColor()).gallery
    assert gallery.paths[5] == tmp_path / "elsewhere.index" / "images" / "up.png"
    assert gallery.paths[6:8] == (images / "old" / "000.png", tmp_path / "far.png")
    assert gallery.labels[5:].tolist() == [-1, 0, 1, -1]


def test_names_that_are_not_utf_8_survive(folder, images):
    name = b"caf\xe9.png".decode("utf-8", "surrogateescape")
    odd = images / name
    with LiveEngine.open(folder, MeanColor()) as live:
        live.add_extracted([odd, odd], np.float32([[1, 1, 1], [2, 2, 2]]), [name, "grün"])
        live.compact()
        live.add_extracted([odd], np.float32([[3, 3, 3]]), [name])
    table = Engine.load(folder, MeanColor()).table
    assert [table.path(id) for id in (5, 6, 7)] == [odd] * 3
    assert [table.class_name(id) for id in (5, 6, 7)] == [name, "grün", name]


def test_an_engine_that_missed_something_does_not_overwrite_it(live, folder, tmp_path):
    stale = Engine.load(folder, MeanColor())
    add(live, [0, 200, 0])
    with pytest.raises(EngineFolderError, match="changed 1 times since"):
        stale.save(folder)
    stale.save(tmp_path / "copy.index")
    # Compaction is no reason to lose it either.
    stale = Engine.load(folder, MeanColor())
    live.remove([1])
    live.compact()
    with pytest.raises(EngineFolderError, match="changed 1 times since"):
        stale.save(folder)
    # An engine that contains all changes may be saved; processes that have the folder open switch to it.
    known = Engine.load(folder, MeanColor())
    known.remove([0])
    known.save(folder)
    assert live.refresh() and live.engine.index.ids.tolist() == [2, 3, 4, 5]
    assert add(live, [0, 0, 9]) == [6]


def test_an_engine_with_changes_that_could_not_be_saved_results_as_before(live, folder, tmp_path, monkeypatch):
    add(live, [0, 200, 0])
    live.remove([0])
    engine = Engine.load(folder, MeanColor())
    before = nearest(engine, 0, 100, k=9)

    def fail(*_):
        raise IndexFileError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(snapshot, "write_index", fail)
        with pytest.raises(IndexFileError, match="full"):
            engine.save(folder)
    assert nearest(engine, 0, 100, k=9) == before and len(engine) == 5
    live.refresh()
    assert nearest(live.engine, 0, 100, k=9) == before
    assert Engine.load(engine.save(folder), MeanColor()).index.ids.tolist() == [1, 2, 3, 4, 5]


def test_two_compactions_at_once_change_nothing_twice(live, folder, monkeypatch):
    """The second finds that the manifest is not what it read, and leaves everything as it is."""
    add(live, [0, 200, 0])
    real = snapshot.write_index

    def late(folder, index):
        monkeypatch.setattr(snapshot, "write_index", real)
        with EngineFile(folder) as file, file.writing() as connection:
            connection.execute("update manifest set name = 'another save'")
        return real(folder, index)

    monkeypatch.setattr(snapshot, "write_index", late)
    with pytest.raises(EngineFolderError, match="another process meanwhile"):
        compact(folder)
    assert len(list(folder.glob("vectors-*"))) == 1 and live.changes == 1
    assert Engine.load(folder, MeanColor()).index.ids.tolist() == [0, 1, 2, 3, 4, 5]


def test_what_can_not_be_added_changes_nothing(live, images):
    path = images / "old" / "000.png"
    for vectors, names, message in (
        (np.zeros((1, 2), np.float32), [None], "vectors of 2 numbers, but the index holds 3"),
        (np.zeros((1, 3), np.float32), [], "class names"),
        (np.full((1, 3), np.nan, np.float32), [None], "NaN"),
    ):
        with pytest.raises(ValueError, match=message):
            live.add_extracted([path], vectors, names)
    assert live.changes == 0 and len(live) == 5


def test_an_addition_that_can_not_be_written_changes_nothing(live, monkeypatch):
    def fail(*_):
        raise sqlite3.OperationalError("disk I/O error")

    with monkeypatch.context() as patch:
        patch.setattr(wal, "add", fail)
        with pytest.raises(IndexFileError, match="engine.sqlite cannot be used: disk I/O error"):
            add(live, [0, 200, 0])
    assert (live.changes, len(live)) == (0, 5)
    assert add(live, [0, 200, 0]) == [5]


def test_damage_is_named(live, folder):
    add(live, [0, 200, 0])
    live.close()
    for use in (live.refresh, live.compact, lambda: add(live, [0, 0, 0]), lambda: live.remove([0])):
        with pytest.raises(RuntimeError, match="closed"):
            use()
    assert nearest(live.engine, 0, 200) == [5]
    database = (folder / "engine.sqlite").read_bytes()
    (folder / "engine.sqlite").write_bytes(b"no database" * 500)
    with pytest.raises(IndexFileError, match="engine.sqlite"):
        LiveEngine.open(folder, MeanColor())
    (folder / "engine.sqlite").write_bytes(database)
    with EngineFile(folder) as file, file.writing() as connection:
        connection.execute("delete from log")
        connection.execute("insert into log (id, path, place, vector) values (9, 'x', 0, x'000000000000000000000000')")
    with pytest.raises(EngineFolderError, match="does not continue"):
        LiveEngine.open(folder, MeanColor())
    with EngineFile(folder) as file, file.writing() as connection:
        connection.execute("update manifest set fingerprint = 'other'")
    with pytest.raises(EngineFolderError, match="cannot be compared"):
        LiveEngine.open(folder, MeanColor())
    (folder / "engine.sqlite").unlink()
    with pytest.raises(EngineFolderError, match="holds no engine"):
        LiveEngine.open(folder, MeanColor())


def run_threads(*functions):
    """Run functions in threads, and raise what they raised."""
    errors = []

    def run(function):
        try:
            function()
        except BaseException as error:
            errors.append(traceback.format_exception(error))

    threads = [threading.Thread(target=run, args=(function,)) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


def test_many_threads_at_once(folder):
    with LiveEngine.open(folder, MeanColor()) as live, LiveEngine.open(folder, MeanColor()) as other:
        added = []

        def keep_adding(engine, shade):
            for step in range(6):
                added.extend(add(engine, [shade, step, 200], class_name="new"))

        def look(engine):
            for _ in range(60):
                engine.refresh()
                results = engine.engine.query_vector(np.float32([9, 9, 200]), 3)
                assert len(results) == 3 and all(result.path.name for result in results)

        def keep_compacting():
            for _ in range(4):
                live.compact()

        run_threads(
            *(lambda each=each, n=n: keep_adding(each, 10 * n) for n, each in enumerate([live, other] * 2)),
            lambda: look(live), lambda: look(other), keep_compacting,
        )  # fmt: skip
        assert sorted(added) == list(range(5, 29))
        live.refresh()
        assert live.engine.index.ids.tolist() == list(range(29))
    assert Engine.load(folder, MeanColor()).index.ids.tolist() == list(range(29))


@settings(max_examples=20)
@given(
    steps=st.lists(
        st.one_of(
            st.tuples(st.just("add"), st.integers(1, 3), st.sampled_from([None, "a", "b"])),
            st.tuples(st.just("remove"), st.integers(0, 50), st.just(None)),
            st.tuples(st.sampled_from(["compact", "save", "reload", "other"]), st.just(0), st.just(None)),
        ),
        max_size=14,
    ),
    spec=st.sampled_from(["exact:euclidean", "faiss:ivf?metric=euclidean&lists=1"]),
)
def test_any_sequence_of_changes_equals_a_dict(tmp_path_factory, steps, spec):
    """Two live engines in turns; what they hold is compared with {id: (vector, class)} after each step.

    Takes over 5 seconds, as each step is flushed to the disk.
    """
    folder = tmp_path_factory.mktemp("model") / "engine"
    start = np.random.default_rng(0).random((4, 3)).astype(np.float32)
    engine = Engine(MeanColor(), spec)
    engine.extractor.extract = lambda images, **_: start
    engine.fit(ImageSet("start", tuple(f"/{i}.png" for i in range(4)), [0, 0, -1, 0], ("old",))).save(folder)
    model = {id: (start[id], None if id == 2 else "old") for id in range(4)}
    given, lives = 4, [LiveEngine.open(folder, MeanColor()) for _ in range(2)]
    for number, (what, count, class_name) in enumerate(steps):
        live = lives[0]
        if what == "add":
            vectors = np.random.default_rng(number + 1).random((count, 3)).astype(np.float32)
            ids = add(live, *vectors, class_name=class_name)
            assert ids == list(range(given, given + count))
            model |= {id: (vector, class_name) for id, vector in zip(ids, vectors, strict=True)}
            given += count
        elif what == "remove" and len(model) > 1:
            live.refresh()
            id = sorted(model)[count % len(model)]
            live.remove([id])
            del model[id]
        elif what == "compact":
            live.compact()
        elif what == "save":
            Engine.load(folder, MeanColor()).save(folder)
        elif what == "reload":
            live.close()
            lives[0] = LiveEngine.open(folder, MeanColor())
        else:
            lives.reverse()
        lives[0].refresh()
        check(lives[0].engine, model, given)
    for live in lives:
        live.refresh()
        check(live.engine, model, given)
        live.close()
    check(Engine.load(folder, MeanColor()), model, given)


def check(engine, model, given):
    ids = sorted(model)
    assert engine.index.ids.tolist() == ids and len(engine) == len(ids) and len(engine.table) == given
    np.testing.assert_array_equal(engine.index.vectors(ids), [model[id][0] for id in ids])
    assert [engine.table.class_name(id) for id in ids] == [model[id][1] for id in ids]
    found = engine.index.search(np.float32([model[id][0] for id in ids]), 1)
    assert found.ids[:, 0].tolist() == ids


# ---- compaction by itself ----------------------------------------------------------------------------------------


def test_a_log_is_due_when_it_outgrows_its_share():
    assert [is_due(*each) for each in ((1000, 0), (1001, 0), (1001, 10_000), (20_000, 200_000), (20_001, 200_000))] == [
        False, True, True, False, True,
    ]  # fmt: skip


@pytest.fixture
def small_logs(monkeypatch):
    monkeypatch.setattr(compaction, "LEAST_CHANGES", 3)


def test_the_log_is_compacted_by_itself(live, folder, small_logs):
    with LiveEngine.open(folder, MeanColor()) as other:
        add(live, [0, 200, 0], [0, 210, 0])
        live.remove([0])
        assert live.wait_for_compaction() == 0 and live.changes == 3
        add(live, [0, 220, 0])
        assert live.wait_for_compaction() == 4 and live.changes == 0
        assert manifest_of(folder).indexed == 7 and live.engine.index.ids.tolist() == [1, 2, 3, 4, 5, 6, 7]
        # The other process has not read the log.
        assert other.refresh() and other.engine.index.ids.tolist() == [1, 2, 3, 4, 5, 6, 7]


def test_searches_and_additions_do_not_wait_for_a_compaction(live, folder, small_logs, monkeypatch):
    """While a compaction stands still, both engines search, add and remove, and nothing of it is lost."""
    entered, go_on, real = threading.Event(), threading.Event(), snapshot.write_index

    def slow(folder, index):
        entered.set()
        assert go_on.wait(20)
        return real(folder, index)

    monkeypatch.setattr(snapshot, "write_index", slow)
    with LiveEngine.open(folder, MeanColor()) as other:
        add(live, *([0, 200 + n, 0] for n in range(4)))
        assert entered.wait(20)
        assert add(live, [0, 0, 100]) == [9] and add(other, [0, 0, 200]) == [10]
        # Another process does not start a second one, and neither does this one.
        assert other.wait_for_compaction() == 0 and compact(folder, wait=False) == 0
        live.remove([0, 5])
        other.refresh()
        for each in (live, other):
            assert nearest(each.engine, 0, 201) == [6]
        go_on.set()
        assert live.wait_for_compaction() == 4
        for each in (live, other):
            each.refresh()
            assert each.engine.index.ids.tolist() == [1, 2, 3, 4, 6, 7, 8, 9, 10]
        assert Engine.load(folder, MeanColor()).index.ids.tolist() == [1, 2, 3, 4, 6, 7, 8, 9, 10]
        assert live.changes == 4


def test_a_compaction_that_fails_is_logged_and_tried_again_later(live, folder, small_logs, monkeypatch, caplog):
    def fail(*_):
        raise IndexFileError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(snapshot, "write_index", fail)
        add(live, *([0, 200 + n, 0] for n in range(4)))
        with pytest.raises(IndexFileError, match="the disk is full"):
            live.wait_for_compaction()
    assert "could not be compacted" in caplog.text and "the disk is full" in caplog.text
    assert live.changes == 4 and len(live) == 9
    # Not at each addition.
    add(live, [0, 0, 1])
    assert not live._compaction.running and live.changes == 5
    add(live, *([0, 0, n] for n in range(2, 6)))
    assert live.wait_for_compaction() == 9 and live.changes == 0


def test_closing_cancels_a_compaction(live, folder, small_logs, monkeypatch):
    entered, real = threading.Event(), snapshot.open_base

    def slow(*args, **named):
        entered.set()
        wait_until(live._compaction._cancelled.is_set)
        return real(*args, **named)

    monkeypatch.setattr(snapshot, "open_base", slow)
    add(live, *([0, 200 + n, 0] for n in range(4)))
    assert entered.wait(20)
    live.close()
    assert not live._compaction.running and manifest_of(folder).indexed == 5
    monkeypatch.setattr(snapshot, "open_base", real)
    assert Engine.load(folder, MeanColor()).index.ids.tolist() == list(range(9))


# ---- commands, and what they do without an extractor -------------------------------------------------------------


def test_remove_and_compact_do_not_open_the_extractor(folder, capsys):
    """`mean-color` cannot be opened by name, so a search is refused."""
    assert cli.main(["remove", "-e", str(folder), "0", "4"]) == 0
    assert cli.main(["compact", "-e", str(folder)]) == 0
    assert capsys.readouterr().out.endswith("2 changes written into the index, 3 images in total\n")
    with pytest.raises(EngineFolderError, match="'mean-color', which cannot be opened by name"):
        Engine.load(folder)
    manifest = manifest_of(folder)
    assert (manifest.extractor, manifest.fingerprint) == ("mean-color", "mean-color-1")
    assert nearest(Engine.load(folder, MeanColor()), 0, k=3) == [1, 2, 3]


def test_a_command_says_that_it_compacted(folder, capsys, small_logs):
    assert cli.main(["remove", "-e", str(folder), "0", "1", "2", "4"]) == 0
    told = capsys.readouterr()
    assert "4 images removed, 1 in total" in told.out
    assert "4 changes written from the log into the index" in told.err
    assert manifest_of(folder).indexed == 1


def test_an_engine_of_the_old_format_is_refused_by_name(images, tmp_path, capsys):
    (tmp_path / "old.index").mkdir()
    (tmp_path / "old.index" / "engine.json").write_text("{}")
    file = str(paint(tmp_path / "x.png", (1, 2, 3)))
    for command in (["search", file, "-e"], ["compact", "-e"]):
        assert cli.main([*command, str(tmp_path / "old.index")]) != 0
        assert "old.index holds an engine of an older format" in capsys.readouterr().err
    index = ["index", str(images), "-o", str(tmp_path / "old.index"), "-x", "hsv-histogram"]
    assert cli.main(index) != 0
    assert "older format" in capsys.readouterr().err
    assert cli.main([*index, "--force"]) == 0
    assert manifest_of(tmp_path / "old.index").images == 5
    assert not (tmp_path / "old.index" / "engine.json").exists()


def test_an_unopened_extractor_refuses_to_extract(folder, images):
    paint(images / "old" / "new.png", (1, 2, 3))
    with LiveEngine.open(folder, UnopenedExtractor.of(folder)) as live:
        with pytest.raises(RuntimeError, match="loaded without its extractor 'mean-color'"):
            live.add(from_folder(images))
        with pytest.raises(RuntimeError, match="loaded without its extractor 'mean-color'"):
            live.engine.query(next(images.rglob("*.png")))
        assert live.changes == 0


def test_a_folder_that_can_not_be_written_is_searched_all_the_same(live, folder, monkeypatch):
    """With and without a write-ahead log of SQLite beside the file."""
    add(live, [0, 200, 0])
    monkeypatch.setattr(engine_file.os, "access", lambda *_: False)
    for _ in range(2):
        names = sorted(path.name for path in folder.iterdir())
        with LiveEngine.open(folder, MeanColor()) as reader:
            assert not reader.refresh() and nearest(reader.engine, 0, 200) == [5]
            with pytest.raises(IndexFileError, match="readonly database"):
                reader.remove([0])
            assert sorted(path.name for path in folder.iterdir()) == names
        live.close()
    assert names == [".lock", "engine.sqlite", manifest_of(folder).index_file]


# ---- the parts ---------------------------------------------------------------------------------------------------


def test_a_log_keeps_the_order_and_never_uses_a_number_twice(folder):
    with EngineFile(folder) as file:
        before = file.version()
        with file.writing() as connection:
            wal.add(connection, [5], [("x.png", 2)], [None], np.ones((1, 3), np.float32), [b"content"], ["name"])
            wal.remove(connection, [0])
        with pytest.raises(ZeroDivisionError), file.writing() as connection:
            wal.remove(connection, [3])
            raise ZeroDivisionError
        with file.reading() as connection:
            changes = wal.read(connection, 0)
            assert [(c.number, c.id, c.vector is None) for c in changes] == [(1, 5, False), (2, 0, True)]
            assert (changes[0].path, changes[0].place, changes[0].content, changes[0].name) == (
                "x.png", 2, b"content", "name",
            )  # fmt: skip
            assert [c.number for c in wal.read(connection, 1)] == [2]
        # Its own commits are no news, those of others are.
        assert file.version() == before
        with EngineFile(folder) as other, other.writing() as connection:
            connection.execute("delete from log where number <= 2")
            wal.remove(connection, [1])
        assert file.version() != before
        with file.reading() as connection:
            assert [c.number for c in wal.read(connection, 0)] == [3] and wal.last_number(connection) == 3


def test_squares_of_an_extended_index_are_those_of_all_rows():
    rows = np.random.default_rng(0).standard_normal((30, 8)).astype(np.float32)
    index = open_index("exact:euclidean").add(rows[:10])
    index.search(rows[:2], 1)
    longer = index.extended(rows[10:], np.arange(10, 30))
    np.testing.assert_array_equal(longer.search(rows, 1).ids[:, 0], np.arange(30))
    np.testing.assert_array_equal(longer._square_lengths(), open_index("exact:euclidean").add(rows)._square_lengths())
    assert len(index) == len(index._square_lengths()) == 10
