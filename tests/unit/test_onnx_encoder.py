"""Encoders in folders of ONNX files, made by these tests as Hugging Face repositories have them, with random weights.

The reference implementation is `onnx.reference.ReferenceEvaluator` with preprocessing in NumPy.
"""

import json
import pickle
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest
import tokenizers
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from PIL import Image

from helpers import extras
from helpers.cli.common import explain_error
from helpers.features import image_processor, store
from helpers.features.composite import Concatenated, TestTimeAugmentation
from helpers.features.encoder_files import EncoderError, pooled
from helpers.features.image_processor import load_processor
from helpers.features.registry import open_extractor
from helpers.features.text_encoder import (
    NoTextEncoder,
    TextEncoder,
    TruncatedTextWarning,
    text_encoder,
)
from helpers.features.text_tokenizer import TextTokenizer
from helpers.images import samples
from helpers.images.reading import read_image
from helpers.networks import onnx_files
from helpers.networks.onnx_files import OnnxFileError
from helpers.search.engine import Engine, EngineFolderError

SIZE, PATCH, WIDTH, DIM = 48, 16, 24, 10
WORDS = ["a", "photo", "of", "the", "cat", "dog", "boat", "duck", "at", "night", "without", "snow"]
TEXTS = ["a photo of the cat", "a boat at night", "dog"]
CLIP_MEAN, CLIP_STD = image_processor.PROCESSORS["CLIP"]["image_mean"], image_processor.PROCESSORS["CLIP"]["image_std"]


# ---- folders ------------------------------------------------------------------------------------------


