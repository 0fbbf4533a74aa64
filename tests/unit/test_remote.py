"""What indexes in a server share: parts, retries, payload, locations, and errors that report what was done."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.search.backends.remote import PartlyIndexed, PartlyRemoved, Payload, RetryPolicy, chunks, parse_location


@given(sizes=st.lists(st.integers(0, 50), max_size=60), most_bytes=st.integers(1, 120), most_rows=st.integers(1, 9))
def test_parts_hold_every_row_once_in_order_within_the_limits(sizes, most_bytes, most_rows):
    parts = list(chunks(np.array(sizes, np.int64), most_bytes, most_rows))
    assert [row for part in parts for row in part] == list(range(len(sizes)))
    for part, following in zip(parts, [*parts[1:], None], strict=False):
        assert 1 <= len(part) <= most_rows
        weight = sum(sizes[row] for row in part)
        assert weight <= most_bytes or len(part) == 1
        if following is not None and len(part) < most_rows:
            assert weight + sizes[following[0]] > most_bytes, "a part is filled before the next begins"


def test_known_parts():
    assert [part.tolist() for part in chunks(np.array([4, 4, 4, 20, 1, 1]), 10, 5)] == [[0, 1], [2], [3], [4, 5]]
    assert [part.tolist() for part in chunks(np.array([5, 5, 5, 6, 5]), 10, 5)] == [[0, 1], [2], [3], [4]]
    assert list(chunks(np.empty(0, np.int64), 10, 5)) == []


def test_waits_double_up_to_the_longest_and_differ():
    runs = np.array([list(RetryPolicy(attempts=6, first=1, longest=5).waits()) for _ in range(200)])
    full = np.array([1, 2, 4, 5, 5])
    assert runs.shape == (200, 5)
    assert (runs <= full).all() and (runs >= full / 2).all()
    assert (runs.max(axis=0) > 0.9 * full).all() and (runs.min(axis=0) < 0.6 * full).all()
    assert list(RetryPolicy(attempts=1).waits()) == []


@pytest.mark.parametrize(
    ("name", "path", "message"),
    [("n" * 1025, "", "may have 1024 bytes"), ("", "é" * 2049, "may have 4096 bytes"), ("\udcff.png", "", "UTF-8")],
)
def test_a_payload_that_does_not_fit_is_refused(name, path, message):
    with pytest.raises(ValueError, match=message):
        Payload(name, path)


def test_a_payload_takes_a_numpy_label():
    payload = Payload("a" * 1024, "é" * 2048, np.int64(7))
    assert type(payload.label) is int and payload == Payload("a" * 1024, "é" * 2048, 7)


@pytest.mark.parametrize(
    ("rest", "location"),
    [
        ("//db/images", ("db:9200", "images")),
        ("//10.0.0.7:19/x", ("10.0.0.7:19", "x")),
        ("//[::1]:7/x/", ("[::1]:7", "x")),
    ],
)
def test_locations(rest, location):
    assert parse_location("elasticsearch", rest, 9200) == location


@pytest.mark.parametrize("rest", ["db/images", "//db", "//db/", "///images", "//db:http/x", "//db:99999/x", ""])
def test_an_invalid_location_raises_an_error_that_shows_the_form(rest):
    with pytest.raises(ValueError, match="write elasticsearch://host:9200/name"):
        parse_location("elasticsearch", rest, 9200)


def test_a_password_in_a_location_is_refused_without_repeating_it():
    with pytest.raises(ValueError, match="sign_in") as caught:
        parse_location("milvus", "//me:hush@db/x", 1)
    assert "hush" not in str(caught.value)


def test_an_error_counts_and_names_what_was_added_and_what_was_not():
    error = PartlyIndexed(np.arange(3), np.arange(3, 100), np.array([200]), "The disk is full.")
    assert str(error) == (
        "3 of 101 vectors were added (ids 0, 1, 2), 97 were not (ids 3, 4, 5, 6, 7 … (97 in all)), "
        "1 are uncertain (id 200). "
        "The disk is full. Call refresh() when the server is available, which updates `ids`. Repeat the call with the "
        "missing ids."
    )
    assert (error.done.tolist(), error.missing[-1], error.uncertain.tolist()) == ([0, 1, 2], 99, [200])
    removed = PartlyRemoved(np.arange(2), np.arange(2, 4), np.empty(0, np.int64), "It failed.")
    assert str(removed) == (
        "2 of 4 vectors were removed (ids 0, 1), 2 were not (ids 2, 3). It failed. "
        "Repeat the call with the missing ids."
    )
    assert removed.done.tolist() == [0, 1]
