"""Which of several compared methods to use, in plain English, with the uncertainty of the comparison."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from helpers.evaluation.intervals import Difference

#: Times within this factor are regarded as equal, because the next measurement may order them otherwise.
SIMILAR = 1.25
#: Below this number of queries, bootstrap intervals are too narrow.
FEW_QUERIES = 30
#: The text does not mention a larger number of needed queries.
MOST_NEEDED = 1_000_000


class Measured(NamedTuple):
    """A method's score and costs.

    score, low, high : the mAP, and its 95 % interval.
    milliseconds : per query, from the image file to the results.
    bytes : of the index, per image.
    """

    score: float
    low: float
    high: float
    milliseconds: float
    bytes: float


@dataclass(frozen=True)
class Recommendation:
    """The result of `recommend`.

    Attributes
    ----------
    method : the recommended one; None if no method is better than a random order.
    best : the method with the highest score on these queries.
    tied : the best method and those that the queries cannot tell from it, from the highest score to the lowest.
    worse : all others.
    sentences : the recommendation as text.
    """

    method: str | None
    best: str
    tied: tuple[str, ...]
    worse: tuple[str, ...]
    sentences: tuple[str, ...]

    @property
    def text(self) -> str:
        """The recommendation as one paragraph."""
        return " ".join(self.sentences)


def recommend(
    methods: Mapping[str, Measured],
    differences: Mapping[tuple[str, str], Difference],
    chance: float,
    n_queries: int,
    unit: str = "queries",
    first_right: Mapping[str, float] | None = None,
) -> Recommendation:
    """The cheapest method among those that the queries cannot tell from the best one.

    Parameters
    ----------
    methods : at least two.
    differences : (a, b) → score of a - score of b, as `simultaneous_differences` returns them.
    chance : the mAP of a random order.
    n_queries : the number of independent queries; for changed copies, of images that copies were made of.
    unit : what they are called, in the plural.
    first_right : top-1 accuracy of each method. The text names a method with a higher one than the recommended method.
    """
    order = sorted(methods, key=lambda name: (-methods[name].score, methods[name].milliseconds, name))
    best = order[0]
    tied = tuple(name for name in order if name == best or differences[best, name].includes_zero)
    worse = tuple(name for name in order if name not in tied)
    top = methods[best]
    interval = f"{top.score:.3f} [{top.low:.3f}, {top.high:.3f}]"
    first = f"{best} has the highest mAP on these {n_queries:,} {unit}: {interval}."
    notes = _notes(best, top, n_queries, unit)
    # `not >` is also true for nan, the bounds of a single query.
    if not top.low > chance:
        why = f"There is only one of these {unit}, so the score has no interval"
        if not math.isnan(top.low):
            why = f"The interval does not lie above {chance:.3f}, the mAP of a random order"
        text = f"{why}: none of the methods is recommended."
        return Recommendation(None, best, tied, worse, (first, text, *notes))
    chosen = cheapest({name: methods[name] for name in tied})
    sentences = [first]
    if len(tied) == 1:
        sentences += _one_is_best(order, methods, differences, chance)
    else:
        sentences += _not_told_apart(chosen, tied, methods, differences, n_queries, unit)
    if worse and len(tied) > 1:
        least = min(differences[best, name].low for name in worse)
        verb = "is" if len(worse) == 1 else "are"
        sentences.append(f"{_listed(worse)} {verb} worse than {best}, by at least {least:.3f}.")
    sentences += _by_first_result(chosen, first_right or {})
    return Recommendation(chosen, best, tied, worse, (*sentences, *notes))


def cheapest(methods: Mapping[str, Measured]) -> str:
    """The method with the least time per query; if several are within `SIMILAR`, the one with the fewest bytes."""
    least = min(each.milliseconds for each in methods.values())
    quick = [name for name, each in methods.items() if each.milliseconds <= SIMILAR * least]
    return min(quick, key=lambda name: (methods[name].bytes, -methods[name].score, name))


def queries_needed(difference: Difference, n_queries: int) -> int | None:
    """About how many queries would be needed to tell a difference of this size from 0; None for no difference.

    Half of the interval must be as narrow as the difference. The width of an interval is inversely proportional to the
    square root of the number of queries.
    """
    half = (difference.high - difference.low) / 2
    if not difference.difference or not math.isfinite(half):
        return None
    # Rounding must not add a query to an exact result.
    return math.ceil(n_queries * (half / difference.difference) ** 2 - 1e-9)


def _by_first_result(chosen: str, first_right: Mapping[str, float]) -> list[str]:
    """A sentence if another method has a higher top-1 accuracy; re-ranking may raise the mAP and lower the top-1."""
    leader = max(first_right, key=lambda name: (first_right[name], name == chosen), default=chosen)
    if leader == chosen:
        return []
    return [
        f"By the first result alone, {leader} is better on these queries (not tested): top-1 {first_right[leader]:.3f} "
        f"instead of {first_right[chosen]:.3f}."
    ]


def _notes(best: str, top: Measured, n_queries: int, unit: str) -> list[str]:
    """What the intervals do not show."""
    notes = []
    if top.low == top.high:
        # The rule of three: the upper bound of an event that was not seen in n trials.
        notes.append(
            f"{best} has the same score for each query, so its interval has no width; up to about "
            f"{100 * min(1.0, 3 / n_queries):.0f} % of other {unit} may still have another score."
        )
    if n_queries < FEW_QUERIES:
        notes.append(f"With fewer than {FEW_QUERIES} {unit}, the intervals are too narrow: use more images.")
    return notes


def _one_is_best(
    order: Sequence[str],
    methods: Mapping[str, Measured],
    differences: Mapping[tuple[str, str], Difference],
    chance: float,
) -> list[str]:
    best, second = order[0], order[1]
    gap = differences[best, second]
    sentences = [
        f"It is better than every other method: the difference from {second}, the next one, is {gap.difference:.3f} "
        f"[{gap.low:.3f}, {gap.high:.3f}].",
        f"Use {best}.",
    ]
    # A method of little use is no alternative.
    useful = [name for name in order[1:] if methods[name].score - chance >= (methods[best].score - chance) / 2]
    faster = [name for name in useful if methods[name].milliseconds * SIMILAR < methods[best].milliseconds]
    if faster:
        share, gap = methods[faster[0]].milliseconds / methods[best].milliseconds, differences[best, faster[0]]
        time = f"{100 * share:.0f} %" if share >= 0.01 else "less than 1 %"
        sentences.append(
            f"If time matters more, use {faster[0]}: from a query's file to the results, it takes {time} of the time, "
            f"and its mAP is lower by {gap.difference:.3f} [{gap.low:.3f}, {gap.high:.3f}]."
        )
    return sentences


def _not_told_apart(
    chosen: str,
    tied: Sequence[str],
    methods: Mapping[str, Measured],
    differences: Mapping[tuple[str, str], Difference],
    n_queries: int,
    unit: str,
) -> list[str]:
    best = tied[0]
    other = chosen if chosen != best else tied[1]
    gap = differences[best, other]
    sentences = [_uncertainty(other, tied, gap)]
    cost, than = methods[chosen], methods[other if chosen == best else best]
    if cost.milliseconds * SIMILAR < than.milliseconds:
        why = f"{_ms(cost.milliseconds)} per query instead of {_ms(than.milliseconds)}"
    elif cost.bytes < than.bytes:
        why = f"{cost.bytes:,.0f} bytes per image instead of {than.bytes:,.0f}, in a similar time"
    else:
        why = "none of the others costs less"
    sentences.append(f"Use {chosen}, the cheapest of them: {why}.")
    if chosen != best and gap.high:
        sentences.append(f"Its mAP may be lower than that of {best} by up to {gap.high:.3f}.")
    needed = queries_needed(gap, n_queries)
    if needed is not None and n_queries < needed <= MOST_NEEDED:
        sentences.append(f"About {_rounded(needed)} {unit} would be needed to tell a difference of this size from 0.")
    return sentences


def _uncertainty(other: str, tied: Sequence[str], gap: Difference) -> str:
    """That the queries cannot tell the best method from the others, with one of the differences."""
    if not gap.difference and not gap.high:
        return f"{other} has the same score as {tied[0]} for each query, so these queries cannot tell them apart."
    interval = f"{gap.difference:+.3f} [{gap.low:+.3f}, {gap.high:+.3f}]"
    if len(tied) == 2:
        return f"Its difference from {other} is {interval}. This includes 0: these queries cannot tell the two apart."
    others = _listed(tied[1:])
    return (
        f"These queries cannot tell it from {others}: the interval of each difference includes 0, such as {interval} "
        f"for {other}."
    )


def _ms(milliseconds: float) -> str:
    return f"{milliseconds:.1f} ms" if milliseconds < 100 else f"{milliseconds:,.0f} ms"


def _rounded(number: int) -> str:
    """A number with two significant digits."""
    step = 10 ** max(0, len(str(number)) - 2)
    return f"{math.ceil(number / step) * step:,}"


def _listed(names: Sequence[str], most: int = 4) -> str:
    """Names in a sentence: "a", "a and b", "a, b and 3 more"."""
    if len(names) > most:
        return f"{', '.join(names[: most - 1])} and {len(names) - most + 1} more"
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))
