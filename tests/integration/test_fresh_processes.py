"""What a new process imports, reads and computes."""

import hashlib
import os
import subprocess
import sys

import cv2
import numpy as np

from helpers import paths
from helpers.features import keypoints
from helpers.features.faces import FaceExtractor
from helpers.features.visual_words import ENCODINGS, VisualWords
from helpers.images import att_faces, samples
from helpers.search.index import open_index

#: A face of the AT&T set.
ROW = 8

#: What another process computes: a hash of keypoints and vectors, on so many threads.
FRESH = """
import sys, cv2, joblib
from tests.integration.test_fresh_processes import numbers
joblib.cpu_count = lambda: int(sys.argv[1])
cv2.setNumThreads(int(sys.argv[1]))
print(numbers())
"""


def numbers():
    """A hash of the keypoints of each kind and of every encoding of some photographs."""
    images = samples.photos().subset(range(0, 120, 24))
    found = [keypoints.extract_set(images, kind, 100, progress=False) for kind in keypoints.KINDS]
    arrays = [array for kind in found for one in kind for array in (one.descriptors, *one.geometry)]
    arrays += [VisualWords(encoding).extract(images, cache=False, progress=False) for encoding in ENCODINGS]
    return hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()


def test_another_process_with_one_thread_gives_the_same_numbers(own_cache, tmp_path):
    variables = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    environment = os.environ | dict.fromkeys(variables, "1") | {"LOOKALIKE_CACHE": str(tmp_path / "other")}
    done = subprocess.run(
        [sys.executable, "-c", FRESH, "1"], cwd=paths.ROOT, env=environment, capture_output=True, text=True, check=True
    ).stdout
    cv2.setNumThreads(3)
    try:
        assert done.strip() == numbers()
    finally:
        cv2.setNumThreads(-1)


def test_keras_comes_with_augmentation_only():
    code = "import sys, helpers.images.reading, helpers.images.samples; sys.exit('keras' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_commands_hide_the_startup_log_of_tensorflow_only(tmp_path):
    """A package in place of TensorFlow, whose import takes seconds, writes its log and another message."""
    (tmp_path / "tensorflow").mkdir()
    messages = [
        "WARNING: All log messages before absl::InitializeLog() is called are written to STDERR",
        "I0000 00:00:1.5   31247 port.cc:153] oneDNN custom operations are on. You may see",
        "E0000 00:00:1.5   31247 cuda.cc:1] an error",
    ]
    lines = [f"os.write(2, {(message + chr(10)).encode()!r})" for message in messages]
    (tmp_path / "tensorflow" / "__init__.py").write_text("\n".join(["import os", *lines, "VALUE = 3"]))
    code = (
        "import sys\nfrom helpers.cli.common import quiet_libraries\nquiet_libraries()\nquiet_libraries()\n"
        "sys.stderr.write('before ')\nimport tensorflow\nsys.stderr.write(f'after {tensorflow.VALUE}')\n"
    )
    environment = paths.child_environment()
    environment["PYTHONPATH"] = os.pathsep.join([str(tmp_path), environment["PYTHONPATH"]])
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stderr == f"before {messages[2]}\nafter 3"


def test_a_process_that_finds_it_imports_no_tensorflow(own_cache):
    # Not above, because it imports Keras, and another process imports this file.
    from tests.unit.test_compiled import kept

    kept()
    code = (
        "import sys, numpy as np; from helpers.networks.compiled import fastest\n"
        "print(fastest(None, 'small', {'weights': '1'}, 'openvino')(np.zeros((1, 24, 24, 3), np.uint8)).shape)\n"
        "assert 'tensorflow' not in sys.modules and 'keras' not in sys.modules\n"
        "assert sys.modules['openvino_telemetry'] is None, 'nothing is reported to anybody'"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=paths.ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "(1, 5)\n"), done.stderr


def test_another_process_gives_the_same_face_vector():
    vectors = FaceExtractor(size=250).extract(att_faces.load().subset([ROW]), cache=False, progress=False)
    script = (
        "import hashlib, sys\nfrom helpers.features.registry import open_extractor\n"
        "from helpers.images import att_faces\n"
        f"found = open_extractor('dlib-face', size=250).extract(att_faces.load().subset([{ROW}]), cache=False)\n"
        "assert not {'face_recognition_models', 'pkg_resources', 'tensorflow'} & set(sys.modules)\n"
        "print(hashlib.sha256(found.tobytes()).hexdigest())"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=paths.ROOT, timeout=120
    )
    assert done.stdout.strip() == hashlib.sha256(vectors.tobytes()).hexdigest()


def test_faiss_works_after_usearch():
    """FAISS crashes if USearch was loaded before it."""
    code = (
        "import numpy as np\n"
        "from helpers.search.index import open_index\n"
        "vectors = np.random.default_rng(0).random((2000, 8))\n"
        "for spec in ('usearch:cosine', 'faiss:ivf'):\n"
        "    print(open_index(spec).add(vectors).search(vectors[7:8], 1).ids[0, 0])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=paths.ROOT)
    assert (done.returncode, done.stdout.split()) == (0, ["7", "7"]), done.stderr


def test_without_annoy_the_error_says_what_it_needs():
    code = (
        "import sys; sys.modules['annoy'] = None\n"
        "from helpers.search.index import open_index\n"
        "try: open_index('annoy:angular')\n"
        "except ImportError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "C++ compiler" in done.stdout and "pip install 'lookalike[annoy]'" in done.stdout


def test_opening_a_mapped_file_does_not_read_it(tmp_path):
    """Pages that were read count as the process's own: the child reports how much opening 32 MB added."""
    vectors = np.random.default_rng(0).standard_normal((8192, 1024)).astype(np.float32)
    for spec in ("faiss:flat", "faiss:ivf?lists=4", "usearch:cosine?connectivity=4&expansion_add=4"):
        path = open_index(spec).add(vectors).save(tmp_path / "big.index")
        assert path.stat().st_size > 32e6
        code = f"""
import faiss, usearch.index
from pathlib import Path
from helpers.search.index import load_index
import numpy as np
def resident(): return int(Path("/proc/self/statm").read_text().split()[1]) * 4096
before = resident()
index = load_index({str(path)!r}, mmap=True)
print(resident() - before)
assert len(index.search(np.ones((1, 1024)), 3).ids[0]) == 3
"""
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        # The system reads a little ahead, by megabytes where it likes.
        assert int(done.stdout) < 20e6, spec
