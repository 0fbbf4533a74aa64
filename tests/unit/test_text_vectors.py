"""Word lists, files of word vectors, phrases, nearest words and analogies."""

import gzip
import sys

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sklearn.metrics.pairwise import cosine_similarity

from helpers import extras
from helpers.features import word_files
from helpers.features.text import LONGEST, TextError, UnknownWords, WordVectors
from helpers.features.word_list import WordList
from tests.unit.word_vectors import word_vectors

#: Words with vectors that are easy to add by hand.
TINY = {
    "the": (9, 9), "horse": (1, 0), "sea": (0, 1), "high-speed": (3, 4), "train": (5, 0), "fox": (-1, 0),
    "wolf": (-2, 0), "lady": (0, -1), "King": (4, 1), "dog": (2, 2),
}  # fmt: skip


def tiny(frequency_weight=None) -> WordVectors:
    return word_vectors(list(TINY), np.array(list(TINY.values())), "tiny", frequency_weight)


# ---- lists of words ---------------------------------------------------------------------------------------


@settings(max_examples=40)
@given(st.lists(st.text(st.characters(codec="utf-8"), min_size=1), unique=True, max_size=60), st.text(max_size=5))
@example(["a", "aa", "aaa", "\x00", "\x00\x00"], "aaaa")
def test_a_list_finds_its_words_and_no_others(words, other):
    listed = WordList.of(words)
    assert list(listed) == words and len(listed) == len(words) and listed.repeated() is None
    assert listed.find(words).tolist() == list(range(len(words)))
    assert (listed.find([other])[0] >= 0) == (other in words)


def test_words_with_the_same_hash_are_told_apart(monkeypatch):
    monkeypatch.setattr("helpers.features.word_list._hashes", lambda text, starts: np.zeros(len(starts) - 1, np.uint64))
    listed = WordList.of(["b", "a", "c", "a"])
    assert listed.find(["c", "a", "d"]).tolist() == [2, 1, -1]


def test_a_repeated_word_is_found():
    assert WordList.of(["x", "b", "a", "b"]).repeated() == (1, 3)
    with pytest.raises(ValueError, match="word 1 is empty"):
        WordList.of(["a", ""])


def slow_edits(a: bytes, b: bytes) -> int:
    """Optimal string alignment by the definition."""
    table = [[max(i, j) if not min(i, j) else 0 for j in range(len(b) + 1)] for i in range(len(a) + 1)]
    for i in range(1, len(a) + 1):
        for j in range(1, len(b) + 1):
            same = a[i - 1] == b[j - 1]
            table[i][j] = min(table[i - 1][j] + 1, table[i][j - 1] + 1, table[i - 1][j - 1] + (not same))
            if i > 1 and j > 1 and a[i - 1] == b[j - 2] and a[i - 2] == b[j - 1]:
                table[i][j] = min(table[i][j], table[i - 2][j - 2] + 1)
    return table[-1][-1]


@given(
    st.lists(st.text("abc", min_size=1, max_size=7), min_size=1, unique=True), st.text("abc", min_size=1, max_size=7)
)
@example(["ca", "abc"], "ac")
def test_spellings_are_those_with_the_fewest_edits(words, word):
    limit = 1 if len(word) <= 4 else 2
    edits = [(slow_edits(each.encode(), word.encode()), row) for row, each in enumerate(words)]
    expected = [words[row] for count, row in sorted(edits) if count <= limit]
    assert WordList.of(words).spellings(word, len(words)) == expected


# ---- phrases ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "words", "vector"),
    [
        ("horse", ["horse"], (1, 0)),
        ("sea horses", ["sea", "horse"], (0.5, 0.5)),
        ("Sea_Horse", ["sea", "horse"], (0.5, 0.5)),
        ("sea-horse's", ["sea", "horse"], (0.5, 0.5)),
        ("high-speed train", ["high-speed", "train"], (4, 2)),
        ("high_speed TRAINS", ["high-speed", "train"], (4, 2)),
        ("foxes, wolves; ladies", ["fox", "wolf", "lady"], (-1, -1 / 3)),
        ("King", ["King"], (4, 1)),
        ("Tràin", ["train"], (5, 0)),
        ("dog (dog)", ["dog", "dog"], (2, 2)),
    ],
)
def test_a_phrase_is_the_mean_of_its_words(text, words, vector):
    phrase = tiny().phrase(text)
    assert list(phrase.words) == words and phrase.ignored == () and str(phrase) == " + ".join(words)
    np.testing.assert_allclose(phrase.vector, vector, rtol=1e-6)
    np.testing.assert_allclose(tiny().embed_text(text), np.array(vector) / np.linalg.norm(vector), rtol=1e-6)


