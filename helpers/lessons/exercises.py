"""Self-checks of the exercises at the end of each notebook."""

from collections.abc import Callable
from typing import Any


def check(exercise: str, answer: Any, right: Callable[[Any], bool], hint: str) -> bool | None:
    """Say whether an answer is right; an answer of None counts as not given yet.

    Returns
    -------
    True, False, or None where there is no answer yet. It never raises: a wrong answer is no error.
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