class Graph:
    """Collects nodes and random weights of an ONNX model."""

    def __init__(self, seed: int, kind: int = TensorProto.FLOAT):
        self.random, self.kind = np.random.default_rng(seed), kind
        self.nodes, self.weights = [], []

    def weight(self, *shape: int, values=None) -> str:
        values = self.random.normal(0, 0.5, shape) if values is None else np.asarray(values)
        if values.dtype.kind == "f":
            values = values.astype(helper.tensor_dtype_to_np_dtype(self.kind))
        self.weights.append(numpy_helper.from_array(values, f"w{len(self.weights)}"))
        return self.weights[-1].name

    def add(self, op: str, *inputs: str, name: str | None = None, **attributes) -> str:
        name = name or f"n{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, list(inputs), [name], **attributes))
        return name

    def attend(self, x: str, mask: str | None = None) -> str:
        """A layer of self-attention with a residual connection and layer normalization."""
        q, k, v = (self.add("MatMul", x, self.weight(WIDTH, WIDTH)) for _ in range(3))
        scores = self.add("MatMul", q, self.add("Transpose", k, perm=[0, 2, 1]))
        scores = self.add("Mul", scores, self.weight(values=np.float32(WIDTH**-0.5)))
        if mask is not None:
            scores = self.add("Add", scores, mask)
        y = self.add("Add", x, self.add("MatMul", self.add("Softmax", scores, axis=-1), v))
        return self.add("LayerNormalization", y, self.weight(WIDTH), self.weight(WIDTH), axis=-1)

    def save(self, path: Path, inputs: list, outputs: dict[str, list]) -> None:
        results = [helper.make_tensor_value_info(name, self.kind, shape) for name, shape in outputs.items()]
        graph = helper.make_graph(self.nodes, "encoder", inputs, results, self.weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
        onnx.checker.check_model(model)
        path.parent.mkdir(parents=True, exist_ok=True)
        onnx.save(model, path)


def write_vision(
    path: Path, *outputs: str, seed: int = 0, dim: int = DIM, size: int = SIZE, axes=None,
    kind: int = TensorProto.FLOAT, class_token: bool = True,
) -> None:  # fmt: skip
    """A vision transformer of one layer with these outputs; ``axes`` are those of its input."""
    graph = Graph(seed, kind)
    axes = ["batch", 3, "height", "width"] if axes is None else axes
    patches = graph.add(
        "Conv", "pixel_values", graph.weight(WIDTH, 3, PATCH, PATCH), strides=[PATCH, PATCH], kernel_shape=[PATCH] * 2
    )
    flat = graph.add("Reshape", patches, graph.weight(values=np.array([0, WIDTH, -1])))
    x = graph.add("Transpose", flat, perm=[0, 2, 1])
    if class_token:
        count = graph.add("Shape", x, start=0, end=1)
        shape = graph.add("Concat", count, graph.weight(values=np.array([1, WIDTH])), axis=0)
        x = graph.add("Concat", graph.add("Expand", graph.weight(1, 1, WIDTH), shape), x, axis=1)
    x = graph.add("Add", x, graph.weight(1, (size // PATCH) ** 2 + class_token, WIDTH))
    hidden = graph.add("Identity", graph.attend(x), name="last_hidden_state")
    pooler = graph.add("Gather", hidden, graph.weight(values=np.array(0)), axis=1)
    pooler = graph.add("Tanh", graph.add("MatMul", pooler, graph.weight(WIDTH, dim)), name="pooler_output")
    graph.add("MatMul", pooler, graph.weight(dim, dim), name="image_embeds")
    shapes = {"last_hidden_state": ["batch", "tokens", WIDTH]}
    shapes |= {name: ["batch", dim] for name in ("pooler_output", "image_embeds")}
    image = helper.make_tensor_value_info("pixel_values", kind, axes)
    graph.save(path, [image], {name: shapes[name] for name in outputs})


def write_text(
    path: Path, output: str, seed: int = 1, dim: int = DIM, length: int = 77, axes=("batch", "tokens"),
    masked: bool = True, kind: int = TensorProto.FLOAT,
) -> None:  # fmt: skip
    """A text transformer of one layer: as in CLIP the vector is at the largest token id, else at the last token."""
    graph = Graph(seed, kind)
    x = graph.add("Gather", graph.weight(40, WIDTH), "input_ids", axis=0)
    x = graph.add("Add", x, graph.weight(1, length, WIDTH))
    mask = None
    if masked:
        inverse = graph.add("Sub", graph.weight(values=np.int64(1)), "attention_mask")
        mask = graph.add("Mul", graph.add("Cast", inverse, to=kind), graph.weight(values=np.float32(-1e4)))
        mask = graph.add("Unsqueeze", mask, graph.weight(values=np.array([1])))
    hidden = graph.attend(x, mask)
    if output == "text_embeds":
        end = graph.add("ArgMax", "input_ids", axis=1, keepdims=1)
        vector = graph.add("GatherND", hidden, end, batch_dims=1)
    else:
        vector = graph.add("Gather", hidden, graph.weight(values=np.array(-1)), axis=1)
    graph.add("MatMul", vector, graph.weight(WIDTH, dim), name=output)
    names = ["input_ids", "attention_mask"] if masked else ["input_ids"]
    inputs = [helper.make_tensor_value_info(name, TensorProto.INT64, axes) for name in names]
    graph.save(path, inputs, {output: ["batch", dim]})


def write_tokenizer(folder: Path, special: tuple[str, ...], template: str, pad: str, length: int) -> None:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    vocabulary = [*special, "<unk>", *WORDS]
    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(vocabulary)}, unk_token="<unk>"))
    made.normalizer, made.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.Whitespace()
    made.add_special_tokens(list(special))
    made.post_processor = processors.TemplateProcessing(
        single=template, special_tokens=[(token, made.token_to_id(token)) for token in special]
    )
    made.save(str(folder / "tokenizer.json"))
    settings = {"pad_token": pad, "model_max_length": length}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def write_json(folder: Path, name: str, content: dict) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps(content))


CLIP_PROCESSOR = {
    "image_processor_type": "CLIPImageProcessor", "do_resize": True, "size": {"shortest_edge": SIZE}, "resample": 3,
    "do_center_crop": True, "crop_size": {"height": SIZE, "width": SIZE}, "do_rescale": True,
    "rescale_factor": 1 / 255, "do_normalize": True, "image_mean": CLIP_MEAN, "image_std": CLIP_STD,
}  # fmt: skip
SIGLIP_PROCESSOR = {
    "image_processor_type": "SiglipImageProcessor", "size": {"height": SIZE, "width": SIZE}, "resample": 3,
    "image_mean": [0.5] * 3, "image_std": [0.5] * 3,
}  # fmt: skip


