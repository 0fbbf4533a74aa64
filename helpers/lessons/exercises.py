"""Checks of the exercises at the end of each notebook."""

from collections.abc import Callable
from importlib import import_module
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


def check_exercise(exercise: str, answer: Any) -> bool | None:
    """Print whether an answer is right, and return it; None for one that is missing.

    The checks are functions of `helpers.lessons.exercise_checks`, so that the notebook does not show the answer. They
    raise an AssertionError with a hint.

    Parameters
    ----------
    exercise : the notebook's number and the exercise's, such as ``"07.2"``.
    answer : a value, or a function. A function that returns None is missing.
    """
    notebook, number = exercise.split(".")
    checks = import_module(f"helpers.lessons.exercise_checks.notebook_{notebook}")
    try:
        if answer is None:
            raise Unsolved
        getattr(checks, f"exercise_{number}")(answer)
    except Unsolved:
        print(f"{exercise}: no answer yet")
        return None
    except AssertionError as error:
        print(f"{exercise}: not yet ✗ {error}")
        return False
    except Exception as error:  # whatever the reader's function raises
        print(f"{exercise}: your code stopped with {type(error).__name__}: {error}")
        return False
    print(f"{exercise}: right ✓")
    return True


class Unsolved(Exception):
    """A function of the reader returned None: it has no code yet."""


def returned(value: Any) -> Any:
    """The value that a reader's function returned. Raises `Unsolved` for None."""
    if value is None:
        raise Unsolved
    return value
