"""Feature extraction by several processes or computers with Ray Data, equal to `FeatureExtractor.extract`.

Workers read images and compute vectors in batches. Only the calling process writes to the vector store, because SQLite
is not safe on shared file systems. If a worker is killed, Ray repeats its batch; if the calling process is killed, the
next call computes only what is missing.

Every worker must see the images under the same paths. With several computers, use a shared file system, and install
this package and the networks' weights on each of them.

https://docs.ray.io/en/latest/data/data.html
"""

import copy
import os
import pickle
import traceback
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from helpers import extras, logs
from helpers.features.extractor import FeatureExtractor
from helpers.features.registry import open_extractor
from helpers.images import reading
from helpers.images.imageset import ImageSet
from helpers.networks.ray_cluster import cluster

#: Number of times that a batch is repeated after its worker died.
RETRIES = 3


class WorkersDied(RuntimeError):
    """Workers died repeatedly in the same batch; the message says how much is stored."""


def extract(
    extractor: str | FeatureExtractor, images: ImageSet, *, workers: int = 2, address: str | None = None,
    settings: dict | None = None, strict: bool = False, progress: bool = True,
) -> np.ndarray:  # fmt: skip
    """Extract the vectors of a set of images by several worker processes: float32 (n, dim).

    The result and the store are those of ``extractor.extract(images)``. Ray is started only if vectors are missing.
    ``extractor.images_per_second`` does not change: it is the rate of one process.

    >>> vectors = extract("resnet50", images, workers=40, address="auto")

    Parameters
    ----------
    extractor : a name for `helpers.features.registry.open_extractor`, which every worker opens, or an extractor, which
        is pickled and sent to the workers.
    workers : number of processes, each with one CPU.
    address : of a running Ray cluster, such as ``"auto"`` or ``"192.168.0.1:6379"``. By default, the existing
        connection of this process is used unchanged, or else Ray is started on this computer; see `cluster`.
    settings : of the extractor, if a name is given.
    strict, progress : see `FeatureExtractor.extract`.

    Raises
    ------
    UnreadableImage : ``strict`` is set, and an image cannot be read.
    WorkersDied : the workers died in each of the ``1 + RETRIES`` attempts at a batch.
    RuntimeError : a worker opens an extractor with another fingerprint, or cannot read an image that this process can.
    ConnectionError : there is no cluster at the address.

    Errors of the extractor in a worker are raised in this process.
    """
    if workers < 1:
        raise ValueError(f"workers must be at least 1, got {workers}")
    if isinstance(extractor, str):
        factory = partial(open_extractor, extractor, **(settings or {}))
        opened = factory()
    elif settings is not None:
        raise TypeError(f"settings need the name of an extractor; {extractor.name} is already open")
    else:
        opened, factory = extractor, partial(copy.copy, extractor)
    with ExitStack() as stack:
        run = _Run(factory, workers, address, stack)
        return _distributed(opened, run).extract(images, strict=strict, progress=progress)


def _distributed(extractor: FeatureExtractor, run: "_Run", path: tuple[str | int, ...] = ()) -> FeatureExtractor:
    """A copy whose ``iter_batches`` is ``run``, also in the extractors inside it.

    path : attributes and positions that lead to the extractor from the outermost one.
    """
    changed = copy.copy(extractor)
    vars(changed)["iter_batches"] = partial(run, extractor, path)
    for name, value in vars(extractor).items():
        if isinstance(value, FeatureExtractor):
            setattr(changed, name, _distributed(value, run, (*path, name)))
        elif isinstance(value, list) and value and isinstance(value[0], FeatureExtractor):
            setattr(changed, name, [_distributed(part, run, (*path, name, i)) for i, part in enumerate(value)])
    return changed