def write_clip(folder: Path, seed: int = 0, **vision) -> Path:
    """A folder like that of CLIP: image_embeds and text_embeds, 77 tokens, padded with the end token."""
    write_vision(folder / "onnx/vision_model.onnx", "last_hidden_state", "image_embeds", seed=seed, **vision)
    write_text(folder / "onnx/text_model.onnx", "text_embeds", seed=seed + 1)
    write_json(folder, "preprocessor_config.json", CLIP_PROCESSOR)
    # Another id than the tokenizer's, as in CLIP's own file.
    write_json(folder, "config.json", {"model_type": "clip", "text_config": {"pad_token_id": 1}})
    # The largest id marks the end.
    write_tokenizer(folder, (), "$A", "<end>", 77)
    tokens = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokens.add_special_tokens(["<start>", "<end>"])
    tokens.post_processor = tokenizers.processors.TemplateProcessing(
        single="<start> $A <end>", special_tokens=[(t, tokens.token_to_id(t)) for t in ("<start>", "<end>")]
    )
    tokens.save(str(folder / "tokenizer.json"))
    return folder


def write_siglip(folder: Path, seed: int = 0) -> Path:
    """A folder like that of SigLIP: pooler_output of both, 64 tokens without a mask, padded with </s>, id 1."""
    write_vision(
        folder / "onnx/vision_model.onnx", "last_hidden_state", "pooler_output", seed=seed, class_token=False,
        axes=["batch", 3, SIZE, SIZE],
    )  # fmt: skip
    write_text(folder / "onnx/text_model.onnx", "pooler_output", seed=seed + 1, length=64, masked=False)
    write_json(folder, "preprocessor_config.json", SIGLIP_PROCESSOR)
    write_json(folder, "config.json", {"model_type": "siglip", "text_config": {"model_type": "siglip_text_model"}})
    write_tokenizer(folder, ("<pad>", "</s>"), "$A </s>", "</s>", 64)
    return folder


@pytest.fixture
def clip(tmp_path):
    return write_clip(tmp_path / "clip")


@pytest.fixture
def siglip(tmp_path):
    return write_siglip(tmp_path / "siglip")


@pytest.fixture(scope="module")
def images():
    return samples.photos().subset(np.arange(0, 60, 10))


@pytest.fixture(scope="module")
def pixels(images):
    return [read_image(path) for path in images.paths]


# ---- the reference implementation -----------------------------------------------------------------------


def unit(vectors: np.ndarray) -> np.ndarray:
    vectors = np.asarray(vectors, np.float64)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def clip_input(image: np.ndarray) -> np.ndarray:
    """Preprocessing of CLIP: short side to 48, bicubic, crop of the center, normalization."""
    height, width = image.shape[:2]
    scale = SIZE / min(height, width)
    shape = (SIZE, int(SIZE * height / width)) if width < height else (int(SIZE * width / height), SIZE)
    assert min(shape) == SIZE and scale > 0
    found = np.asarray(Image.fromarray(image).resize(shape, Image.Resampling.BICUBIC))
    top, left = (found.shape[0] - SIZE) // 2, (found.shape[1] - SIZE) // 2
    found = found[top : top + SIZE, left : left + SIZE] / 255
    return ((found - CLIP_MEAN) / CLIP_STD).transpose(2, 0, 1)[None].astype(np.float32)


def siglip_input(image: np.ndarray) -> np.ndarray:
    found = np.asarray(Image.fromarray(image).resize((SIZE, SIZE), Image.Resampling.BICUBIC))
    return (found / 127.5 - 1).transpose(2, 0, 1)[None].astype(np.float32)


def reference(path: Path, inputs: list[dict], output: str) -> np.ndarray:
    evaluator = ReferenceEvaluator(str(path))
    return np.concatenate([evaluator.run([output], given)[0] for given in inputs])


def token_inputs(extractor, texts: list[str]) -> list[dict]:
    ids, mask = TextTokenizer(extractor.folder)(texts)
    return [{"input_ids": i[None], "attention_mask": m[None]} for i, m in zip(ids, mask, strict=True)]


# ---- the same vectors ---------------------------------------------------------------------------------


def test_images_and_texts_of_clip(clip, images, pixels):
    extractor = open_extractor(f"onnx:{clip}")
    assert isinstance(extractor, TextEncoder) and extractor.dim == DIM and extractor.size == SIZE
    expected = reference(
        clip / "onnx/vision_model.onnx", [{"pixel_values": clip_input(p)} for p in pixels], "image_embeds"
    )
    found = extractor.extract(images, cache=False, progress=False)
    np.testing.assert_allclose(found, unit(expected), atol=1e-4)
    np.testing.assert_allclose(extractor.extract_arrays(pixels), found, atol=1e-6)
    texts = reference(clip / "onnx/text_model.onnx", token_inputs(extractor, TEXTS), "text_embeds")
    embedded = extractor.embed_text(TEXTS)
    assert embedded.dtype == np.float32 and embedded.shape == (3, DIM)
    np.testing.assert_allclose(embedded, unit(texts), atol=1e-4)
    # The vectors differ, so an equal constant would not pass.
    assert (np.abs(unit(expected) @ unit(expected).T - np.eye(len(pixels)))[~np.eye(len(pixels), dtype=bool)] < 1).all()


