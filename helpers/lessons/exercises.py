"""Checks of the exercises at the end of each notebook."""

import copy
from collections.abc import Callable
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

import numpy as np

from helpers.lessons import exercise_checks


def check_exercise(exercise: str, answer: Any) -> bool | None:
    """Print whether an answer is right, and return True or False; return None if the answer is missing.

    The checks are functions of `helpers.lessons.exercise_checks`, so that the notebook does not show the answer. They
    raise an AssertionError with a hint.

    Parameters
    ----------
    exercise : the notebook's number and the exercise's, such as ``"07.2"``.
    answer : a value, or a function. None, or a function that returns None, is a missing answer.

    Raises ValueError: there is no check of this exercise.
    """
    check = _check_of(exercise)
    try:
        if answer is None:
            raise Unsolved
        check(answer)
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


def _check_of(exercise: str) -> Callable[[Any], None]:
    """The function that checks an exercise."""
    notebook, _, number = exercise.partition(".")
    module = f"{exercise_checks.__name__}.notebook_{notebook}"
    if f"notebook_{notebook}" not in {each.name for each in iter_modules(exercise_checks.__path__)}:
        raise ValueError(f"there is no check of exercise {exercise!r}; an exercise is called '07.2', for example")
    checks = vars(import_module(module))
    if f"exercise_{number}" not in checks:
        known = [f"{notebook}.{name.removeprefix('exercise_')}" for name in checks if name.startswith("exercise_")]
        raise ValueError(f"there is no check of exercise {exercise!r}; notebook {notebook} has {', '.join(known)}")
    return checks[f"exercise_{number}"]


class Unsolved(Exception):
    """A reader's function returned None, so it has no code yet."""


def answer(function: Callable, *arguments: Any, **options: Any) -> Any:
    """What a reader's function returns for copies of the arguments. Raises `Unsolved` for None.

    Raises AssertionError if the function changes an argument.
    """
    given = copy.deepcopy(arguments)
    value = returned(function(*given, **options))
    assert all(map(np.array_equal, given, arguments)), "the function must not change its arguments"
    return value


def returned(value: Any) -> Any:
    """The value that a reader's function returned. Raises `Unsolved` for None."""
    if value is None:
        raise Unsolved
    return value
