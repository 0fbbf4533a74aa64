"""What indexes in a server share: parts, patience, payload, places, and how an error counts what is in."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.search.backends.remote import PartlyIndexed, PartlyRemoved, Patience, Payload, chunks, parse_place


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
    runs = np.array([list(Patience(attempts=6, first=1, longest=5).waits()) for _ in range(200)])
    full = np.array([1, 2, 4, 5, 5])
    assert runs.shape == (200, 5)
    assert (runs <= full).all() and (runs >= full / 2).all()
    assert (runs.max(axis=0) > 0.9 * full).all() and (runs.min(axis=0) < 0.6 * full).all()
    assert list(Patience(attempts=1).waits()) == []


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
    ("rest", "place"),
    [
        ("//db/images", ("db:9200", "images")),
        ("//10.0.0.7:19/x", ("10.0.0.7:19", "x")),
        ("//[::1]:7/x/", ("[::1]:7", "x")),
    ],
)
def test_places(rest, place):
    assert parse_place("elasticsearch", rest, 9200) == place


@pytest.mark.parametrize("rest", ["db/images", "//db", "//db/", "///images", "//db:http/x", "//db:99999/x", ""])
def test_what_is_no_place_is_told_how_one_is_written(rest):
    with pytest.raises(ValueError, match="write elasticsearch://host:9200/name"):
        parse_place("elasticsearch", rest, 9200)


def test_a_place_with_a_password_is_refused_without_repeating_it():
    with pytest.raises(ValueError, match="sign_in") as caught:
        parse_place("milvus", "//me:hush@db/x", 1)
    assert "hush" not in str(caught.value)


def test_an_error_counts_and_names_what_is_in_and_what_is_not():
    error = PartlyIndexed(np.arange(3), np.arange(3, 100), np.array([200]), "The disk is full.")
    assert str(error) == (
        "3 of 101 vectors are in (0, 1, 2), 97 are not (3, 4, 5, 6, … 99), of 1 it is not known (200). The disk is "
        "full. Call refresh() when the server is there again: then `ids` knows. Add those that are missing again."
    )
    assert (error.indexed.tolist(), error.missing[-1], error.doubtful.tolist()) == ([0, 1, 2], 99, [200])
    gone = PartlyRemoved(np.arange(2), np.arange(2, 4), np.empty(0, np.int64), "It went.")
    assert str(gone) == (
        "2 of 4 vectors are removed (0, 1), 2 are not (2, 3). It went. Remove those that are left again."
    )
    assert gone.removed.tolist() == [0, 1]