def test_images_and_texts_of_siglip(siglip, images, pixels):
    extractor = open_extractor(f"onnx:{siglip}")
    inputs = [{"pixel_values": siglip_input(image)} for image in pixels]
    expected = reference(siglip / "onnx/vision_model.onnx", inputs, "pooler_output")
    np.testing.assert_allclose(extractor.extract(images, cache=False, progress=False), unit(expected), atol=1e-4)
    given = [{"input_ids": one["input_ids"]} for one in token_inputs(extractor, TEXTS)]
    texts = reference(siglip / "onnx/text_model.onnx", given, "pooler_output")
    np.testing.assert_allclose(extractor.embed_text(TEXTS), unit(texts), atol=1e-4)


def test_tokens_are_padded_to_the_context_length(clip, siglip):
    ids, mask = TextTokenizer(clip)(["a photo of"])
    tokens = tokenizers.Tokenizer.from_file(str(clip / "tokenizer.json"))
    start, end = (tokens.token_to_id(token) for token in ("<start>", "<end>"))
    assert ids.shape == mask.shape == (1, 77)
    assert ids[0].tolist() == [start, *map(tokens.token_to_id, ["a", "photo", "of"]), *[end] * 73]
    assert mask[0].tolist() == [1] * 5 + [0] * 72
    ids, mask = TextTokenizer(siglip)(["boat"])
    assert ids.shape == (1, 64) and ids[0, 1:].tolist() == [1] * 63 and mask.sum() == 2


@pytest.mark.parametrize(("class_token", "pool"), [(True, lambda t: t[:, 0]), (False, lambda t: t.mean(axis=1))])
def test_an_encoder_of_images_with_hidden_states(tmp_path, pixels, class_token, pool):
    write_vision(tmp_path / "onnx/model.onnx", "last_hidden_state", class_token=class_token)
    write_json(tmp_path, "preprocessor_config.json", {**SIGLIP_PROCESSOR, "image_processor_type": "ViTImageProcessor"})
    extractor = open_extractor(f"onnx:{tmp_path}")
    inputs = [{"pixel_values": siglip_input(image)} for image in pixels]
    expected = pool(reference(tmp_path / "onnx/model.onnx", inputs, "last_hidden_state"))
    assert extractor.dim == WIDTH
    np.testing.assert_allclose(extractor.extract_arrays(pixels), unit(expected), atol=1e-4)
    with pytest.raises(NoTextEncoder, match="cannot embed text.*lookalike encoders"):
        text_encoder(extractor)


def test_pooling_of_other_outputs():
    maps = np.arange(24, dtype=np.float32).reshape(1, 2, 3, 4)
    np.testing.assert_array_equal(pooled(maps), maps.mean(axis=(2, 3)))
    np.testing.assert_array_equal(pooled(maps, channels_axis=3), maps.mean(axis=(1, 2)))
    tokens = np.arange(2 * 8 * 5, dtype=np.float32).reshape(2, 8, 5)
    np.testing.assert_array_equal(pooled(tokens, registers=3), tokens[:, 0])
    with pytest.raises(EncoderError, match=r"\(2, 8, 5\) is neither"):
        pooled(tokens)


@pytest.mark.parametrize(
    "axes", [[1, 3, SIZE, SIZE], ["batch", 3, SIZE, SIZE], ["batch", "channels", "height", "width"]]
)
def test_fixed_and_dynamic_axes(tmp_path, clip, pixels, axes):
    expected = open_extractor(f"onnx:{clip}").extract_arrays(pixels)
    other = write_clip(tmp_path / "other", axes=axes)
    np.testing.assert_allclose(open_extractor(f"onnx:{other}").extract_arrays(pixels), expected, atol=1e-5)