def test_frequent_words_weigh_little():
    """By hand: 10 words, the row r has the frequency 1 / (r + 1) / H with H = 2.929, the weight a / (a + frequency)."""
    harmonic = sum(1 / row for row in range(1, 11))
    weights = [0.1 / (0.1 + 1 / row / harmonic) for row in (1, 10)]  # "the" and "dog"
    expected = (weights[0] * np.array([9, 9]) + weights[1] * np.array([2, 2])) / sum(weights)
    np.testing.assert_allclose(tiny(0.1).phrase("the dog").vector, expected, rtol=1e-6)
    with pytest.raises(ValueError, match="frequency_weight must be positive"):
        tiny(0)


def test_a_wordnet_id_stands_for_its_class():
    words = word_vectors(["shark", "white"], np.eye(2), "w", None)
    phrase = words.phrase("n01484850, shark")  # great white shark
    assert phrase.words == ("white", "shark", "shark") and phrase.ignored == ("great",)


def test_unknown_words_are_told():
    phrase = tiny().phrase("a blorble dog")
    assert phrase.words == ("dog",) and phrase.ignored == ("a", "blorble")
    assert str(phrase) == "dog (ignored, because they have no vector: a, blorble)"
    with pytest.raises(UnknownWords) as error:
        tiny().phrase("trian")
    assert str(error.value) == (
        "none of the words of 'trian' has a vector in tiny. Known words with a similar spelling: 'trian': 'train'. "
        "Try other words."
    )
    with pytest.raises(UnknownWords, match=r"none of the words of 'a\\x1b…'|in tiny\. Try"):
        tiny().vector("a\x1b")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the text is empty"),
        (" \n", "the text is empty"),
        ("?!", "'?!' contains no word. Give at least one, such as cat."),
        ("dog " * 2500, "the text has 10,000 characters; at most 1,000 are allowed"),
    ],
)
def test_texts_that_are_no_query(text, message):
    with pytest.raises(TextError) as error:
        tiny().phrase(text)
    assert str(error.value) == message


@given(st.text(max_size=LONGEST + 10))
def test_any_text_gives_a_vector_or_an_error(text):
    try:
        vector = tiny(1e-3).embed_text(text)
    except TextError as error:
        assert str(error).isprintable()
    else:
        assert vector.shape == (2,) and abs(np.linalg.norm(vector) - 1) < 1e-5


def test_names_without_a_known_word_are_zeros(monkeypatch):
    # A search for similar spellings would take seconds for many names.
    monkeypatch.setattr(WordList, "spellings", None)
    found = tiny().embed_names(["dog", "blorble"])
    np.testing.assert_allclose(found, [[0.5**0.5] * 2, [0, 0]], rtol=1e-6)


# ---- nearest words ----------------------------------------------------------------------------------------


@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(1, 40))
def test_nearest_words_are_those_of_scikit_learn(seed, k, most_frequent):
    vectors = np.random.default_rng(seed).standard_normal((30, 4)).astype(np.float32)
    words = word_vectors([f"w{row}" for row in range(30)], np.asfortranarray(vectors), "w")
    cosines = cosine_similarity(vectors[:most_frequent], vectors[7:8])[:, 0]
    expected = [row for row in np.argsort(-cosines) if row != 7][:k]
    found = words.nearest("w7", k, most_frequent=most_frequent)
    assert [each.word for each in found] == [f"w{row}" for row in expected]
    np.testing.assert_allclose([each.score for each in found], cosines[expected], atol=1e-5)


