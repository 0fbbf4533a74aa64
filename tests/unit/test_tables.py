"""Tables of images: encodings, delimiters, headers, and every bad row by its line."""

import csv
import io
import tempfile
import warnings
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.images.imageset import EmptyImageSet
from helpers.images.tables import TableError, TableNotice, from_table

FILES = ("a.jpg", "b.jpg", "c.jpg", "sub/d.jpg")


@pytest.fixture
def folder(tmp_path):
    """Four image files; their content is not read."""
    for name in FILES:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def write(folder, text, encoding="utf-8", name="table.csv"):
    (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode(encoding))
    return folder / name


def read(table, **columns):
    """{key: class} of a table, and its notices without the table's name."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        images = from_table(table, **columns)
    assert all(each.category is TableNotice for each in caught)
    notices = [str(each.message).removeprefix(f"{table.name}: ") for each in caught]
    return {key: images.class_name(row) for row, key in enumerate(images.keys)}, "".join(notices)


def test_a_plain_table(folder):
    table = write(folder, "path,label\nc.jpg,dog\na.jpg, cat \nsub/d.jpg,\n")
    images = from_table(table)
    assert images.keys == ("a.jpg", "c.jpg", "sub/d.jpg") and images.class_names == ("cat", "dog")
    assert [images.class_name(row) for row in range(3)] == ["cat", "dog", "–"]
    assert (images.name, images.root) == ("table", folder)
    assert read(table)[1] == ""


@pytest.mark.parametrize(
    "text, encoding, notice",
    [
        ("path,label\r\na.jpg,Käfer\r\nb.jpg,犬\r\n", "utf-8-sig", ""),
        ("path,label\ra.jpg,Käfer\rb.jpg,犬", "utf-8", ""),
        ("path;label\na.jpg;Käfer\nb.jpg;犬\n", "utf-8", "separated by semicolons"),
        ("path\tlabel\na.jpg\tKäfer\nb.jpg\t犬\n", "utf-16", "separated by tabs"),
        ("\ufeffpath\tlabel\r\na.jpg\tKäfer\r\nb.jpg\t犬\r\n", "utf-16-be", "separated by tabs"),
        ("sep=;\r\npath;label\r\na.jpg;Käfer\r\nb.jpg;犬\r\n", "utf-8", "separated by semicolons"),
        ('"sep=|"\npath|label\na.jpg|Käfer\nb.jpg|犬\n', "utf-8-sig", "separated by |"),
        ('"path","label"\n"a.jpg","Käfer"\n"b.jpg","犬"\n', "utf-8", ""),
        ('"path";"label"\n"a.jpg";"Käfer"\n"b.jpg";"犬"\n', "utf-8", "separated by semicolons"),
        ("\n,\n\npath,label\na.jpg,Käfer\nb.jpg,犬\n", "utf-8", ""),
        ("path,label\na.jpg,Käfer\nb.jpg,犬\n,\n\n,\n , \n", "utf-8", ""),
        ("path,label\na.jpg,Käfer\n,\n\nb.jpg,犬\n,\n", "utf-8", "empty rows between others, ignored: 2"),
        ("id,label,path,,\n1,Käfer,a.jpg,,\n2,犬,b.jpg,x,\n", "utf-8", ""),
        ("Path, LABEL \na.jpg,Käfer\nb.jpg,犬\n", "utf-8", "column path is 'Path'; column label is ' LABEL '"),
        ("path,Path,label\na.jpg,b.jpg,Käfer\nb.jpg,x,犬\n", "utf-8", ""),
        (f"path,label,data\na.jpg,Käfer,{'x' * 200_000}\nb.jpg,犬,\n", "utf-8", ""),
        ('path,label,text\na.jpg,Käfer,"two\nlines, ""quoted"""\nb.jpg,犬,\n', "utf-8", ""),
        (" a.jpg ,Käfer\n".join(["path,label\n", "b.jpg,犬"]), "utf-8", ""),
    ],
)  # fmt: skip
def test_tables_as_programs_write_them(folder, text, encoding, notice):
    assert read(write(folder, text, encoding)) == ({"a.jpg": "Käfer", "b.jpg": "犬"}, notice)


def test_paths_of_windows(folder):
    table = write(folder, "path,label\nsub\\d.jpg,x\n.\\a.jpg,y\nb.jpg,y\n")
    assert read(table) == ({"a.jpg": "y", "b.jpg": "y", "sub/d.jpg": "x"}, "paths with backslashes, read as slashes: 2")
    (folder / "sub\\d.jpg").touch()
    assert read(table)[0] == {"a.jpg": "y", "b.jpg": "y", "sub\\d.jpg": "x"}


def test_other_columns_and_a_name(folder):
    table = write(folder, "file;kind\na.jpg;x\n", name="t.tsv")
    with pytest.warns(TableNotice, match=r"^t\.tsv: separated by semicolons$"):
        images = from_table(table, "beetles", path="file", label="kind")
    assert (images.name, images.keys, images.class_names) == ("beetles", ("a.jpg",), ("x",))
    with pytest.raises(TableError, match="has no column path and no column label. Its header is line 1: file;kind"):
        from_table(table)


