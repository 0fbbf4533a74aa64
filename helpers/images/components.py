"""Connected components of images, made link by link."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Link:
    """Two images that were compared and show the same: rows, the search that found them, and their correlation."""

    first: int
    second: int
    how: str
    correlation: float


class Components:
    """Groups of linked images. Only links that join two groups are kept, so the links of each group form a tree.

    n : the number of images; at first each is a group of its own.
    """

    def __init__(self, n: int):
        #: int64 (n,): equal for all images of one group.
        self.labels = np.arange(n)
        self.links: list[Link] = []
        self._members: dict[int, list[int]] = {}

    def join(self, link: Link) -> bool:
        """Join the groups of two images. Returns False if they were in one group before."""
        small, large = int(self.labels[link.first]), int(self.labels[link.second])
        if small == large:
            return False
        if len(self._members.get(small, ())) > len(self._members.get(large, ())):
            small, large = large, small
        moved = self._members.pop(small, [small])
        # The smaller group is relabeled, so an image is relabeled at most log2(n) times.
        self.labels[moved] = large
        self._members.setdefault(large, [large]).extend(moved)
        self.links.append(link)
        return True

    def firsts(self) -> np.ndarray:
        """int64: the first image of each group, ascending."""
        return np.sort(np.unique(self.labels, return_index=True)[1])