def test_equal_words_are_ordered_by_frequency():
    words = word_vectors(["z", "a", "b", "m"], np.array([[1, 0], [2, 0], [0, 1], [3, 0]]), "w")
    assert [each.word for each in words.nearest(np.array([1, 0]), 2)] == ["z", "a"]
    for wrong in (np.zeros(2), np.ones(3), np.array([np.nan, 1])):
        with pytest.raises(ValueError, match="a query must be a finite vector"):
            words.nearest(wrong)
    with pytest.raises(ValueError, match="k must be at least 1"):
        words.nearest("z", 0)


def test_an_analogy_by_hand():
    """king − man + woman: (1, 1) − (1, 0) + (0, 1) after division by the lengths is nearest to the queen's (0, 1)."""
    table = {"king": (1, 1), "man": (1, 0), "woman": (0.1, 1), "queen": (-0.1, 1), "apple": (-1, -1)}
    words = word_vectors(list(table), np.array(list(table.values())), "w")
    assert words.analogy("man", "king", "woman", 1)[0].word == "queen"
    assert [each.word for each in words.analogy("man", "king", "woman", 9)] == ["queen", "apple"]
    assert len(words.analogy("man", "king", "woman", 9, exclude_inputs=False)) == 5


# ---- text files -------------------------------------------------------------------------------------------

LINES = ["the 0.5 -1 2", "joshua-tree 1e-3 0 7", "naïve 1 2 3"]
VALUES = [[0.5, -1, 2], [1e-3, 0, 7], [1, 2, 3]]


@pytest.fixture
def write(tmp_path, own_cache):
    def write(lines, compress=False):
        file = tmp_path / "vectors.txt"
        content = "\n".join([*lines, ""]).encode(errors="surrogateescape")
        file.write_bytes(gzip.compress(content) if compress else content)
        return file

    return write


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("lines", [LINES, ["3 3", *LINES], [line + " " for line in LINES], [f"{x}\r" for x in LINES]])
def test_text_files_of_glove_and_word2vec(lines, compress, write):
    file = write(lines, compress)
    words = WordVectors.from_file(file)
    assert list(words.words) == ["the", "joshua-tree", "naïve"] and words.name == "vectors.txt"
    np.testing.assert_array_equal(words.vectors, np.array(VALUES, np.float32))
    assert isinstance(words.vectors, np.memmap)


def test_a_file_is_parsed_once(write, own_cache, monkeypatch):
    file = write(LINES)
    word_files.read_text(file)
    with monkeypatch.context() as patch:
        patch.setattr(word_files, "_parse", None)
        assert list(word_files.read_text(file).words)[0] == "the"
    write(["the 1 1 1"])
    assert len(word_files.read_text(file).words) == 1, "another content is parsed again"
    for damaged in own_cache.glob("words/*/vectors.f32"):
        damaged.write_bytes(b"")
    with pytest.raises(word_files.WordFileError, match="is damaged .* Move it away"):
        word_files.read_text(file)


def test_two_processes_may_parse_one_file(write, monkeypatch):
    """The other one finishes first: its folder is there when this one is renamed."""
    file = write(LINES)
    parse = word_files._parse

    def slower(path, folder):
        monkeypatch.setattr(word_files, "_parse", parse)
        word_files.read_text(path)
        parse(path, folder)

    monkeypatch.setattr(word_files, "_parse", slower)
    assert len(word_files.read_text(file).words) == 3


