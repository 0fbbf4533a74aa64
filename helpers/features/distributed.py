"""Images described by many processes or computers with Ray Data; the vectors are those of `FeatureExtractor.extract`.

Workers read images and compute vectors, a batch at a time. This process alone writes them to the vector store, each
batch when it arrives: SQLite is not safe on the file systems that computers share, and what one process has written no
worker can lose. So a worker that is killed costs the batches it was given, which Ray gives out again, and when this
process is killed, the next call computes only the rest.

Every worker must see the images under the same paths: on several computers they lie on a shared file system, and
this package and the networks' weights are installed on each.

https://docs.ray.io/en/latest/data/data.html
"""

import copy
import logging
import os
import pickle
import shutil
import signal
import tempfile
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path

import numpy as np

from helpers import extras
from helpers.features.extractor import FeatureExtractor
from helpers.features.registry import open_extractor
from helpers.images import reading
from helpers.images.imageset import ImageSet

#: How often a batch is given out again after its worker died.
RETRIES = 3

#: Bytes for what is on its way between processes; batches wait while it is full. Ray's least is 75 MB.
OBJECT_STORE = 200_000_000

#: A session's sockets lie this deep below Ray's folder, and the path of a socket is at most 103 bytes on macOS.
LONGEST_FOLDER = 103 - len("/ray-01234567/session_2000-01-01_00-00-00_000000_0123456/sockets/plasma_store")

#: One worker is one CPU.
ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "OPENCV_FOR_THREADS_NUM": "1",
    "TF_NUM_INTRAOP_THREADS": "1",
    "TF_NUM_INTEROP_THREADS": "1",
    "LOKY_MAX_CPU_COUNT": "1",
}


class WorkersDied(RuntimeError):
    """Workers died again and again over the same images; the message says how much is stored."""


def extract(
    extractor: str | FeatureExtractor,
    images: ImageSet,
    *,
    workers: int = 2,
    address: str | None = None,
    settings: dict | None = None,
    strict: bool = False,
    progress: bool = True,
) -> np.ndarray:
    """float32 (n, dim): what ``extractor.extract(images)`` gives, computed by several worker processes.

    The store is the same too: what is there is not computed, and when nothing is missing, Ray isn't started. Copies of
    one content are computed once. ``extractor.images_per_second`` stays what it was: it is the rate of one process.

    >>> vectors = describe("resnet50", images, workers=4)
    >>> vectors = describe("resnet50", images, workers=40, address="auto")

    Parameters
    ----------
    extractor : a name that `helpers.features.registry.open_extractor` opens, such as "hog+hsv-histogram"; every worker
        opens it by itself. Or any extractor that can be pickled; it is sent to the workers.
    workers : processes, each with one CPU.
    address : of a running Ray cluster, such as ``"auto"`` or ``"192.168.0.1:6379"``. Without one, Ray is started on
        this computer and stopped again. Where this process is connected to Ray already, that connection is used as it
        is, its limits of threads included; see `cluster`.
    settings : of the extractor, where a name is given.
    strict, progress : as for `FeatureExtractor.extract`.

    Raises
    ------
    UnreadableImage : an image can't be read, and ``strict`` is set.
    WorkersDied : a batch was given out ``1 + RETRIES`` times, and each time its worker died.
    RuntimeError : a worker opens another extractor by that name, or can't read what this process can.
    TypeError : the extractor can't be pickled, or settings were given with one that is open already.
    ConnectionError : there is no cluster at that address.

    What an extractor raises in a worker is raised here.
    """
    if workers < 1:
        raise ValueError(f"workers must be at least 1, got {workers}")
    if isinstance(extractor, str):
        opened = open_extractor(extractor, **(settings or {}))
        recipe = partial(open_extractor, extractor, **(settings or {}))
    elif settings is not None:
        raise TypeError(f"settings go with a name; {extractor.name} is open already")
    else:
        opened, recipe = extractor, partial(copy.copy, extractor)
    with ExitStack() as stack:
        run = _Run(recipe, workers, address, stack)
        return _spread(opened, run).extract(images, strict=strict, progress=progress)


