"""A local Ray cluster, or a connection to a running one, for the parts of the library that use several processes."""

import logging
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from helpers import extras, paths

#: Bytes of Ray's shared memory; batches wait while it is full. The minimum is 75 MB.
OBJECT_STORE = 200_000_000

#: Attempts to start a local cluster.
STARTS = 3

#: Maximum length of a local cluster's folder: below it are sockets, whose paths have at most 103 bytes on macOS.
LONGEST_FOLDER = 103 - len("/ray-01234567/session_2000-01-01_00-00-00_000000_0123456/sockets/plasma_store")

#: Environment of the workers, each with one CPU.
ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OPENCV_FOR_THREADS_NUM", "TF_NUM_INTRAOP_THREADS",
     "TF_NUM_INTEROP_THREADS", "LOKY_MAX_CPU_COUNT"), "1",
)  # fmt: skip


@contextmanager
def cluster(workers: int = 2, address: str | None = None) -> Iterator[None]:
    """Start Ray, or connect to it, for several calls that need it; stop it or disconnect afterwards.

    workers : number of CPUs of a cluster on this computer, which may exceed the real number.
    """
    with extras.importing("ray"):
        import ray

    if ray.is_initialized():
        yield
        return
    # Ray replaces the handler of SIGTERM, so that a cluster stops with its driver; it is restored afterwards.
    handler = signal.getsignal(signal.SIGTERM)
    folder = None if address else tempfile.mkdtemp(prefix="ray-", dir=_folder())
    start = partial(ray.init, log_to_driver=False, logging_level=logging.ERROR)
    try:
        if address:
            start(address, runtime_env={"env_vars": ONE_THREAD})
        else:
            # Ray disables its usage statistics in local clusters.
            local = {"num_cpus": workers, "object_store_memory": OBJECT_STORE, "include_dashboard": False}
            # As a runtime environment, they would make Ray start new processes instead of using those that wait.
            with paths.environment(ONE_THREAD):
                _start_slowly(partial(start, "local", _temp_dir=folder, **local))
        yield
    finally:
        ray.shutdown(wait_for_processes=True)
        if handler is not None and signal.getsignal(signal.SIGTERM) != handler:
            signal.signal(signal.SIGTERM, handler)
        if folder:
            shutil.rmtree(folder, ignore_errors=True)


def _start_slowly(start: Callable[[], object]) -> None:
    """Start a local cluster, and try again if the computer is so busy that this takes more than Ray's 30 seconds.

    The first start after an installation also compiles Ray's modules, which later starts read. Raises RuntimeError if
    no start was fast enough.
    """
    import ray

    for _ in range(STARTS):
        try:
            start()
        except Exception as error:  # Ray raises no more specific one
            if "timed out during startup" not in str(error):
                raise
            last = error
            ray.shutdown(wait_for_processes=True)
        else:
            return
    raise RuntimeError(
        f"Ray did not start within 30 seconds in {STARTS} attempts, because the computer is too busy. Wait until other "
        "programs have ended, and try again."
    ) from last


def _folder() -> str:
    """Parent folder of a local cluster's sockets and logs: the temporary folder, unless its path is too long."""
    usual = tempfile.gettempdir()
    return usual if len(os.fsencode(usual)) <= LONGEST_FOLDER else "/tmp"