def test_half_precision(tmp_path, clip, pixels):
    """Weights, inputs and outputs in float16; the vectors differ only by the rounding of the weights."""
    half = write_clip(tmp_path / "half", kind=TensorProto.FLOAT16)
    write_text(half / "onnx/text_model.onnx", "text_embeds", kind=TensorProto.FLOAT16)
    single, extractor = open_extractor(f"onnx:{clip}"), open_extractor(f"onnx:{half}")
    cosines = (single.extract_arrays(pixels) * extractor.extract_arrays(pixels)).sum(axis=1)
    assert (cosines > 0.999).all() and (cosines < 1 - 1e-9).any()
    texts = extractor.embed_text(TEXTS)
    assert texts.dtype == np.float32
    assert ((single.embed_text(TEXTS) * texts).sum(axis=1) > 0.999).all()


def test_external_weights_of_a_name_with_brackets(tmp_path):
    for name in ("det[1].onnx", "det[1].onnx_data", "det1.onnx_data"):
        (tmp_path / name).touch()
    assert onnx_files.external_data(tmp_path / "det[1].onnx") == [tmp_path / "det[1].onnx_data"]


def test_weights_outside_of_the_onnx_file(tmp_path, clip, pixels):
    expected = open_extractor(f"onnx:{clip}")
    other = shutil.copytree(clip, tmp_path / "external")
    path = other / "onnx/vision_model.onnx"
    model = onnx.load(path)
    path.unlink()
    onnx.save(model, path, save_as_external_data=True, location="vision_model.onnx_data", size_threshold=0)
    extractor = open_extractor(f"onnx:{other}")
    np.testing.assert_allclose(extractor.extract_arrays(pixels), expected.extract_arrays(pixels), atol=1e-6)
    data = path.with_name("vision_model.onnx_data")
    data.write_bytes(data.read_bytes()[:-1] + b"\0")
    assert open_extractor(f"onnx:{other}").fingerprint != extractor.fingerprint
    data.unlink()
    with pytest.raises(OnnxFileError, match="vision_model.onnx is damaged, or a part of it is missing"):
        open_extractor(f"onnx:{other}")


# ---- preprocessing ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "size", "resized"),
    [
        ({"size": 56, "crop_size": SIZE}, 48, 56),
        ({"size": {"height": 60, "width": 50}}, 48, (60, 50)),
        ({"image_processor_type": "BitImageProcessor", "size": {"shortest_edge": 64}}, 48, 64),
        ({"image_processor_type": "CLIPImageProcessorFast"}, 48, 48),
        ({"image_processor_type": None, "feature_extractor_type": "CLIPFeatureExtractor"}, 48, 48),
        ({"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 56}, "crop_pct": 0.875}, 56, 64),
        ({"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 384}}, 384, (384, 384)),
    ],
)
def test_sizes(tmp_path, change, size, resized):
    settings = {**CLIP_PROCESSOR, **change}
    if "ConvNext" in str(change):
        settings |= {"do_center_crop": False}
    write_json(tmp_path, "p.json", settings)
    found = load_processor(tmp_path / "p.json")
    assert (found.size, found.resized) == (size, resized)
    for shape in [(90, 130), (131, 70), (48, 48), (10, 3000)]:
        assert found(np.zeros((*shape, 3), np.uint8)).shape == (size, size, 3)


def test_omitted_settings_are_those_of_the_processor(tmp_path):
    write_json(tmp_path, "p.json", {"image_processor_type": "CLIPImageProcessor"})
    found = load_processor(tmp_path / "p.json")
    assert (found.size, found.resized, found.resample) == (224, 224, 3)
    np.testing.assert_allclose(found.mean, np.array(CLIP_MEAN) * 255)
    np.testing.assert_allclose(found.std, np.array(CLIP_STD) * 255)
    write_json(tmp_path, "p.json", {"image_processor_type": "SiglipImageProcessor", "do_rescale": False})
    assert load_processor(tmp_path / "p.json").std == (0.5, 0.5, 0.5)


def test_rescaling_without_normalization(tmp_path, pixels):
    """MobileCLIP only divides by 255."""
    folder = write_clip(tmp_path)
    write_json(folder, "preprocessor_config.json", {**CLIP_PROCESSOR, "do_normalize": False})
    inputs = [
        {"pixel_values": clip_input(p) * np.reshape(CLIP_STD, (3, 1, 1)) + np.reshape(CLIP_MEAN, (3, 1, 1))}
        for p in pixels
    ]
    inputs = [{name: value.astype(np.float32) for name, value in one.items()} for one in inputs]
    expected = reference(folder / "onnx/vision_model.onnx", inputs, "image_embeds")
    np.testing.assert_allclose(open_extractor(f"onnx:{folder}").extract_arrays(pixels), unit(expected), atol=1e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"image_processor_type": "Pix2StructImageProcessor"},
            "'Pix2StructImageProcessor' is not supported; supported: CLIP",
        ),
        ({"image_processor_type": None}, "the processor '' is not supported"),
        ({"crop_size": {"height": 48, "width": 64}}, "48 × 64; only squares"),
        ({"do_center_crop": False}, "images keep their shape"),
        ({"size": {"longest_edge": 48}}, "longest_edge.*is not supported"),
        ({"size": {"shortest_edge": 40}}, "crops 48 pixels from an image of 40"),
        ({"do_resize": False}, "not supported"),
        ({"image_std": [0.0, 1.0, 1.0]}, "nonzero"),
        ({"image_mean": "gray"}, "not understood"),
        ({"resample": 17}, "not understood"),
    ],
)
def test_unsupported_preprocessing(clip, change, message):
    write_json(clip, "preprocessor_config.json", {**CLIP_PROCESSOR, **change})
    with pytest.raises(EncoderError, match=message) as caught:
        open_extractor(f"onnx:{clip}")
    assert str(clip) in str(caught.value)