@pytest.mark.parametrize(
    "text, message",
    [
        ("file,label\na.jpg,x\n", "no column path. Its header is line 1: file,label"),
        ("\n\npath;kind\n", "no column label. Its header is line 3: path;kind"),
        ("path,label,label\n", "has 2 columns label. Its header is line 1"),
        ("Path,PATH,label\n", "has 2 columns path. Its header is line 1"),
        ("path,label,x;path;label\n", "can be separated by commas or semicolons. Its header is line 1"),
        ('path,"label\na.jpg,x\n', "no column label. Its header is line 1"),
        ("sep=|\npath,label\n", "no column path and no column label. Its header is line 2: path,label"),
    ],
)
def test_headers_that_are_not_understood(folder, text, message):
    with pytest.raises(TableError, match=message.replace(".", r"\.")):
        from_table(write(folder, text))


@pytest.mark.parametrize(
    "text, lines",
    [
        ('path,label\n"a.jpg,cat\nb.jpg,dog\nc.jpg,dog\n', {2: "a double quote opens a cell in this row"}),
        ('path,label\na.jpg,"cat\nb.jpg,dog\nc.jpg,dog\n', {2: "a double quote opens a cell in this row"}),
        ('path,label\na.jpg,cat\nb.jpg,"dog\nc.jpg,"dog"\n', {3: "in line 4: is a double quote not closed"}),
        ('path,label,x\na.jpg,cat,"y\nb.jpg,dog,\nc.jpg,dog,z"\n', {2: r"another row (b.jpg,dog,)"}),
        ('path,label\na.jpg,"cat\nb.jpg,Smith, John\nc.jpg,dog"\n', {2: "another row (b.jpg,Smith, John)"}),
        ('path,label,x\na.jpg,cat,"y\nsub\\d.jpg,dog,z"\n', {2: r"another row (sub\d.jpg,dog,z)"}),
        ('path,label\n"a.jpg\nb.jpg",cat\n', {2: r"a.jpg\nb.jpg does not exist: is a double quote not closed?"}),
        ('path,label\na.jpg,"x"y\nb.jpg,z\n', {2: "expected after"}),
        ("path,label\na.jpg,Smith, John\nb.jpg,dog\n", {2: "3 cells, but the header has 2. A cell that contains ','"}),
        ("path\tlabel\na.jpg\tx\ty\n", {2: r"A cell that contains '\t' must be in double quotes"}),
        ("path,label\na.jpg,cat\nb.jpg\n\nc.jpg\n", {3: "1 cell, but the header has 2", 5: "1 cell"}),
        ("path,label\na.jpg,cat\n ,dog\n", {3: "no path"}),
        ('path,label\na.jpg, "cat"\n', {2: "a space before its double quote"}),
        ("path,label\nx.jpg,cat\na.jpg,x\ny.jpg,\n.,x\n", {2: "x.jpg does not exist", 4: "y.jpg", 5: ". does not"}),
        (f"path,label\n{'x' * 200_000},cat\n", {2: "xxx does not exist"}),
        ("path,label\na.jpg,x\nb.jpg,x\n./a.jpg,x\na.jpg,y\n", {4: "./a.jpg is also in line 2", 5: "in line 2"}),
        ("path,label\na.jpg,c\0at\nb.jpg,dog\n", {2: "NUL"}),
        ("path,label\na.jpg,Käfer\nb.jpg,dog\nc.jpg,Käfer\n".encode("latin-1"), {2: "0xe4 is not UTF-8", 4: "0xe4"}),
        ("path,label\n".encode("utf-16-le"), {1: "NUL", 2: "NUL"}),
        ("sep=;\n\npath;label\nx.jpg;y\n", {4: "x.jpg does not exist"}),
        ('path,label,text\na.jpg,x,"1\n2\n3"\nnone.jpg,x,\n', {5: "none.jpg does not exist"}),
    ],
)  # fmt: skip
def test_every_bad_row_is_named_by_its_line(folder, text, lines):
    table = write(folder, text)
    with pytest.raises(TableError) as error:
        from_table(table)
    first, *listed = str(error.value).splitlines()
    assert first == f"{table}: {len(lines)} row{'s' * (len(lines) > 1)} cannot be used:"
    for line, (number, problem) in zip(listed, lines.items(), strict=False):
        assert line.startswith(f"  line {number}: ") and problem in line
    assert sum(line.startswith("  ") for line in listed) == len(lines)


def test_many_bad_rows_are_counted(folder):
    table = write(folder, "path,label\na.jpg,x\n" + "".join(f"none{number}.jpg,x\n" for number in range(1234)))
    with pytest.raises(TableError) as error:
        from_table(table)
    lines = str(error.value).splitlines()
    assert lines[0].endswith("1,234 rows cannot be used:") and lines[1] == "  line 3: none0.jpg does not exist"
    assert lines[-2:] == ["  and 1,224 more", "Paths are relative to the table's folder."] and len(lines) == 13


