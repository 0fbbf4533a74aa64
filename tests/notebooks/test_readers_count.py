"""What readers of rewritten notebooks find: library calls that run, visible numbers, short bookkeeping, alt text."""

import ast
import functools
import re
import textwrap
from collections.abc import Iterable, Iterator

import nbformat
import pytest

from helpers.lessons import runner

#: The notebooks that are rewritten. All tests of this module hold for them.
REWRITTEN = ["00", "01", "02", "03", "04", "05", "06", "07", "08", "09", "10", "11", "12", "13", "16", "17", "18"]
#: Those that follow the core path.
ADVANCED = ["06", "08", "11", "12", "13", "16", "17", "18"]

#: What cells of each notebook call. A name without a dot is that of a method or function of any object.
CALLS = {
    "00": ["numpy.argsort", "predict"],
    "01": ["sklearn.datasets.fetch_lfw_people"],
    "02": ["keras.utils.image_dataset_from_directory"],
    "03": [
        *(f"keras.layers.Random{name}" for name in ("Flip", "Rotation", "Zoom", "Translation", "Contrast")),
        "keras.Sequential", "copies",
    ],
    "04": [
        "keras.Sequential", "keras.layers.Conv2D", "keras.layers.MaxPooling2D", "compile", "fit", "evaluate",
        "keras.callbacks.EarlyStopping", "keras.callbacks.ReduceLROnPlateau",
    ],
    "05": [
        "keras.applications.ResNet152", "keras.applications.EfficientNetV2L", "preprocess_input", "predict",
        "keras.layers.GlobalAveragePooling2D",
    ],
    "06": [
        "keras.Model", "keras.layers.Flatten", "keras.layers.GlobalAveragePooling2D",
        "keras.layers.GlobalMaxPooling2D", "numpy.linalg.eigh", "sklearn.decomposition.PCA", "pooling.squares",
        "projection.learn", "regions", "principal_axes",
    ],
    "07": [
        "cv2.SIFT_create", "cv2.ORB_create", "detectAndCompute", "cv2.drawKeypoints", "cv2.BFMatcher", "knnMatch",
        "cv2.findHomography", "cv2.perspectiveTransform", "graffiti", "box",
    ],
    "08": [
        "cv2.calcHist", "cv2.HOGDescriptor", "cv2.SIFT_create", "detectAndCompute", "sklearn.cluster.MiniBatchKMeans",
        "sklearn.feature_extraction.text.TfidfTransformer", "sklearn.mixture.GaussianMixture", "predict_proba",
        "sklearn.metrics.davies_bouldin_score", "bag_of_words", "soft_words", "vlad", "fisher",
    ],
    "09": ["sklearn.neighbors.NearestNeighbors", "make_query", "evaluation"],
    "10": ["top_k", "average_precision", "metrics.evaluate"],
    "12": [
        "sklearn.neighbors.NearestNeighbors", "kneighbors", "numpy.linalg.solve", "cv2.BFMatcher", "knnMatch",
        "cv2.findHomography", "rerank", "rerank.k_reciprocal", "compare_rerankers",
    ],
    "16": [
        "fastapi.FastAPI", "app.post", "uvicorn.Server", "uvicorn.Config", "session.post", "requests.post",
        "sqlite3.connect", "os.fsync", "child.kill", "Batcher", "ServiceProcess", "screenshot",
    ],
    "13": [
        "sklearn.neighbors.NearestNeighbors", "sklearn.cluster.KMeans", "faiss.IndexIVFFlat", "faiss.IndexHNSWFlat",
        "faiss.IndexPQ", "annoy.AnnoyIndex", "get_nns_by_vector", "scipy.cluster.vq.kmeans2", "best_first",
        "open_index", "synthetic_check.compare",
    ],
    "18": [
        "usearch.index.Index", "load_index", "tune", "estimated_bytes", "measure_server", "distributed.extract",
        "search_shards", "remove", "payload",
    ],
    "17": [
        "sklearn.pipeline.make_pipeline", "sklearn.model_selection.GridSearchCV", "sklearn.decomposition.PCA",
        "pytrec_eval.RelevanceEvaluator", "keras.optimizers.AdamW", "compile", "fit", "predict", "out_of_fold",
        "cifar_networks.fully_connected", "cifar_networks.small_cnn", "train_and_measure",
        "ray.tune.Tuner", "ray.tune.schedulers.ASHAScheduler", "tuning.draw", "tuning.search",
    ],
    "11": [
        "sklearn.decomposition.PCA", "sklearn.discriminant_analysis.LinearDiscriminantAnalysis", "numpy.linalg.eigh",
        "keras.ops.matmul", "keras.ops.relu", "fit", "compile", "PKSampler", "TripletLoss", "SupConLoss",
    ],
}  # fmt: skip

