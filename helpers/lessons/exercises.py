"""Checks of the exercises at the end of each notebook."""

from collections.abc import Callable
from typing import Any


def check(exercise: str, answer: Any, right: Callable[[Any], bool], hint: str) -> bool | None:
    """Print whether an answer is right, and return it; None for an answer of None, which means "not answered yet".

    An answer that raises an error in ``right`` is wrong.
    """
    if answer is None:
        print(f"{exercise}: not answered yet")
        return None
    try:
        good = bool(right(answer))
    except Exception as error:
        print(f"{exercise}: the check could not use this answer ({error}). {hint}")
        return False
    print(f"{exercise}: {'right ✓' if good else 'not yet ✗ ' + hint}")
    return good
