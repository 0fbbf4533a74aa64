"""The engine: from images to results, and its saved folder."""

import shutil
import sqlite3
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.images.folders import from_folder
from helpers.images.imageset import ImageSet
from helpers.images.reading import UnreadableImage, UnreadableImageWarning, read_image, warn_unreadable
from helpers.search.engine import Engine, EngineFolderError
from helpers.search.index import IndexFileError, open_index
from helpers.search.persist.compaction import compact
from helpers.search.persist.engine_file import EngineFile
from helpers.search.persist.live import LiveEngine
from helpers.search.persist.snapshot import is_engine, manifest_of
from helpers.search.ranking import Ranking

RED, ORANGE, GREEN, BLUE = (250, 0, 0), (250, 90, 0), (0, 250, 0), (0, 0, 250)
COLORS = {"warm/orange": ORANGE, "warm/red": RED, "cold/blue": BLUE, "cold/green": GREEN, "gray": (128, 128, 128)}


class MeanColor:
    """Describes an image by its mean color."""

    name = "mean-color"
    dim = 3

    def __init__(self, scale=1.0):
        self.scale = scale
        self.fingerprint = f"mean-color-{scale}"

    def extract(self, images, **_):
        vectors, failures = np.full((len(images), 3), np.nan, np.float32), []
        for row, path in enumerate(images.paths):
            try:
                vectors[row] = self.extract_arrays([read_image(path)])[0]
            except UnreadableImage as error:
                failures.append(error)
        warn_unreadable(failures, len(images))
        return vectors

    def extract_arrays(self, images):
        return np.array([self.scale * image.mean(axis=(0, 1)) for image in images], np.float32)


def save_image(path, color):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (6, 4), color).save(path)
    return path


@pytest.fixture
def folder(tmp_path):
    for name, color in COLORS.items():
        save_image(tmp_path / "images" / f"{name}.png", color)
    return tmp_path / "images"


@pytest.fixture
def gallery(folder):
    # cold/blue, cold/green, gray, warm/orange, warm/red
    return from_folder(folder)


@pytest.fixture
def engine(gallery):
    return Engine(MeanColor(), "exact:euclidean").fit(gallery)


def names(results):
    return [result.path.stem for result in results]


def test_results_are_images_with_rank_score_and_class(engine, gallery):
    results = engine.query(np.full((5, 5, 3), (250, 10, 0), np.uint8), k=3)
    assert names(results) == ["red", "orange", "gray"]
    assert [result.rank for result in results] == [1, 2, 3]
    assert [result.id for result in results] == [4, 3, 2]
    assert [(result.label, result.class_name) for result in results] == [(1, "warm"), (1, "warm"), (-1, "–")]
    assert [result.score for result in results[:2]] == [-10, -80]
    assert results[0].path == gallery.paths[4]
    assert results.ranking.ids.tolist() == [[4, 3, 2]]
    assert results.note == ""
    assert (results[0].read() == RED).all()


def test_a_file_its_bytes_and_its_pixels_are_the_same_query(engine, gallery):
    path = gallery.paths[1]
    images = [path, str(path), path.read_bytes(), read_image(path)]
    found = [engine.query(image, k=5) for image in images]
    assert all(list(results) == list(found[0]) for results in found)
    assert (names(found[0])[0], found[0][0].score) == ("green", 0)


def test_more_results_than_images_are_all_images_and_a_note(engine):
    results = engine.query(np.zeros((2, 2, 3), np.uint8), k=20)
    assert len(results) == 5
    assert results.ranking.k == 5
    assert results.note == "20 results requested, there are 5: the index holds 5 images"
    assert results.note in repr(results)


def test_an_approximate_search_that_finds_too_few_is_not_blamed_on_the_gallery(tmp_path):
    for number, color in enumerate(np.random.default_rng(0).integers(0, 256, (1000, 3)).tolist()):
        save_image(tmp_path / "all" / f"{number}.png", tuple(color))
    engine = Engine(MeanColor(), "faiss:ivf?lists=50&probes=1&metric=euclidean").fit(from_folder(tmp_path))
    results = engine.query(tmp_path / "all" / "0.png", k=400, exclude=[1, 2])
    assert 0 < len(results) < 400
    assert results.note == (
        f"400 results requested, {engine.index.spec} found {len(results)}: the index holds 1000 images, 2 of "
        "them excluded, but an approximate search may miss some. Call the index's `tune` to search with more effort."
    )