# ---- wrong folders --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("onnx/vision_model.onnx", EncoderError, "has none of the files onnx/vision_model.onnx"),
        ("preprocessor_config.json", EncoderError, "preprocessor_config.json is missing"),
        ("tokenizer.json", EncoderError, "tokenizer.json is missing: without it"),
    ],
)
def test_a_missing_file(clip, name, error, message):
    (clip / name).unlink()
    with pytest.raises(error, match=message) as caught:
        open_extractor(f"onnx:{clip}")
    code, text = explain_error(caught.value)
    assert code == 3 and str(clip) in text


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("onnx/vision_model.onnx", OnnxFileError), ("onnx/text_model.onnx", OnnxFileError),
        ("preprocessor_config.json", EncoderError), ("tokenizer.json", EncoderError),
        ("tokenizer_config.json", EncoderError), ("config.json", EncoderError),
    ],
)  # fmt: skip
def test_a_damaged_file(clip, name, error):
    path = clip / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(error, match=str(path)):
        open_extractor(f"onnx:{clip}")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not an ONNX file"), (b"<html>Not found</html>", "is not an ONNX file"),
        (b"version https://git-lfs.github.com/spec/v1\nsize 1\n", "pointer of Git LFS: run `git lfs pull`"),
    ],
)  # fmt: skip
def test_another_file_in_place_of_the_model(clip, content, message):
    (clip / "onnx/text_model.onnx").write_bytes(content)
    with pytest.raises(OnnxFileError, match=message):
        open_extractor(f"onnx:{clip}")


def test_variants_of_a_model_are_named(clip):
    (clip / "onnx/vision_model.onnx").rename(clip / "onnx/vision_model_fp16.onnx")
    with pytest.raises(EncoderError, match="There is vision_model_fp16.onnx: rename the one to use"):
        open_extractor(f"onnx:{clip}")


def test_no_folder(tmp_path):
    with pytest.raises(EncoderError, match="encoder folder .*nowhere does not exist"):
        open_extractor(f"onnx:{tmp_path / 'nowhere'}")
    with pytest.raises(EncoderError, match="write onnx:FOLDER"):
        open_extractor("onnx:")


def test_another_input_size(tmp_path):
    folder = write_clip(tmp_path, size=64, axes=["batch", 3, 64, 64])
    with pytest.raises(OnnxFileError, match="pixel_values is .* × 3 × 64 × 64, but 1 × 3 × 48 × 48 is needed"):
        open_extractor(f"onnx:{folder}")


def test_another_input_size_behind_dynamic_axes(tmp_path):
    """The position embedding is for 64 pixels; the graph does not say so before it is computed."""
    folder = write_clip(tmp_path, size=64)
    with pytest.raises(OnnxFileError, match="vision_model.onnx cannot compute an input of"):
        open_extractor(f"onnx:{folder}")


def test_a_text_model_of_another_width(clip):
    write_text(clip / "onnx/text_model.onnx", "text_embeds", dim=DIM + 2)
    with pytest.raises(EncoderError, match="image_embeds of 10 numbers, the text model text_embeds of 12"):
        open_extractor(f"onnx:{clip}")


