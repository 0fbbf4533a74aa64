"""Index, add and sync keep an engine equal to the files, whatever happens to these."""

import contextlib
import io
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule
from PIL import Image

from helpers.cli import main as cli
from helpers.images.folders import from_folder
from helpers.images.reading import read_image
from helpers.search.engine import Engine
from helpers.search.identity import Outcome
from helpers.search.persist.live import LiveEngine
from helpers.search.persist.sync import sync

EXTRACTOR = "hsv-histogram"


def png(color):
    written = io.BytesIO()
    Image.new("RGB", (6, 4), color).save(written, "PNG")
    return written.getvalue()


#: Contents of files; the last two cannot be read.
CONTENTS = [png(color) for color in ((250, 0, 0), (0, 250, 0), (0, 0, 250), (250, 250, 0), (0, 250, 250))]
CONTENTS += [b"no image", b""]
READABLE = dict(enumerate(CONTENTS[:5]))

IN_ROOT = ["photos/a/1.png", "photos/a/2.png", "photos/b/1.png", "photos/3.png"]
ELSEWHERE = ["new/a/1.png", "new/5.png"]


class FilesAndEngine(RuleBasedStateMachine):
    """Files change, and commands run; after each command the engine is compared with the files."""

    @initialize()
    def start(self):
        self.folder = Path(tempfile.mkdtemp())
        self.patch = pytest.MonkeyPatch()
        self.patch.setenv("LOOKALIKE_CACHE", str(self.folder / "cache"))
        self.patch.chdir(self.folder)
        self.write("photos/a/1.png", 0)
        #: The paths that were added from elsewhere, and are in the engine.
        self.added = set()
        self.index([])

    def teardown(self):
        if hasattr(self, "patch"):
            self.patch.undo()
            shutil.rmtree(self.folder)

    # ---- what people do with files

    @rule(name=st.sampled_from(IN_ROOT + ELSEWHERE), content=st.integers(0, len(CONTENTS) - 1))
    def write(self, name, content):
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(CONTENTS[content])

    @rule(name=st.sampled_from(IN_ROOT + ELSEWHERE))
    def delete(self, name):
        (self.folder / name).unlink(missing_ok=True)

    @rule(old=st.sampled_from(IN_ROOT + ELSEWHERE), new=st.sampled_from(IN_ROOT + ELSEWHERE))
    def rename_or_copy(self, old, new):
        if (self.folder / old).exists():
            (self.folder / new).parent.mkdir(parents=True, exist_ok=True)
            (shutil.copy if old < new else shutil.move)(self.folder / old, self.folder / new)

    # ---- commands

    @rule(options=st.sampled_from([[], [], ["-b", "exact:euclidean"], ["--force"]]))
    def index(self, options):
        if self.readable("photos"):
            gone = {name for name in self.added if not (self.folder / name).exists()}
            before = self.paths() if Path("my.engine").exists() else set()
            code = self.run("index", "photos", "-x", EXTRACTOR, *options)
            # An engine that is made again needs the files of all images.
            assert code == (3 if self.paths() == before and code else 0)
            if code:
                assert gone or options == ["-b", "exact:euclidean"] or any(map(self.is_emptied, before))
                return
            if "--force" in options:
                self.added -= gone
            self.compare(self.readable("photos"))

    @rule()
    def sync(self):
        if self.listed("photos"):
            with LiveEngine.open("my.engine") as live:
                before = len(live)
                done = sync(live, from_folder("photos"))
                assert len(done.additions.outcomes) == len(self.listed("photos"))
                assert len(live) == before + done.additions.count(Outcome.NEW, Outcome.COPY) - len(
                    done.others.gone
                ) - done.additions.count(Outcome.DAMAGED)
                assert len(done.others.elsewhere) == len(self.added) and not len(done.others.unlisted)
            self.compare(self.readable("photos"))

    @rule(name=st.sampled_from([*ELSEWHERE, *IN_ROOT, "new"]))
    def add(self, name):
        names = self.listed(name) if name == "new" else {name} if (self.folder / name).exists() else set()
        if names:
            self.run("add", "-e", "my.engine", name)
            held = self.paths()
            readable = self.readable(name) if name == "new" else names & self.readable(str(Path(name).parent))
            assert names & held == readable
            self.added = {each for each in held if each in ELSEWHERE}
            self.compare_vectors(readable)

    @rule(name=st.sampled_from(IN_ROOT + ELSEWHERE))
    def remove(self, name):
        held = self.paths()
        assert self.run("remove", "-e", "my.engine", name) == (0 if name in held else 3)
        assert self.paths() == held - {name}
        self.added.discard(name)

    @rule()
    def compact(self):
        assert self.run("compact", "-e", "my.engine") == 0

    # ---- comparisons

    def run(self, *arguments):
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            return cli.main(list(arguments))

    def listed(self, name):
        return {each for each in IN_ROOT + ELSEWHERE if each.startswith(name) and (self.folder / each).exists()}

    def readable(self, name):
        return {each for each in self.listed(name) if (self.folder / each).read_bytes() in READABLE.values()}

    def is_emptied(self, name):
        """Whether an image is gone and its folder is empty now, as if a drive were not mounted."""
        path = self.folder / name
        place = next(one for one in path.parents if one.exists())
        return not path.exists() and not any(place.iterdir())

    def paths(self):
        """Names of the images in the engine; one path has one image."""
        engine = Engine.load("my.engine")
        names = [engine.table.path(id).relative_to(self.folder.resolve()).as_posix() for id in engine.index.ids]
        assert len(names) == len(set(names))
        return set(names)

    def compare(self, in_root):
        """After index and sync: the engine holds the readable files of the folder, and what was added."""
        assert self.paths() == in_root | self.added
        self.compare_vectors(in_root)
        engine = Engine.load("my.engine")
        for name in in_root:
            first = engine.query(self.folder / name, k=1)[0]
            assert (first.read() == read_image(self.folder / name)).all()
            classes = {each.split("/")[1] if each.count("/") > 1 else "–" for each in in_root}
            # A copy that was added by its name has no class.
            assert first.class_name in classes | {"a"} | ({"–"} if self.added else set())

    def compare_vectors(self, names):
        engine = Engine.load("my.engine")
        for name in names:
            path = (self.folder / name).resolve()
            (id,) = [id for id in engine.table.ids_at(path) if engine.index.contains(np.array([id]))[0]]
            expected = engine.extractor.extract_arrays([read_image(path)])
            np.testing.assert_allclose(engine.index.vectors([id]), expected, atol=1e-6)


# Shrinking a failure would take minutes, because each command opens and flushes files.
FilesAndEngine.TestCase.settings = settings(
    max_examples=15, stateful_step_count=12, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate]
)


@pytest.mark.filterwarnings("ignore::helpers.images.reading.UnreadableImageWarning")
class TestFilesAndEngine(FilesAndEngine.TestCase):
    """Takes over 5 seconds, as each step is flushed to the disk."""
