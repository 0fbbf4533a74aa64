"""The report of an audit with more groups than it shows with images."""

import numpy as np
import pytest

from helpers.images import samples
from helpers.images.duplicates import Audit, Pair
from helpers.visualization import audit_report


@pytest.mark.parametrize(
    ("leaks", "others", "text"),
    [
        (3, 1, "They are in the table of the other groups below."),
        (2, 2, "They are in the table of the other groups below."),
        (3, 0, "None."),
        (2, 0, "None."),
    ],
)
def test_duplicates_within_one_side_that_are_not_shown(monkeypatch, leaks, others, text):
    monkeypatch.setattr(audit_report, "MAX_GROUPS", 2)
    images = samples.photos().subset(range(8))
    sides = np.zeros(8, np.int64)
    sides[1 : 2 * leaks : 2] = 1
    pairs = tuple(Pair(2 * group, 2 * group + 1, "bytes", 1.0, 2 * group) for group in range(leaks + others))
    page = audit_report.audit_report(Audit(images, pairs, ("bytes",), sides), ("train", "test"))
    assert page.count("<article") == 2
    assert f"<h2>Duplicates within one side</h2>\n<p>{text}</p>" in page