def test_words_with_spaces_and_other_bytes(write):
    """GloVe 840B has both."""
    words = word_files.read_text(write(["a 1 2", "at name@domain.com 3 4", ". . . 5 6", "\udcff 7 8"])).words
    assert list(words) == ["a", "at name@domain.com", ". . .", "\udcff"]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "is empty. A file of word vectors has one word per line"),
        (["5 3"], "has a first line, but no words"),
        (["the"], "line 1: there are no numbers after the word. word2vec's binary files"),
        ([*LINES, "short 1 2"], "line 4: expected a word and 3 numbers, found 2 after the first space. Remove or"),
        ([*LINES, "long 1 2 3 4"], "line 4: expected a word and 3 numbers, found 4"),
        ([*LINES, "", "x 1 2 3"], "line 4: expected a word and 3 numbers, found 0"),
        ([*LINES, "x 1 nan 3"], "line 4: 'nan' is not a finite number"),
        ([*LINES, "x 1 1e99 3"], "line 4: '1e99' is not a finite number"),
        ([*LINES, "x 1 two 3"], "line 4: 'two' is not a finite number. Is this a text file of word vectors?"),
        (["4 3", *LINES], "has 3 words, but its first line says 4. Download it again"),
        (["4 3", *LINES, "the 1 1 1"], "the word 'the' is on line 2 and again on line 5. Remove one of the lines"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("compress", [False, True])
def test_damaged_text_files(lines, message, compress, write, own_cache):
    file = write(lines, compress)
    if not lines:
        file.write_bytes(b"")
    with pytest.raises(word_files.WordFileError) as error:
        word_files.read_text(file)
    assert str(error.value).startswith(str(file)) and message in str(error.value)
    assert list(own_cache.glob("words/*")) == [], "nothing is left"


def test_other_files(write, tmp_path):
    file = write(LINES, compress=True)
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(word_files.WordFileError, match="is cut off or damaged"):
        word_files.read_text(file)
    whole = gzip.compress("\n".join(LINES).encode())
    # Beyond the header, each damaged byte makes zlib fail or the checksum wrong.
    for position in range(10, len(whole)):
        file.write_bytes(whole[:position] + bytes([whole[position] ^ 0xFF]) + whole[position + 1 :])
        with pytest.raises(word_files.WordFileError, match="is cut off or damaged"):
            word_files.read_text(file)
    file.write_bytes(b"PK\3\4 and more")
    with pytest.raises(word_files.WordFileError, match="is a ZIP archive. Unpack it"):
        word_files.read_text(file)
    file.write_bytes(b"3000000 300\nin \x00\x8f\x12\xa0\n\x03" * 50)
    with pytest.raises(word_files.WordFileError, match="line 2: expected a word and 300 numbers"):
        word_files.read_text(file)
    with pytest.raises(FileNotFoundError):
        word_files.read_text(tmp_path / "none.txt")


@settings(max_examples=40)
@given(content=st.binary(max_size=200))
def test_no_content_raises_another_error(content, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("words")
        patch.setenv("LOOKALIKE_CACHE", str(folder / "cache"))
        (folder / "x.txt").write_bytes(content)
        try:
            table = word_files.read_text(folder / "x.txt")
        except word_files.WordFileError:
            return
        assert len(table.words) == len(table.vectors) and np.isfinite(table.vectors).all()


# ---- the package ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def glove():
    try:
        return WordVectors.glove()
    except extras.MissingExtra as error:
        pytest.skip(f"NOT TESTED with GloVe: {error}")


def test_glove(glove):
    assert glove.vectors.shape == (400_000, 50) and glove.words[0] == "the" and glove.words.repeated() is None
    np.testing.assert_allclose(glove.vector("the")[:3], [0.418, 0.24968, -0.41242], rtol=1e-6)
    assert glove.nearest("frog", 2)[0].word in ("frogs", "toad", "snake")
    assert glove.analogy("france", "paris", "japan", 1)[0].word == "tokyo"
    assert "helicopter" in glove.spellings("helicoptre")
    assert [glove.phrase(text).words for text in ("sea horses", "joshua_tree", "high-speed train")] == [
        ("sea", "horses"), ("joshua", "tree"), ("high-speed", "train"),
    ]  # fmt: skip


def test_a_changed_package_is_not_used(tmp_path, monkeypatch):
    folder = tmp_path / word_files.PACKAGE / "data"
    folder.mkdir(parents=True)
    (folder.parent / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    # Another test may have imported the real package.
    monkeypatch.delitem(sys.modules, word_files.PACKAGE, raising=False)
    with pytest.raises(word_files.WordFileError, match="cannot be read .*pip install --force-reinstall"):
        word_files.glove()
    for name in word_files.GLOVE_FILES:
        (folder / name).write_bytes(b"other")
    with pytest.raises(word_files.WordFileError, match="SHA-256 is wrong.*pip install --force-reinstall"):
        word_files.glove()