@contextmanager
def cluster(workers: int = 2, address: str | None = None) -> Iterator[None]:
    """Ray, for several calls of `extract` one after the other; started, or connected to, and left again.

    Parameters
    ----------
    workers : CPUs of the cluster that is started on this computer, whatever it has.
    address : see `extract`.
    """
    with extras.importing("ray"):
        import ray
        import ray.data

    if ray.is_initialized():
        yield
        return
    how = {"log_to_driver": False, "logging_level": logging.ERROR, "runtime_env": {"env_vars": ONE_THREAD}}
    # Ray takes SIGTERM for itself, so that a cluster goes down with its driver; afterwards it is given back.
    handler = signal.getsignal(signal.SIGTERM)
    folder = None if address else tempfile.mkdtemp(prefix="ray-", dir=_folder())
    try:
        if address:
            ray.init(address, **how)
        else:
            # Ray itself turns its usage statistics off in a cluster that a program starts.
            ray.init(
                "local",
                num_cpus=workers,
                object_store_memory=OBJECT_STORE,
                include_dashboard=False,
                _temp_dir=folder,
                **how,
            )
        yield
    finally:
        ray.shutdown(wait_for_processes=True)
        if handler is not None and signal.getsignal(signal.SIGTERM) != handler:
            signal.signal(signal.SIGTERM, handler)
        if folder:
            shutil.rmtree(folder, ignore_errors=True)


def _folder() -> str:
    """Where a local cluster keeps its sockets and logs: the temporary folder, unless sockets can't have such paths."""
    usual = tempfile.gettempdir()
    return usual if len(os.fsencode(usual)) <= LONGEST_FOLDER else "/tmp"


def _spread(extractor: FeatureExtractor, run: "_Run", way: tuple[str | int, ...] = ()) -> FeatureExtractor:
    """A copy that computes by ``run``; so do the extractors that it is made of, found by ``way`` from the first one."""
    spread = copy.copy(extractor)
    spread.iter_batches = partial(run, extractor, way)
    for name, value in vars(extractor).items():
        if isinstance(value, FeatureExtractor):
            setattr(spread, name, _spread(value, run, (*way, name)))
        elif isinstance(value, list) and value and isinstance(value[0], FeatureExtractor):
            setattr(spread, name, [_spread(part, run, (*way, name, i)) for i, part in enumerate(value)])
    return spread