@pytest.mark.parametrize("how", ["id", "ids", "key", "path", "paths"])
def test_what_is_excluded_is_no_result(engine, gallery, how):
    exclude = {
        "id": 4,
        "ids": np.array([4]),
        "key": "warm/red.png",
        "path": gallery.paths[4],
        "paths": [str(gallery.paths[4])],
    }[how]
    results = engine.query(gallery.paths[4], k=2, exclude=exclude)
    assert names(results) == ["orange", "gray"]
    assert [result.rank for result in results] == [1, 2]
    assert (
        "there are 4: the index holds 5 images, 1 of them excluded" in engine.query(gallery.paths[4], 5, exclude).note
    )


def test_everything_excluded_leaves_no_result(engine, gallery):
    results = engine.query(gallery.paths[0], k=3, exclude=range(5))
    assert (len(results), results.ranking.ids.shape) == (0, (1, 0))


@pytest.mark.parametrize("exclude", [5, [-1], np.array([2, 5]), "warm/pink.png", [Path("nowhere.png")]])
def test_what_is_not_in_the_gallery_can_not_be_excluded(engine, gallery, exclude):
    with pytest.raises(ValueError, match="cannot be excluded"):
        engine.query(gallery.paths[0], exclude=exclude)


@pytest.mark.parametrize("k", [0, -2, 1.5])
def test_k_must_be_positive(engine, gallery, k):
    with pytest.raises(ValueError, match="k must be a whole number"):
        engine.query(gallery.paths[0], k=k)


@pytest.mark.parametrize(
    "image",
    [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((4, 4, 4), np.uint8), np.zeros((0, 4, 3), np.uint8)],
)
def test_an_array_that_is_no_image_is_refused(engine, image):
    with pytest.raises(ValueError, match="an image must be uint8"):
        engine.query(image)


def test_a_query_that_can_not_be_read_is_named(engine, tmp_path):
    with pytest.raises(UnreadableImage, match="nowhere.jpg"):
        engine.query(tmp_path / "nowhere.jpg")
    with pytest.raises(UnreadableImage, match="bytes"):
        engine.query(b"no image")


def test_an_engine_that_was_not_fitted_says_so(gallery, tmp_path):
    engine = Engine(MeanColor())
    for use in (
        lambda: engine.query(gallery.paths[0]),
        lambda: engine.save(tmp_path / "engine"),
    ):
        with pytest.raises(RuntimeError, match="call fit"):
            use()
    assert "not fitted" in repr(engine)


def test_fitting_again_forgets_the_first_gallery(engine, gallery):
    small = gallery.subset([0, 4])
    results = engine.fit(small).query(gallery.paths[1], k=9)
    assert sorted(names(results)) == ["blue", "red"]
    assert sorted(result.id for result in results) == [0, 1]


def test_an_index_can_be_given_but_only_an_empty_one(gallery):
    index = open_index("sklearn:manhattan")
    engine = Engine(MeanColor(), index).fit(gallery)
    assert engine.index is index and len(index) == len(engine) == 5
    with pytest.raises(ValueError, match="must be empty"):
        Engine(MeanColor(), index)


