"""Text of users becomes valid Unicode in JSON, CSV and on one line."""

import csv
import io
import json
import os
import re

import pandas as pd
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from helpers.text import clean_text, clean_values, printable, printable_lines, write_csv

#: Any text, also with lone surrogates.
TEXTS = st.text(st.characters(exclude_categories=()), max_size=30)
FILE_NAMES = st.binary(min_size=1, max_size=60).map(os.fsdecode)


@pytest.mark.parametrize(
    "text, cleaned, shown",
    [
        ("plain.jpg", "plain.jpg", "plain.jpg"),
        ("ünï 中 😀 עברית\u200d\u202f", "ünï 中 😀 עברית\u200d\u202f", "ünï 中 😀 עברית\u200d\u202f"),
        (os.fsdecode(b"caf\xe9"), "caf\\xe9", "caf\\xe9"),
        (os.fsdecode(b"\x80\xff"), "\\x80\\xff", "\\x80\\xff"),
        ("\ud83d", "\\ud83d", "\\ud83d"),
        ("a\0b", "a\\x00b", "a\\x00b"),
        ("a\nb\r\tc", "a\nb\r\tc", "a\\nb\\r\\tc"),
        ("\x1b[31m\x85\u2028", "\x1b[31m\x85\u2028", "\\x1b[31m\\x85\\u2028"),
        ("gpj\u202eexe", "gpj\u202eexe", "gpj\\u202eexe"),
        ("\u2066\u2069\ufdd0\uffff", "\u2066\u2069\ufdd0\uffff", "\\u2066\\u2069\\ufdd0\\uffff"),
        ("\ufeffa", "\ufeffa", "\\ufeffa"),
        (r"C:\new $x$ <b>&", r"C:\new $x$ <b>&", r"C:\new $x$ <b>&"),
    ],
)
def test_escapes(text, cleaned, shown):
    assert (clean_text(text), printable(text)) == (cleaned, shown)


def test_lines_of_a_message_are_kept():
    assert printable_lines("first\nsec\x1bond\r\n") == "first\nsec\\x1bond\\r\n"


@given(TEXTS)
def test_every_text_becomes_valid(text):
    for cleaned in (clean_text(text), printable(text)):
        assert cleaned.encode() and "\0" not in cleaned if text else cleaned == ""
    assert clean_text(clean_text(text)) == clean_text(text) and printable(clean_text(text)) == printable(text)
    assert len(printable(text).splitlines()) <= 1
    if text.isprintable():
        assert clean_text(text) == printable(text) == text


@given(FILE_NAMES)
def test_bytes_of_a_file_name_can_be_read_off(name):
    escapes = re.compile(rb"\\x([89a-f][0-9a-f]|00)")
    if not escapes.search(os.fsencode(name)):
        restored = escapes.sub(lambda match: bytes.fromhex(match[1].decode()), clean_text(name).encode())
        assert restored == os.fsencode(name)


@given(st.recursive(TEXTS | st.integers() | st.none(), lambda part: st.lists(part) | st.dictionaries(TEXTS, part)))
def test_values_of_json(value):
    assert json.loads(json.dumps(clean_values(value), ensure_ascii=False).encode()) == clean_values(value)


def test_values_keep_their_structure():
    value = {"a\udce9": ["\udce9", ("x", 1.5, None, True)]}
    assert clean_values(value) == {"a\\xe9": ["\\xe9", ["x", 1.5, None, True]]}
    assert clean_values(["\n", {"\u202e": "\r"}], printable_lines) == ["\n", {"\\u202e": "\\r"}]


@given(st.lists(st.tuples(TEXTS, TEXTS), max_size=5))
@example([("a\rb", " x "), ("", ""), ("NA", "nan"), ('"', "a,b"), ("x\r", "\n"), ("-1", "=1+1")])
def test_pandas_and_csv_read_the_same_cells(rows):
    text = io.StringIO(newline="")
    write_csv(text, ["first", "second"], rows)
    expected = [tuple(map(clean_text, row)) for row in rows]
    # Without keep_default_na, pandas turns names such as "NA" into NaN.
    table = pd.read_csv(io.BytesIO(text.getvalue().encode()), dtype=str, keep_default_na=False)
    assert list(table.itertuples(index=False, name=None)) == expected
    assert list(csv.reader(io.StringIO(text.getvalue(), newline=""))) == [["first", "second"], *map(list, expected)]


def test_cells_of_csv():
    text = io.StringIO(newline="")
    write_csv(text, ["a", "b", "c"], [[None, 0.5, "x\udce9"], [1, True, "y, z"]])
    assert text.getvalue() == 'a,b,c\n,0.5,x\\xe9\n1,True,"y, z"\n'