class _Run:
    """One call of `extract`, in place of `FeatureExtractor.iter_batches`. It starts Ray for the first missing image."""

    def __init__(self, recipe, workers: int, address: str | None, stack: ExitStack):
        self._recipe = recipe
        self._workers = workers
        self._address = address
        self._stack = stack
        self._connected = False

    def __call__(
        self,
        extractor: FeatureExtractor,
        way: tuple[str | int, ...],
        files: Sequence[Path],
        *,
        strict: bool,
        failures: list,
    ):
        """See `FeatureExtractor.iter_batches`; batches come in the order in which they are finished."""
        recipe = self._sent(extractor.name)
        if not self._connected:
            self._stack.enter_context(cluster(self._workers, self._address))
            self._connected = True
        unread: dict[int, reading.UnreadableImage] = {}
        done = 0
        with closing(self._results(extractor, recipe, way, files)) as results:
            while True:
                try:
                    rows, vectors, problems, error = next(results)
                except StopIteration:
                    break
                except _ray_error() as lost:
                    raise self._given_up(f"Ray gave up ({str(lost).splitlines()[0]})", done, files) from lost
                if len(rows):
                    yield rows, vectors
                done += len(rows)
                for row, problem in problems.items():
                    self._check_missing(files[row], problem)
                    if strict:
                        raise problem
                unread |= problems
                if isinstance(error, WorkersDied):
                    raise self._given_up(str(error), done, files)
                if error is not None:
                    raise error
        failures += [unread[row] for row in sorted(unread)]

    def _sent(self, name: str) -> bytes:
        """The recipe, pickled."""
        from ray import cloudpickle

        try:
            return cloudpickle.dumps(self._recipe)
        except Exception as error:
            raise TypeError(
                f"{name} can't be sent to other processes ({error}). Give its name and settings, or an extractor that "
                "has not computed anything yet."
            ) from error

    def _results(self, extractor: FeatureExtractor, recipe: bytes, way: tuple[str | int, ...], files: Sequence[Path]):
        """What `_Worker` answers, batch by batch."""
        import ray.data

        # A block is a task, and what a task gives is passed on when it ends.
        blocks = -(-len(files) // extractor.batch_size)
        context = ray.data.DataContext.get_current().copy()
        context.enable_progress_bars = context.print_on_execution_start = False
        # Ray restarts a worker that died, and gives out its batches again, without end.
        attempts = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(_Attempts).remote()
        with _quiet("ray.data"), ray.data.DataContext.current(context):
            results = ray.data.from_items(
                # As bytes: a file's name need not be text.
                [{"row": row, "file": os.fsencode(file)} for row, file in enumerate(files)],
                override_num_blocks=blocks,
            ).map_batches(
                _Worker,
                fn_constructor_args=(recipe, way, extractor.fingerprint, attempts, 1 + RETRIES),
                batch_size=None,
                compute=ray.data.ActorPoolStrategy(size=min(self._workers, blocks)),
                num_cpus=1,
            )
            # Looking ahead would hold back a batch that is finished until the next one is.
            for result in results.iter_batches(batch_size=None, prefetch_batches=0):
                yield from map(pickle.loads, result["answer"])

    @staticmethod
    def _given_up(reason: str, done: int, files: Sequence[Path]) -> WorkersDied:
        return WorkersDied(
            f"{reason}. {done} of the {len(files)} images that were missing have been computed and are stored; a new "
            "call computes only the rest."
        )

    @staticmethod
    def _check_missing(file: Path, problem: reading.UnreadableImage) -> None:
        """What a worker can't read this process can't read either, or they don't see the same files."""
        try:
            reading.read_image(file)
        except reading.UnreadableImage:
            return
        raise RuntimeError(
            f"a worker could not read what this process can: {problem} Every worker must see the images under the "
            "same paths; with several computers, put them on a shared file system."
        )


class _Attempts:
    """Lives in a process of its own and outlives the workers: how often each batch was begun, by its first row."""

    def __init__(self):
        self._begun = Counter()

    def begin(self, row: int) -> int:
        self._begun[row] += 1
        return self._begun[row]


class _Worker:
    """Lives in a process of its own, opens the extractor once, and answers one batch after the other.

    Errors are part of the answer: Ray would wrap them, and take an error while opening for a death to be retried.
    """

    def __init__(self, recipe: bytes, way: tuple[str | int, ...], fingerprint: str, attempts, most: int):
        self._told = recipe, way, fingerprint
        self._attempts = attempts
        self._most = most
        self._extractor = None

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, list[bytes]]:
        """Columns ``row`` and ``file`` → one pickled (rows, vectors, problems by row, error)."""
        rows, vectors, problems, error = batch["row"][:0], None, {}, None
        try:
            rows, vectors, problems = self._computed(batch["row"], [os.fsdecode(file) for file in batch["file"]])
        except Exception as raised:
            error = _portable(raised)
        return {"answer": [pickle.dumps((rows, vectors, problems, error))]}

    def _computed(self, rows: np.ndarray, files: list[str]):
        import ray

        if ray.get(self._attempts.begin.remote(int(rows[0]))) > self._most:
            raise WorkersDied(
                f"workers died {self._most} times over one batch, {files[0]} … {files[-1]}: one of these images "
                "kills them, or memory is short and fewer workers are needed"
            )
        if self._extractor is None:
            self._extractor = self._open()
        extractor, failures, good = self._extractor, [], np.array([], np.int64)
        vectors = np.empty((0, extractor.dim), np.float32)
        # All files are one batch, or none where not one of them can be read.
        size, rule = extractor.size, extractor.resize_rule
        for good, pixels in reading.batches(files, size, rule, len(files), workers=1, failures=failures):  # noqa: B007
            vectors = extractor.embed(pixels)
        # Those left out are in order.
        return rows[good], vectors, dict(zip(np.delete(rows, good).tolist(), failures, strict=True))

    def _open(self) -> FeatureExtractor:
        recipe, way, fingerprint = self._told
        with _one_cpu():
            extractor = pickle.loads(recipe)()
            for step in way:
                extractor = getattr(extractor, step) if isinstance(step, str) else extractor[step]
            if extractor.fingerprint != fingerprint:
                raise RuntimeError(
                    f"a worker opened {extractor.fingerprint} where {fingerprint} was asked for: install the same "
                    "version of this package and the same weights on every computer."
                )
            extractor.prepare()
        return extractor


def _portable(error: Exception) -> Exception:
    """The error if it survives being pickled, or its text; with where in the worker it was raised."""
    where = "".join(traceback.format_exception(error))
    try:
        error = pickle.loads(pickle.dumps(error))
    except Exception:
        error = RuntimeError(f"{type(error).__name__}: {error}")
    error.add_note(f"It was raised in a worker:\n{where}")
    return error


def _ray_error() -> type[Exception]:
    import ray.exceptions

    return ray.exceptions.RayError


@contextmanager
def _quiet(name: str) -> Iterator[None]:
    """Its logger says nothing; what goes wrong is raised."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(level)


@contextmanager
def _one_cpu() -> Iterator[None]:
    """Libraries that count the CPUs when they start, as OpenVINO does, count one; the threads may run on any later."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        yield
    finally:
        for thread in Path("/proc/self/task").iterdir():
            os.sched_setaffinity(int(thread.name), allowed)
