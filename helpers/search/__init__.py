"""Search: engines, indexes, rankings and re-ranking."""

from helpers import lazy

__all__, __getattr__ = lazy.exports(
    __name__,
    {
        "engine": ("Engine",),
        "index": ("Index", "load_index", "open_index"),
        "persist.live": ("LiveEngine",),
        "ranking": ("Ranking", "rank"),
        "results": ("Result", "Results"),
    },
)