#: Arguments of these calls, as ``ast.unparse`` writes them.
ARGUMENTS = {
    "05": ["include_top=False", "training=False"],
    "06": ["include_top=False", "whiten=True", "whitening=1"],
    "07": ["crossCheck=True", "cv2.RANSAC", "k=2"],
    "09": ["n_neighbors=6"],
    "12": ["'expansion'", "'alpha-expansion'", "'k-reciprocal'", "'diffusion'", "'geometry'"],
    "11": ["whiten=True"],
}

#: Other code of the cells that a reader needs to see.
CODE = {
    "05": [r"\.trainable = False"],
    "07": [r"DRAW_RICH_KEYPOINTS", r"\.distance < 0\.8 \* \w+\.distance"],
    "09": [r"def make_query\(", r"def evaluation\("],
    "10": [r"def top_k\(", r"def average_precision\("],
    "11": [r"class BatchHard\(keras\.losses\.Loss\)", r"class Batches\(keras\.utils\.PyDataset\)"],
}

#: What only cells that are tagged `bookkeeping` may call.
BOOKKEEPING = {"lesson.record", "lesson.expect", "lesson.finish", "leaderboard.record", "Lesson", "to_csv"}

#: Published numbers, numbers of examples and settings of helpers that no cell shows → where they come from.
STATED = {
    "00": {"1.5": "hours of a notebook", "2.5": "hours of a notebook"},
    "04": {"96 %": "the accuracy that the report of the faces network states"},
    "05": {"23 of the 26": "validation images with another one of their class"},
    "08": {"250 of 1,000": "the images of an exercise"},
    "09": {"0.68": "the cosine similarity of an exercise"},
    "10": {"96 %": "the published accuracy"},
    "12": {
        "0.3": "the weight of the former distance, in the table of the registry",
        "0.6": "a vector of an exercise",
        "0.8": "a vector of an exercise",
    },
    "13": {"1.5": "seconds that the published system reports", "0.2": "seconds that the published system reports"},
    "17": {
        "0.0019": "the published MAP@100 of visual words",
        "0.0088": "that of VGG-16",
        "0.001": "a learning rate",
        "0.002": "a learning rate",
        "0.01": "a learning rate",
        "0.02": "a learning rate",
    },
}

#: These data sets are measured in the full profile only.
DATA_SETS = re.compile(r"LFW|Imagenette|Caltech|CIFAR")

#: A decimal number, a percentage, or a count of a total.
NUMBER = re.compile(r"(?<![\d.\w-])(?:\d+(?:\.\d+)? ?%|\d+\.\d+|\d+(?:,\d{3})* of (?:the )?\d+(?:,\d{3})*)(?![\d.]*\d)")
#: What makes the next number a bound, or the result of a calculation in the text.
NO_RESULT = re.compile(r"(?:\b(?:less than|more than|below|above|at most|at least|up to|under)|=) (?:about )?$")
#: A citation as a part of the sentence, such as "Lowe (2004)": the numbers of the sentence are published ones.
CITATION = re.compile(r"[A-Z][\w'-]+(?: et al\.)? \((?:19|20)\d\d\)")
PUBLISHED = re.compile(r"\b(?:study|project|report) (?:reports|states)\b")
#: The level of intervals.
LEVEL = "95 %"
#: A number of fewer than three decimals is visible if one of so many cells before and after its text shows it.
BEFORE, AFTER = 6, 2
#: Words that state a result.
RESULT = re.compile(r"\b(?:better|worse|higher|lower|raise[sd]?|reach(?:es|ed)?|gains?|loses?|overlap|twice)\b")


@functools.cache
def read(name: str) -> nbformat.NotebookNode:
    (path,) = runner.select(name)
    return nbformat.read(path, as_version=4)


@functools.cache
def read_solutions(name: str) -> nbformat.NotebookNode:
    (path,) = (runner.NOTEBOOKS / "solutions").glob(f"{name}_*.ipynb")
    return nbformat.read(path, as_version=4)


