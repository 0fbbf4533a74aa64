"""Hides the lines of TensorFlow's start-up log that its log level does not silence."""

import contextlib
import importlib.util
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

_LOG = re.compile(rb"^(WARNING: All log messages before absl::|I\d{4} .*port\.cc:\d+\] oneDNN ).*\n?", re.MULTILINE)


def hide_startup_log() -> None:
    """Hide the start-up log when TensorFlow is imported later. Other messages of the import are printed after it."""
    if "tensorflow" not in sys.modules and not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


class _Finder(MetaPathFinder):
    """Finds TensorFlow as usual, and runs it with `_without_log`."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != "tensorflow":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.loader is not None:
            run = spec.loader.exec_module

            def quiet(module: ModuleType) -> None:
                with _without_log():
                    run(module)

            spec.loader.exec_module = quiet  # type: ignore[method-assign]
        return spec


@contextlib.contextmanager
def _without_log() -> Iterator[None]:
    """Collect standard error, also that of libraries in C++, and print it afterwards without the start-up log."""
    sys.stderr.flush()
    original = os.dup(2)
    with tempfile.TemporaryFile() as collected:
        os.dup2(collected.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(original, 2)
            os.close(original)
            collected.seek(0)
            if text := _LOG.sub(b"", collected.read()):
                os.write(2, text)