@pytest.fixture
def with_broken(folder):
    (folder / "cold" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    (folder / "warm" / "empty.png").write_bytes(b"")
    return from_folder(folder)  # cold/blue, cold/broken, cold/green, gray, warm/empty, warm/orange, warm/red


def test_images_that_can_not_be_read_are_counted_once_and_never_found(with_broken):
    with pytest.warns(UnreadableImageWarning, match="2 of 7 images") as caught:
        engine = Engine(MeanColor()).fit(with_broken)
    assert len(caught) == 1
    assert engine.skipped.tolist() == [1, 4]
    results = engine.query(with_broken.paths[6], k=7)
    assert sorted(names(results)) == ["blue", "gray", "green", "orange", "red"]
    # Ids are still the gallery's rows.
    assert (results[0].id, results[0].class_name) == (6, "warm")


def test_a_gallery_without_a_readable_image_is_refused(engine, with_broken):
    before = list(engine.query(with_broken.paths[0]))
    with (
        pytest.warns(UnreadableImageWarning),
        pytest.raises(ValueError, match="no image of 'broken' can be read"),
    ):
        engine.fit(with_broken.subset([1, 4], "broken"))
    with pytest.raises(ValueError, match="'nothing' is empty"):
        engine.fit(ImageSet("nothing", (), [], ()))
    assert list(engine.query(with_broken.paths[0])) == before, "a fit that failed changes nothing"


# ---- the folder --------------------------------------------------------------------------------------------------


def test_what_is_loaded_results_like_what_was_saved(engine, gallery, tmp_path):
    folder = engine.save(tmp_path / "kept" / "engine")
    loaded = Engine.load(folder, MeanColor())
    for path in gallery.paths:
        assert list(loaded.query(path)) == list(engine.query(path))
    assert loaded.gallery.keys == gallery.keys
    assert (loaded.gallery.name, loaded.gallery.class_names) == (gallery.name, gallery.class_names)
    assert loaded.index.spec == "exact:euclidean"


def test_unreadable_images_stay_out_after_loading(with_broken, tmp_path):
    with pytest.warns(UnreadableImageWarning):
        engine = Engine(MeanColor()).fit(with_broken)
    loaded = Engine.load(engine.save(tmp_path / "engine"), MeanColor())
    assert loaded.skipped.tolist() == [1, 4]
    assert loaded.query(with_broken.paths[6], k=1)[0].class_name == "warm"


def test_groups_and_full_paths_survive(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(folder)
    images = ImageSet("two", (Path("warm/red.png"), Path("cold/blue.png")), [0, -1], ("warm",), groups=[3, -1])
    Engine(MeanColor()).fit(images).save(tmp_path / "engine")
    monkeypatch.chdir(tmp_path)
    loaded = Engine.load(tmp_path / "engine", MeanColor())
    assert loaded.gallery.groups.tolist() == [3, -1]
    assert loaded.gallery.labels.tolist() == [0, -1]
    assert (loaded.query(folder / "warm" / "red.png", k=1)[0].read() == RED).all()
    with pytest.raises(ValueError, match="without a root"):
        Engine.load(tmp_path / "engine", MeanColor(), root=folder)


def test_images_may_move_until_one_is_read(engine, folder, tmp_path):
    engine.save(tmp_path / "engine")
    moved = folder.rename(tmp_path / "moved")
    query = moved / "warm" / "red.png"
    results = Engine.load(tmp_path / "engine", MeanColor()).query(query, k=2)
    assert names(results) == ["red", "orange"]
    with pytest.raises(UnreadableImage, match="red.png does not exist"):
        results[0].read()
    found = Engine.load(tmp_path / "engine", MeanColor(), root=moved).query(query, k=1)[0]
    assert found.path == query and (found.read() == RED).all()


def test_another_extractor_is_refused(engine, tmp_path):
    folder = engine.save(tmp_path / "engine")
    with pytest.raises(EngineFolderError, match="made by mean-color-1.0, this extractor is mean-color-2.0"):
        Engine.load(folder, MeanColor(scale=2.0))


def test_an_extractor_that_has_no_name_to_open_must_be_given(engine, tmp_path):
    with pytest.raises(EngineFolderError, match="'mean-color'.*Give it: Engine.load"):
        Engine.load(engine.save(tmp_path / "engine"))


def test_saving_again_replaces_everything(engine, gallery, tmp_path):
    folder = engine.save(tmp_path / "engine")
    for left in ("vectors-0000.index", ".vectors-0000.index.1234.part"):
        (folder / left).write_bytes(b"left by a save that was killed")
    before = manifest_of(folder)
    engine.fit(gallery.subset([0, 1])).save(folder)
    assert manifest_of(folder).snapshot_id != before.snapshot_id
    assert names_in(folder) == [".lock", "engine.sqlite", manifest_of(folder).index_file]
    assert len(Engine.load(folder, MeanColor())) == 2


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("interrupt", [False, True])
@pytest.mark.parametrize("what", ["first save", "save", "compaction"])
def test_what_breaks_off_at_any_step_leaves_the_old_engine_or_the_new(
    engine, gallery, tmp_path, monkeypatch, what, interrupt
):
    """An error or an interrupt at each rename of a file, each statement and each commit."""
    kept = tmp_path / "kept"
    if what != "first save":
        engine.save(kept)
        with LiveEngine.open(kept, MeanColor()) as live:
            live.add_extracted([tmp_path / "new.png"], np.float32([[1, 2, 3]]), ["new"])
            live.remove([0])
    small, old, new = Engine(MeanColor()).fit(gallery.subset([0])), [1, 2, 3, 4, 5], [0]
    before = manifest_of(kept) if kept.exists() else None
    outcomes = []
    for step in range(1, 100):
        folder = tmp_path / str(step)
        if kept.exists():
            shutil.copytree(kept, folder)
        failing = Failing(monkeypatch, step, interrupt)
        try:
            compact(folder) if what == "compaction" else small.save(folder)
            outcomes.append("done")
        except (IndexFileError, Interrupted):
            outcomes.append("failed")
        finally:
            failing.undo()
        if what == "first save" and not is_engine(folder):
            assert outcomes[-1] == "failed" and not list(folder.glob("*vectors*"))
            continue
        loaded = Engine.load(folder, MeanColor())
        if what == "compaction":
            assert loaded.index.ids.tolist() == old and loaded.table.class_name(5) == "new"
        else:
            assert loaded.index.ids.tolist() == (new if manifest_of(folder) != before else old)
        if manifest_of(folder) == before:
            assert outcomes[-1] == "failed" and names_in(folder) == names_in(kept)
        if failing.calls < step:
            break
    assert outcomes[-1] == "done" and outcomes.count("failed") > 10


class Interrupted(BaseException):
    """As Ctrl-C."""


class Failing:
    """Raises an error at the nth rename of a file or statement of SQLite."""

    def __init__(self, monkeypatch, step, interrupt):
        self.calls, self._step, self._interrupt = 0, step, interrupt
        self._context = monkeypatch.context()
        patch = self._context.__enter__()
        rename, connect, count = Path.replace, sqlite3.connect, self._count

        def replace(path, target):
            count(OSError(28, "No space left on device"))
            return rename(path, target)

        class Connection(sqlite3.Connection):
            def execute(self, sql, *values):
                if sql != "rollback":
                    count(sqlite3.OperationalError("database or disk is full"))
                return super().execute(sql, *values)

            def executemany(self, *values):
                count(sqlite3.OperationalError("database or disk is full"))
                return super().executemany(*values)

        def connect_failing(*values, **named):
            return connect(*values, **named, factory=Connection)

        patch.setattr(Path, "replace", replace)
        patch.setattr(sqlite3, "connect", connect_failing)

    def _count(self, error):
        self.calls += 1
        if self.calls == self._step:
            if not self._interrupt:
                error.sqlite_errorcode = sqlite3.SQLITE_FULL
            raise Interrupted if self._interrupt else error

    def undo(self):
        self._context.__exit__(None, None, None)


def test_a_killed_save_leaves_the_old_engine(engine, tmp_path):
    """What a kill leaves behind is a new index file that no manifest names."""
    folder = engine.save(tmp_path / "engine")
    file = next(folder.glob("vectors-*"))
    shutil.copy(file, file.with_name("vectors-f00.index"))
    assert len(Engine.load(folder, MeanColor())) == 5


def test_a_first_save_that_was_killed_is_no_engine(engine, tmp_path):
    folder = engine.save(tmp_path / "engine")
    with EngineFile(folder) as file, file.writing() as connection:
        connection.execute("delete from manifest")
    assert not is_engine(folder)
    with pytest.raises(EngineFolderError, match="saving it was interrupted"):
        Engine.load(folder, MeanColor())
    assert len(Engine.load(engine.save(folder), MeanColor())) == 5


def test_an_engine_of_the_old_format_is_named_and_can_be_replaced(engine, tmp_path):
    folder = tmp_path / "engine"
    folder.mkdir()
    for name in ("engine.json", "images-1.json", "vectors-1.index", "changes.sqlite", "changes.sqlite-wal"):
        (folder / name).write_bytes(b"{}")
    assert is_engine(folder)
    with pytest.raises(
        EngineFolderError, match=r"engine holds an engine of an older format.*`lookalike index FOLDER -o OTHER`"
    ):
        Engine.load(folder, MeanColor())
    engine.save(folder)
    assert names_in(folder) == [".lock", "engine.sqlite", manifest_of(folder).index_file]


def test_a_folder_of_something_else_is_left_alone(engine, folder):
    with pytest.raises(FileExistsError, match="not an engine"):
        engine.save(folder)
    assert sorted(path.name for path in folder.iterdir()) == ["cold", "gray.png", "warm"]


def test_a_missing_file_is_named(engine, tmp_path):
    with pytest.raises(EngineFolderError, match="engine.sqlite is missing"):
        Engine.load(tmp_path / "nowhere", MeanColor())
    folder = engine.save(tmp_path / "engine")
    file = next(folder.glob("vectors-*.index"))
    file.unlink()
    with pytest.raises(EngineFolderError, match=f"{file.name} is missing"):
        Engine.load(folder, MeanColor())


def test_damage_is_noticed_in_each_file(engine, tmp_path):
    folder = engine.save(tmp_path / "engine")
    database, index = folder / "engine.sqlite", next(folder.glob("vectors-*.index"))
    for file, position in ((index, -3), (database, 3), (database, database.read_bytes().index(b"cold/green.png"))):
        content = file.read_bytes()
        broken = bytearray(content)
        broken[position] ^= 1
        file.write_bytes(broken)
        with pytest.raises(IndexFileError, match=f"{file.name}.*(damaged|cannot be used)"):
            Engine.load(folder, MeanColor())
        file.write_bytes(content)
    assert len(Engine.load(folder, MeanColor())) == 5


def test_another_version_is_refused(engine, tmp_path):
    folder = engine.save(tmp_path / "engine")
    with EngineFile(folder) as file, file.writing() as connection:
        connection.execute("pragma user_version = 77")
    for use in (lambda: Engine.load(folder, MeanColor()), lambda: engine.save(folder)):
        with pytest.raises(EngineFolderError, match="format 77"):
            use()
    assert len(names_in(folder)) == 3


def test_files_of_two_saves_are_not_mixed(engine, gallery, tmp_path):
    first, second = engine.save(tmp_path / "a"), engine.fit(gallery.subset([0, 1])).save(tmp_path / "b")
    shutil.copy(next(first.glob("vectors-*")), next(second.glob("vectors-*")))
    with pytest.raises(EngineFolderError, match="of another save"):
        Engine.load(second, MeanColor())


def test_a_readable_gallery_gives_no_warning(gallery):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Engine(MeanColor()).fit(gallery).query(gallery.paths[0])


# ---- changes -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("index", ["exact:euclidean", "faiss:hnsw?metric=euclidean", "annoy:euclidean"])
def test_images_are_added_and_removed(index, gallery, tmp_path):
    if index.startswith("annoy"):
        pytest.importorskip("annoy", reason="NOT TESTED: Annoy is not installed (requirements-compiled.txt)")
    engine = Engine(MeanColor(), index).fit(gallery)
    save_image(tmp_path / "more" / "warm" / "yellow.png", (250, 250, 0))
    save_image(tmp_path / "more" / "dark" / "black.png", (0, 0, 0))
    (tmp_path / "more" / "dark" / "broken.png").write_bytes(b"no image")
    with pytest.warns(UnreadableImageWarning, match="broken"):
        assert engine.add(from_folder(tmp_path / "more")).new_ids.tolist() == [5, 6]
    assert [(a.id, a.class_name, a.label) for a in engine.query_id(6, 1)] == [(3, "warm", 1)]
    assert engine.gallery.class_names == ("cold", "warm", "dark")
    engine.remove([0, 3])
    with pytest.raises(KeyError, match="id 3"):
        engine.remove([1, 3])
    assert len(engine) == 5 and engine.skipped.tolist() == [0, 3]
    black = engine.query(np.zeros((4, 4, 3), np.uint8), 9)
    assert names(black)[0] == "black" and {"blue", "orange"}.isdisjoint(names(black)) and "holds 5" in black.note
    loaded = Engine.load(engine.save(tmp_path / "engine"), MeanColor())
    assert loaded.index.spec == index and loaded.index.ids.tolist() == [1, 2, 4, 5, 6]
    assert names(loaded.query(np.zeros((4, 4, 3), np.uint8), 9)) == names(black)


def test_a_vector_finds_what_its_image_finds(engine, gallery):
    image = read_image(gallery.paths[3])
    by_image = engine.query(image, 3, exclude=[3])
    for results in (engine.query_vector(engine.extractor.extract_arrays([image])[0], 3, [3]), engine.query_id(3, 3)):
        assert results.results == by_image.results
    with pytest.raises(ValueError, match="below 5"):
        engine.results(Ranking([[5]], [[1.0]]))