class _Run:
    """One call of `extract`, which replaces `FeatureExtractor.iter_batches` and starts Ray for the first batch."""

    def __init__(self, factory: Callable[[], FeatureExtractor], workers: int, address: str | None, stack: ExitStack):
        self._factory, self._workers, self._address = factory, workers, address
        self._stack = stack
        self._attempts: Any = None

    def __call__(
        self, extractor: FeatureExtractor, path: tuple[str | int, ...], files: Sequence[Path], *, strict: bool,
        failures: list[reading.UnreadableImage],
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:  # fmt: skip
        """See `FeatureExtractor.iter_batches`; batches are in the order in which they are completed."""
        factory = self._pickled(extractor.name)
        if self._attempts is None:
            self._stack.enter_context(cluster(self._workers, self._address))
            import ray

            # One process for all parts of an extractor, because its start takes a second.
            self._attempts = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(_Attempts).remote()
        unreadable: dict[int, reading.UnreadableImage] = {}
        done = 0
        with closing(self._results(extractor, factory, path, files)) as results:
            try:
                for rows, vectors, problems, error in results:
                    if len(rows):
                        yield rows, vectors
                    done += len(rows)
                    for row, problem in problems.items():
                        self._check_unreadable(files[row], problem)
                        if strict:
                            raise problem
                    unreadable |= problems
                    if error is not None:
                        raise error
            except WorkersDied as died:
                raise WorkersDied(
                    f"{died}. {done} of the {len(files)} missing images have been computed and are stored; a new call "
                    "computes only the rest."
                ) from died.__cause__
        failures += [unreadable[row] for row in sorted(unreadable)]

    def _pickled(self, name: str) -> bytes:
        with extras.importing("ray"):
            from ray import cloudpickle

        try:
            return cloudpickle.dumps(self._factory)
        except Exception as error:
            raise TypeError(
                f"{name} can't be sent to other processes ({error}). Give its name and settings, or an extractor that "
                "has not computed anything yet."
            ) from error

    def _results(
        self, extractor: FeatureExtractor, factory: bytes, path: tuple[str | int, ...], files: Sequence[Path]
    ) -> Generator[tuple]:
        """Yield the results of `_Worker`, batch by batch."""
        import ray.data
        import ray.exceptions

        # One block per batch: Ray passes results on when their block is done.
        blocks = -(-len(files) // extractor.batch_size)
        context = ray.data.DataContext.get_current().copy()
        context.enable_progress_bars = context.print_on_execution_start = False
        with logs.silent("ray.data"), ray.data.DataContext.current(context):
            batches = ray.data.from_items(
                # As bytes, because a file's name may not be valid text.
                [{"row": row, "file": os.fsencode(file)} for row, file in enumerate(files)],
                override_num_blocks=blocks,
            ).map_batches(
                _Worker,
                fn_constructor_args=(factory, path, extractor.fingerprint, self._attempts, 1 + RETRIES),
                batch_size=None,
                compute=ray.data.ActorPoolStrategy(size=min(self._workers, blocks)),
                num_cpus=1,
            )
            try:
                # Prefetching would hold back a completed batch until the next one.
                for batch in batches.iter_batches(batch_size=None, prefetch_batches=0):
                    yield from map(pickle.loads, batch["result"])
            except ray.exceptions.RayError as lost:
                raise WorkersDied(f"Ray stopped ({_first_line(lost)})") from lost

    @staticmethod
    def _check_unreadable(file: Path, problem: reading.UnreadableImage) -> None:
        """Raise a RuntimeError if this process can read the file: then workers do not see the same files."""
        try:
            reading.read_image(file)
        except reading.UnreadableImage:
            return
        raise RuntimeError(
            f"a worker could not read an image that this process can read: {problem} Every worker must see the images "
            "under the same paths. With several computers, put the images on a shared file system."
        )


class _Attempts(Counter[tuple]):
    """Counts the attempts at each batch, in a process of its own that outlives the workers.

    Ray repeats the batches of a dead worker without limit. A batch is known by its part of the extractor, as a path,
    and its first row.
    """

    def begin(self, path: tuple[str | int, ...], row: int) -> int:
        self[path, row] += 1
        return self[path, row]


class _Worker:
    """Process that opens the extractor once and computes one batch after the other.

    Errors are part of the result: Ray would wrap them, and would retry after an error in the constructor.
    """

    def __init__(self, factory: bytes, path: tuple[str | int, ...], fingerprint: str, attempts: Any, max_attempts: int):
        self._source = factory, path, fingerprint
        self._attempts, self._max_attempts = attempts, max_attempts
        self._extractor: FeatureExtractor | None = None

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, list[bytes]]:
        """Columns ``row`` and ``file`` → one pickled (rows, vectors, problems by row, error)."""
        result: tuple
        try:
            result = *self._compute(batch["row"], [os.fsdecode(file) for file in batch["file"]]), None
        except Exception as error:
            result = batch["row"][:0], None, {}, _portable(error)
        return {"result": [pickle.dumps(result)]}

    def _compute(
        self, rows: np.ndarray, files: list[str]
    ) -> tuple[np.ndarray, np.ndarray, dict[int, reading.UnreadableImage]]:
        import ray

        if ray.get(self._attempts.begin.remote(self._source[1], int(rows[0]))) > self._max_attempts:
            raise WorkersDied(
                f"workers died {self._max_attempts} times in one batch, {files[0]} … {files[-1]}: one of these images "
                "crashes them, or memory is short and fewer workers are needed"
            )
        extractor = self._extractor = self._extractor or self._open()
        failures: list[reading.UnreadableImage] = []
        readable, vectors = np.array([], np.int64), np.empty((0, extractor.dim), np.float32)
        # At most one batch, and none if no file is readable.
        size, rule = extractor.size, extractor.resize_rule
        paths = [Path(file) for file in files]
        for part, pixels in reading.batches(
            paths, size, rule, len(files), workers=1, failures=failures, transform=extractor.preprocess
        ):
            readable, vectors = part, extractor.embed(pixels)
        # The failures are in the order of the files.
        return rows[readable], vectors, dict(zip(np.delete(rows, readable).tolist(), failures, strict=True))

    def _open(self) -> FeatureExtractor:
        factory, path, fingerprint = self._source
        with _one_cpu():
            extractor = pickle.loads(factory)()
            for step in path:
                extractor = getattr(extractor, step) if isinstance(step, str) else extractor[step]
            if extractor.fingerprint != fingerprint:
                raise RuntimeError(
                    f"a worker opened {extractor.fingerprint} instead of {fingerprint}: install the same version of "
                    "this package and the same weights on every computer."
                )
            extractor.prepare()
        return extractor


def _first_line(error: Exception) -> str:
    """The first line of an error's text, or its class if it has none."""
    return next(iter(str(error).splitlines()), type(error).__name__)


def _portable(error: Exception) -> Exception:
    """The error, or its text if it cannot be pickled, with the worker's traceback as a note."""
    where = "".join(traceback.format_exception(error))
    try:
        error = pickle.loads(pickle.dumps(error))
    except Exception:
        error = RuntimeError(f"{type(error).__name__}: {error}")
    error.add_note(f"Raised in a worker:\n{where}")
    return error


@contextmanager
def _one_cpu() -> Iterator[None]:
    """Show one CPU to libraries that count them at the start, such as OpenVINO; later, threads may run on any CPU."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        yield
    finally:
        for thread in Path("/proc/self/task").iterdir():
            # The thread may have ended in the meantime.
            with suppress(ProcessLookupError):
                os.sched_setaffinity(int(thread.name), allowed)