def code_cells(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    """The code cells that ran."""
    return [cell for cell in notebook.cells if cell.cell_type == "code" and cell.execution_count]


def outputs_of(cells: Iterable[nbformat.NotebookNode]) -> list[str]:
    """The texts of all outputs, as a reader sees them."""
    outputs = [output for cell in cells if cell.cell_type == "code" for output in cell.outputs]
    texts = [output.get("text", "") for output in outputs]
    for output in outputs:
        texts += [text for kind, text in output.get("data", {}).items() if kind in ("text/markdown", "text/plain")]
        texts.append(re.sub(r"<[^>]+>", " ", output.get("data", {}).get("text/html", "")))
    return texts


def prose_of(cell: nbformat.NotebookNode) -> str:
    """The text of a Markdown cell without code, formulas and links; nothing of the references."""
    if cell.cell_type != "markdown" or cell.source.startswith("## References"):
        return ""
    return re.sub(r"```.*?```|`[^`]*`|\$[^$]*\$|\]\([^)]*\)|<http[^>]*>", " ", cell.source, flags=re.DOTALL)


def sentences_of(cell: nbformat.NotebookNode) -> list[str]:
    return [part for part in re.split(r"(?<=[.!?])\s+|\n", prose_of(cell)) if part.strip()]


def results_in(text: str) -> Iterator[str]:
    """The numbers that a text states as measured results."""
    for match in NUMBER.finditer(text):
        other = text[match.end() :].startswith(" hour") or CITATION.search(text) or match[0] == LEVEL
        if not other and not NO_RESULT.search(text[: match.start()]):
            yield match[0]


def literals_of(cells: Iterable[nbformat.NotebookNode]) -> list[str]:
    """The numbers in the code: settings that the reader sees."""
    nodes = [node for cell in cells if cell.cell_type == "code" for node in ast.walk(ast.parse(cell.source))]
    values = [node.value for node in nodes if isinstance(node, ast.Constant)]
    numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    return [*map(repr, numbers), *(f"{100 * value:g} %" for value in numbers if 0 < value < 1)]


def is_shown(number: str, texts: Iterable[str]) -> bool:
    """Whether a text contains a number, even with more digits, or the share for a percentage."""
    texts = list(texts)
    if " of " in number:
        return all(is_shown(part, texts) for part in re.split(r" of (?:the )?", number))
    percent, quoted = number.endswith("%"), number.rstrip("% ").replace(",", "")
    digits = len(quoted.partition(".")[2])
    for found in re.finditer(r"(?<![\d.])(\d+(?:\.\d+)?)( ?%)?", "\n".join(texts).replace(",", "")):
        power = 2 if percent and not found[2] else 0
        has_digits = len(found[1].partition(".")[2]) - power >= digits
        near = abs(float(found[1]) * 10**power - float(quoted)) <= 0.5 * 10.0**-digits + 1e-9
        if has_digits and near and (percent or not found[2]):
            return True
    return False


def invisible_numbers(notebook: nbformat.NotebookNode, stated: Iterable[str] = ()) -> list[str]:
    """``number: sentence`` of the results in a notebook's text that no cell shows."""
    everything, found = outputs_of(notebook.cells), []
    for place, cell in enumerate(notebook.cells):
        nearby = notebook.cells[max(0, place - BEFORE) : place + AFTER + 1]
        seen = outputs_of(nearby) + literals_of(nearby)
        for sentence in sentences_of(cell):
            for number in results_in(sentence):
                precise = len(number.partition(".")[2]) >= 3 and not number.endswith("%")
                if number not in stated and not is_shown(number, everything if precise else seen):
                    found.append(f"{number}: {sentence}")
    return found


def unsupported_sentences(notebook: nbformat.NotebookNode, stated: Iterable[str] = ()) -> list[str]:
    """Sentences with a result on a data set that stand under no table of the full profile with their numbers.

    A published result is cited, not measured.
    """
    found = []
    for place, cell in enumerate(notebook.cells):
        before = outputs_of(notebook.cells[:place])
        tables = [text for text in before if text.startswith("Full profile")]
        for sentence in sentences_of(cell):
            numbers = [number for number in results_in(sentence) if number not in stated]
            if not DATA_SETS.search(sentence) or not (numbers or RESULT.search(sentence)):
                continue
            if PUBLISHED.search(sentence) or CITATION.search(sentence):
                continue
            seen = before if re.search("sample|AT&T", sentence) else tables
            if not tables or not all(is_shown(number, seen) for number in numbers):
                found.append(sentence)
    return found


def names_in(tree: ast.Module) -> dict[str, str]:
    """Local name → full name of everything that a module imports."""
    names = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {each.asname or each.name.partition(".")[0]: each.asname and each.name for each in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {each.asname or each.name: f"{node.module}.{each.name}" for each in node.names}
    return {local: full or local for local, full in names.items()}


def calls_in(cells: Iterable[nbformat.NotebookNode]) -> tuple[set[str], set[str]]:
    """(names, arguments) of the calls; a name is given in full, and by each of its endings."""
    tree = ast.parse("\n".join(cell.source for cell in cells))
    imported, names, arguments = names_in(tree), set(), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            first, *others = ast.unparse(node.func).split(".")
            parts = [*imported.get(first, first).split("."), *others]
            names |= {".".join(parts[start:]) for start in range(len(parts))}
            arguments |= {ast.unparse(each) for each in node.args}
            arguments |= {f"{each.arg}={ast.unparse(each.value)}" for each in node.keywords}
    return names, arguments


@pytest.mark.parametrize("name", REWRITTEN)
class TestReadersCount:
    def test_named_calls_stand_in_cells_that_ran(self, name):
        cells = code_cells(read(name))
        names, arguments = calls_in(cells)
        assert set(CALLS[name]) - names == set()
        assert set(ARGUMENTS.get(name, ())) - arguments == set()
        code = ast.unparse(ast.parse("\n".join(cell.source for cell in cells)))
        assert [pattern for pattern in CODE.get(name, ()) if not re.search(pattern, code)] == []

    def test_has_30_to_60_cells_and_short_functions(self, name):
        notebook = read(name)
        assert 30 <= len(notebook.cells) <= 60
        for cell in code_cells(notebook):
            for node in ast.walk(ast.parse(cell.source)):
                if isinstance(node, ast.FunctionDef):
                    assert node.end_lineno - node.lineno < 40, node.name

    def test_bookkeeping_is_short_and_tagged(self, name):
        cells = code_cells(read(name))
        tagged = [cell for cell in cells if "bookkeeping" in cell.metadata.get("tags", [])]
        assert tagged and all(cell.metadata["jupyter"]["source_hidden"] for cell in tagged)
        lines, all_lines = (
            [line for cell in each for line in cell.source.splitlines() if line.strip()] for each in (tagged, cells)
        )
        assert len(lines) < 0.12 * len(all_lines)
        names, _ = calls_in(cell for cell in cells if cell not in tagged)
        assert names & BOOKKEEPING == set()

    def test_every_number_of_the_text_is_visible(self, name):
        assert invisible_numbers(read(name), STATED.get(name, ())) == []

    def test_results_on_data_sets_stand_under_a_table_of_the_full_profile(self, name):
        assert unsupported_sentences(read(name), STATED.get(name, ())) == []

    def test_every_figure_has_a_description(self, name):
        for cell in code_cells(read(name)) + code_cells(read_solutions(name)):
            for output in cell.outputs:
                for kind in {"image/png", "image/jpeg"} & output.get("data", {}).keys():
                    assert len(output.metadata.get(kind, {}).get("alt", "").split()) >= 4, cell.source

    def test_no_cell_prints_many_lines(self, name):
        for cell in code_cells(read(name)):
            printed = [output.get("text", "") for output in cell.outputs if output.output_type == "stream"]
            assert sum(text.count("\n") for text in printed) <= 20, cell.source

    def test_the_text_never_says_the_mirror(self, name):
        text = "\n".join(cell.source for cell in read(name).cells)
        assert not re.search(r"\bthe mirror\b(?! image)", text, re.IGNORECASE)

    def test_states_prerequisites_and_the_hours_of_notebook_00(self, name):
        first = read(name).cells[0].source
        assert "**Prerequisites:**" in first
        stated = re.search(r"\*\*Time:\*\* about (.+?) hours? to work through", first)[1]
        hours = {"two": "2", "two and a half": "2.5"}.get(stated, stated)
        course = "\n".join(cell.source for cell in read("00").cells)
        (row,) = re.findall(rf"^\| \[?{name} .*", course, re.MULTILINE)
        kind = "advanced" if name in ADVANCED else "core"
        assert [cell.strip() for cell in row.split("|")][2:4] == [kind, hours]

    def test_has_three_kinds_of_exercises_and_solved_questions(self, name):
        text, solutions = (
            "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
            for notebook in (read(name), read_solutions(name))
        )
        questions = text.partition("Three questions")[2].partition("## Exercises")[0]
        solved = re.search(r"questions\s*\n(.*?)(?:\n## |\Z)", solutions, re.DOTALL)[1]
        assert len(re.findall(r"^\d\. ", questions, re.MULTILINE)) == 3
        assert len(re.findall(r"^(?:\d\. )?\*\*", solved, re.MULTILINE)) >= 3
        exercises = text.partition("## Exercises")[2]
        kinds = [r"Compute|Read", r"Write a function", r"Change .*explain"]
        assert all(re.search(kind, exercises) for kind in kinds)
        names, arguments = calls_in(code_cells(read(name)))
        assert "check_exercise" in names and {f"'{name}.1'", f"'{name}.2'"} <= arguments

    def test_ends_with_references(self, name):
        (references,) = [cell.source for cell in read(name).cells if cell.source.startswith("## References")]
        entries = re.findall(r"^- .*", references, re.MULTILINE)
        dated = [entry for entry in entries if re.search(r"\b(?:1[89]|20)\d\d\b|no date", entry)]
        assert len(dated) >= 3 and len(entries) - len(dated) <= 1


def a_notebook(*cells):
    """A notebook of strings (text), and pairs (code, output)."""
    made = []
    for number, cell in enumerate(cells, 1):
        if isinstance(cell, str):
            made.append(nbformat.v4.new_markdown_cell(cell))
        else:
            outputs = [nbformat.v4.new_output("display_data", {"text/markdown": cell[1]})]
            made.append(nbformat.v4.new_code_cell(cell[0], execution_count=number, outputs=outputs))
    return nbformat.v4.new_notebook(cells=made)


def test_numbers_that_no_cell_shows_are_found():
    shown = (
        "bound, scale = 0.25, 0.7",
        "mAP 0.6366, verified 89.2%, found 12 of 65, accuracy 0.74, 82.8 and 244.6 keypoints",
    )
    text = "It finds 12 of 65, mAP 0.637, 89.2 % and 74 %, 0.25, 70 %; below 0.9; 83 of the 245; 2 · 1.5 = 3.0; 95 % ."
    assert [entry.partition(":")[0] for entry in invisible_numbers(a_notebook(text, shown))] == ["1.5"]
    wrong = ["0.638", "13 of 65", "89.3 %", "0.75", "84 of the 245", "5.8"]
    found = invisible_numbers(a_notebook(shown, *(f"It is {number} here." for number in wrong)))
    assert [entry.partition(":")[0] for entry in found] == wrong
    far = a_notebook(shown, *["text"] * BEFORE, "First 0.74, then 0.637, `0.111` and [here](0.222).")
    assert [entry.partition(":")[0] for entry in invisible_numbers(far)] == ["0.74"]
    assert invisible_numbers(far, {"0.74"}) == []


def test_results_without_a_table_of_the_full_profile_are_found():
    table = ("show()", "Full profile, from `figures/x.csv`:\n\n| sift | 0.640 |")
    own = ("print()", "0.325")
    sentences = [
        "On LFW it reaches 0.640.",
        "On LFW it reaches 0.325.",
        "SIFT is better on Imagenette.",
        "LFW has faces.",
    ]
    assert unsupported_sentences(a_notebook(own, " ".join(sentences), table)) == sentences[:3]
    assert unsupported_sentences(a_notebook(own, table, " ".join(sentences))) == [sentences[1]]
    published = "A published study reports 0.0019 on CIFAR-10.", "Barz & Denzler (2020) find 3.3 % in CIFAR-10."
    assert unsupported_sentences(a_notebook(*published)) == []


def test_calls_are_those_of_the_code():
    code = """
        import cv2 as cv
        from keras import layers
        # cv.ORB_create()
        text = "cv.BFMatcher()"
        sift = cv.SIFT_create()
        layers.Conv2D(1, k=2)
        sift.detectAndCompute(image, None)
    """
    names, arguments = calls_in([nbformat.v4.new_code_cell(textwrap.dedent(code))])
    assert {"cv2.SIFT_create", "keras.layers.Conv2D", "detectAndCompute"} <= names
    assert not {"cv2.ORB_create", "cv2.BFMatcher"} & names and {"k=2", "None"} <= arguments