def test_outputs_of_two_vector_spaces(clip):
    write_text(clip / "onnx/text_model.onnx", "pooler_output")
    with pytest.raises(EncoderError, match="image_embeds of 10 numbers, the text model pooler_output of 10"):
        open_extractor(f"onnx:{clip}")


def test_a_text_model_of_another_length(clip):
    write_text(clip / "onnx/text_model.onnx", "text_embeds", length=32, axes=["batch", 32])
    extractor = open_extractor(f"onnx:{clip}")
    assert extractor.embed_text(["a cat"]).shape == (1, DIM)
    write_text(clip / "onnx/text_model.onnx", "text_embeds", length=32)
    with pytest.raises(OnnxFileError, match="text_model.onnx cannot compute an input of .*77"):
        open_extractor(f"onnx:{clip}")


def test_a_joint_model(tmp_path, clip):
    shutil.copy(clip / "onnx/text_model.onnx", clip / "onnx/vision_model.onnx")
    with pytest.raises(OnnxFileError, match="must have the one input pixel_values, it has input_ids, attention_mask"):
        open_extractor(f"onnx:{clip}")


def test_an_unknown_output(tmp_path):
    graph = Graph(0)
    graph.add("GlobalAveragePool", "pixel_values", name="logits")
    image = helper.make_tensor_value_info("pixel_values", TensorProto.FLOAT, ["batch", 3, SIZE, SIZE])
    graph.save(tmp_path / "model.onnx", [image], {"logits": ["batch", 3, 1, 1]})
    write_json(tmp_path, "preprocessor_config.json", SIGLIP_PROCESSOR)
    with pytest.raises(
        OnnxFileError, match="one of the outputs image_embeds, pooler_output, last_hidden_state, it has"
    ):
        open_extractor(f"onnx:{tmp_path}")


def test_an_encoder_without_a_context_length_or_padding(clip):
    write_json(clip, "config.json", {})
    write_json(clip, "tokenizer_config.json", {"pad_token": "<end>", "model_max_length": 10**30})
    with pytest.raises(EncoderError, match="context length"):
        open_extractor(f"onnx:{clip}")
    write_json(clip, "tokenizer_config.json", {"model_max_length": 77})
    with pytest.raises(EncoderError, match="padding token"):
        open_extractor(f"onnx:{clip}")
    write_json(clip, "tokenizer_config.json", {"model_max_length": 77, "pad_token": {"content": "<none>"}})
    with pytest.raises(EncoderError, match="'<none>' is not a token"):
        open_extractor(f"onnx:{clip}")


def test_the_package_tokenizers_is_missing(clip, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "tokenizers", None)
    with pytest.raises(extras.MissingExtra, match=r"pip install 'lookalike\[onnx\]'"):
        open_extractor(f"onnx:{clip}")
    (clip / "onnx/text_model.onnx").unlink()
    assert not isinstance(open_extractor(f"onnx:{clip}"), TextEncoder)


# ---- texts ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("texts", "message"),
    [([], "no text"), ([" \n"], "empty"), (["cat", ""], "empty"), (["a" * 10_000], "10,000 characters"),
     ("cat", "give a list of texts"), ([b"cat"], "must be a str, got bytes")],
)  # fmt: skip
def test_bad_texts(clip, texts, message):
    with pytest.raises(ValueError, match=message):
        open_extractor(f"onnx:{clip}").embed_text(texts)


def test_a_long_text_is_cut_with_a_warning(clip):
    extractor = open_extractor(f"onnx:{clip}")
    long = " ".join(["cat"] * 100)
    with pytest.warns(TruncatedTextWarning, match=r"first 77 tokens.*\(102 tokens\)"):
        found = extractor.embed_text(["dog", long])
    # 75 words and the two special tokens.
    np.testing.assert_allclose(found[1], extractor.embed_text([" ".join(["cat"] * 75)])[0], atol=1e-6)


def test_one_text_at_a_time_gives_the_same(siglip):
    extractor = open_extractor(f"onnx:{siglip}")
    alone = [extractor.embed_text([text])[0] for text in TEXTS]
    np.testing.assert_allclose(extractor.embed_text(TEXTS), alone, atol=1e-6)


def test_threads_can_embed_texts_at_the_same_time(clip):
    extractor = open_extractor(f"onnx:{clip}")
    expected = extractor.embed_text(WORDS)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda word: extractor.embed_text([word] * 20), WORDS * 5))
    for row, vectors in enumerate(found):
        np.testing.assert_allclose(vectors, np.tile(expected[row % len(WORDS)], (20, 1)), atol=1e-6)