def test_names_in_messages_are_printable(folder):
    with pytest.raises(TableError, match=r"x\\x1b\[31m\.jpg does not exist"):
        from_table(write(folder, "path,label\nx\x1b[31m.jpg,y\n"))


def test_tables_without_rows_and_files_that_are_not_there(folder):
    for text in ("path,label\n", "path,label\n,\n\n"):
        with pytest.raises(EmptyImageSet, match="lists no images"):
            from_table(write(folder, text))
    for text in ("", "\n\n"):
        with pytest.raises(TableError, match="has no column path and no column label"):
            from_table(write(folder, text))
    with pytest.raises(FileNotFoundError, match=r"missing\.csv"):
        from_table(folder / "missing.csv")
    with pytest.raises(TableError, match=r"is not valid UTF-16(.|\n)*Save it as UTF-8"):
        from_table(write(folder, b"\xff\xfep\0a"[:5]))


def test_the_limit_of_the_module_csv_is_kept(folder):
    before = csv.field_size_limit()
    from_table(write(folder, f"path,label\na.jpg,{'x' * 200_000}\n"))
    assert csv.field_size_limit() == before


# ---- any table ---------------------------------------------------------------------------------------

#: Parts that a reader of tables could stumble over.
PARTS = [
    ",", ";", "\t", '"', '""', "'", "\n", "\r", "\r\n", " ", "\\", "|", "sep=;", "path", "a.jpg", "ä", "犬", "\u2028",
]  # fmt: skip
NAMES = (
    st.lists(st.sampled_from(PARTS) | st.characters(exclude_characters="\0/", exclude_categories=["Cs"]), max_size=8)
    .map("".join)
    .filter(lambda name: len(name.encode()) < 200)
    .map(lambda name: f"{name}.jpg")
)  # fmt: skip
TEXTS = st.lists(
    st.sampled_from(PARTS) | st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=8
).map("".join)
ROWS = st.lists(st.tuples(NAMES, TEXTS, TEXTS), min_size=1, max_size=5, unique_by=lambda row: row[0])


def plausible(rows):
    """Whether no cell looks like an error that the reader reports: a row within a cell, a space before a quote."""
    return not any(
        cell.lstrip() != cell and cell.lstrip().startswith('"') for row in rows for cell in row[:2]
    ) and not any(".jpg" in line for row in rows for cell in row[1:] for line in cell.splitlines()[1:])


def written_by_csv(rows, delimiter, quoting):
    text = io.StringIO(newline="")
    csv.writer(text, delimiter=delimiter, quoting=quoting).writerows([("path", "label", "text"), *rows])
    return text.getvalue()


def written_by_pandas(rows, delimiter, quoting):
    frame = pd.DataFrame(rows, columns=["path", "label", "text"])
    # With Unix line ends, pandas does not quote "\r".
    return frame.to_csv(index=False, sep=delimiter, quoting=quoting, lineterminator="\r\n")


@given(
    rows=ROWS.filter(plausible),
    delimiter=st.sampled_from(",;\t"),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC]),
    writer=st.sampled_from([written_by_csv, written_by_pandas]),
)
@settings(max_examples=60)
def test_what_csv_and_pandas_write_is_read_exactly(rows, delimiter, encoding, quoting, writer):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        for file, *_ in rows:
            (folder / file).touch()
        table = write(folder, writer(rows, delimiter, quoting), encoding)
        assert read(table)[0] == {file: label.strip() or "–" for file, label, _ in rows}


MUTATIONS = {
    "a quote is not closed": lambda cells: cells[0] + ',"' + cells[1] + "," + cells[2],
    "a quote in front of the path": lambda cells: '"' + ",".join(cells),
    "a quote in front of the last cell": lambda cells: f'{cells[0]},{cells[1]},"{cells[2]}',
    "one cell more": lambda cells: ",".join([*cells, "x"]),
    "one cell less": lambda cells: ",".join(cells[:2]),
    "no path": lambda cells: ",".join(["", *cells[1:]]),
    "another path": lambda cells: ",".join([f"none-{cells[0]}", *cells[1:]]),
    "NUL": lambda cells: ",".join([*cells[:2], "\0"]),
}


@given(
    count=st.integers(1, 6), position=st.integers(0, 5), mutation=st.sampled_from(list(MUTATIONS)),
    stray=st.none() | st.tuples(st.integers(0, 5), st.sampled_from(['x"', '"', '"x"', '""'])),
)  # fmt: skip
@settings(max_examples=60)
def test_a_damaged_row_is_an_error_that_names_its_line(count, position, mutation, stray):
    """Also if a quote in the last cell of another row closes the one that was left open."""
    position %= count
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        rows = [[f"{number}.jpg", f"class {number}", f"text {number}"] for number in range(count)]
        for file, *_ in rows:
            (folder / file).touch()
        if stray is not None and stray[0] % count > position:
            rows[stray[0] % count][2] = stray[1]
        lines = [",".join(row) for row in rows]
        lines[position] = MUTATIONS[mutation](rows[position])
        with pytest.raises(TableError) as error:
            from_table(write(folder, "\n".join(["path,label,text", *lines, ""])))
        assert f"\n  line {position + 2}: " in str(error.value)