# ---- names, fingerprints, engines -------------------------------------------------------------------------


def test_the_fingerprint_depends_on_content_not_on_the_place(tmp_path, clip):
    first = open_extractor(f"onnx:{clip}").fingerprint
    assert first.startswith("onnx-") and "/" not in first
    moved = shutil.copytree(clip, tmp_path / "copy")
    assert open_extractor(f"onnx:{moved}").fingerprint == first
    seen = {first}
    for name in ("preprocessor_config.json", "config.json", "tokenizer.json", "tokenizer_config.json"):
        path = moved / name
        path.write_text(path.read_text() + "\n")
        seen.add(open_extractor(f"onnx:{moved}").fingerprint)
    write_vision(moved / "onnx/vision_model.onnx", "image_embeds", seed=5)
    seen.add(open_extractor(f"onnx:{moved}").fingerprint)
    write_text(moved / "onnx/text_model.onnx", "text_embeds", seed=5)
    seen.add(open_extractor(f"onnx:{moved}").fingerprint)
    assert len(seen) == 7


def test_an_engine_is_reopened_from_another_folder(tmp_path, clip, images, monkeypatch):
    monkeypatch.chdir(tmp_path)
    engine = Engine("onnx:clip").fit(images)
    engine.save("my.engine")
    expected = engine.query(images.paths[2], k=3)[0]
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    opened = Engine.load("../my.engine")
    assert opened.query(images.paths[2], k=3)[0].path == expected.path == images.paths[2]
    assert open_extractor("onnx:../clip").name == opened.extractor.name == f"onnx:{clip}"
    moved = clip.rename(tmp_path / "moved")
    with pytest.raises(EncoderError, match=f"encoder folder {clip} does not exist"):
        Engine.load("../my.engine")
    again = Engine.load("../my.engine", open_extractor(f"onnx:{moved}"))
    assert again.query(images.paths[2], k=1)[0].path == expected.path
    with pytest.raises(EngineFolderError, match="their vectors cannot be compared"):
        Engine.load("../my.engine", open_extractor(f"onnx:{write_clip(tmp_path / 'other', seed=7)}"))
    write_clip(clip, seed=7)
    with pytest.raises(EngineFolderError, match="their vectors cannot be compared"):
        Engine.load("../my.engine")


def test_names_with_plus_signs(tmp_path, pixels):
    folder = write_clip(tmp_path / "a+b+c")
    alone = open_extractor(f"onnx:{folder}")
    assert alone.dim == DIM
    both = open_extractor(f"onnx:{folder}+hsv-histogram+pixels")
    assert isinstance(both, Concatenated) and [part.name for part in both.parts] == [
        f"onnx:{folder}", "hsv-histogram", "pixels"
    ]  # fmt: skip
    assert both.fingerprint.startswith("onnx+hsv-histogram+pixels-")
    assert both.extract_arrays(pixels).shape == (len(pixels), both.dim)


def test_an_extractor_is_sent_to_another_process(clip, pixels):
    """As Ray does before the network is built."""
    extractor = open_extractor(f"onnx:{clip}")
    sent = pickle.loads(pickle.dumps(extractor))
    np.testing.assert_allclose(sent.embed_text(TEXTS), extractor.embed_text(TEXTS), atol=1e-6)
    np.testing.assert_allclose(sent.extract_arrays(pixels), extractor.extract_arrays(pixels), atol=1e-6)


def test_views_of_an_encoder_are_stored(clip, images, pixels, monkeypatch, tmp_path):
    monkeypatch.setenv("LOOKALIKE_CACHE", str(tmp_path / "cache"))
    extractor = open_extractor(f"onnx:{clip}")
    both = TestTimeAugmentation(extractor)
    found = both.extract(images, progress=False)
    mirrored = extractor.extract_arrays([image[:, ::-1] for image in pixels])
    # A crop of an odd margin is one pixel off in the mirror image.
    assert ((found * unit(extractor.extract(images, progress=False) + mirrored)).sum(axis=1) > 0.98).all()
    assert len(list((tmp_path / "cache/vectors").glob("onnx*.sqlite"))) == 2
    assert all("/" not in view.fingerprint for view in both.views)
    with store.VectorStore(extractor.fingerprint, DIM) as kept:
        assert len(kept) == len(images)
