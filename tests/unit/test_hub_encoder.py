"""Encoders of KerasHub, saved by these tests with random weights; Keras's own calls are the reference."""

import io
import json
import shutil

import numpy as np
import pytest

NOT_INSTALLED = "NOT TESTED: KerasHub or tensorflow-text is not installed (requirements-hub.txt)"
keras_hub = pytest.importorskip("keras_hub", reason=NOT_INSTALLED)
pytest.importorskip("tensorflow_text", reason=NOT_INSTALLED)

import keras  # noqa: E402

from helpers import extras  # noqa: E402
from helpers.features import encoder_list, hub_encoder  # noqa: E402
from helpers.features.encoder_files import EncoderError  # noqa: E402
from helpers.features.registry import open_extractor  # noqa: E402
from helpers.features.text_encoder import NoTextEncoder, TextEncoder, TruncatedTextWarning, text_encoder  # noqa: E402
from helpers.images import samples  # noqa: E402
from helpers.images.reading import read_image  # noqa: E402
from helpers.networks.compiled import CompiledNetwork  # noqa: E402
from helpers.networks.weights import WeightsUnavailable  # noqa: E402
from helpers.search.engine import Engine, EngineFolderError  # noqa: E402

SIZE, DIM = 64, 16
SENTENCE = "a photo of the cat dog boat at night without snow"
TEXTS = ["a photo of the cat", "The Boat  at night!", "dog"]
VISION = {
    "patch_size": 16, "hidden_dim": 24, "num_layers": 2, "num_heads": 2, "intermediate_dim": 48,
    "image_shape": (SIZE, SIZE, 3),
}  # fmt: skip
TEXT = {"embedding_dim": 24, "hidden_dim": 24, "num_layers": 2, "num_heads": 2, "intermediate_dim": 48}
DINO = {**VISION, "layer_scale_init_value": 1.0, "num_register_tokens": 4}


def pieces(**special: int) -> bytes:
    """A small SentencePiece model."""
    import sentencepiece

    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([SENTENCE] * 5), model_writer=out, vocab_size=40, model_type="unigram",
        hard_vocab_limit=False, minloglevel=2, **special,
    )  # fmt: skip
    return out.getvalue()


def make_clip(folder, seed=0):
    keras.utils.set_random_seed(seed)
    models, layers = keras_hub.models, keras_hub.layers
    letters = [*"abcdefghijklmnopqrstuvwxyz!", *(f"{letter}</w>" for letter in "abcdefghijklmnopqrstuvwxyz!")]
    tokens = {token: i for i, token in enumerate([*letters, "ca", "cat</w>", "<|startoftext|>", "<|endoftext|>"])}
    text = models.CLIPTextEncoder(vocabulary_size=len(tokens), max_sequence_length=77, **TEXT)
    backbone = models.CLIPBackbone(models.CLIPVisionEncoder(**VISION), text, projection_dim=DIM)
    tokenizer = models.CLIPTokenizer(tokens, ["#version: 0.2", "c a", "ca t</w>"], pad_with_end_token=True)
    converter = layers.CLIPImageConverter(
        image_size=(SIZE, SIZE), scale=[1 / 255 / 0.27] * 3, offset=[-0.48 / 0.27, -0.46 / 0.27, -0.41 / 0.27],
        interpolation="bicubic", antialias=True,
    )  # fmt: skip
    return save(folder, backbone, models.CLIPPreprocessor(tokenizer, converter))


def make_siglip(folder, seed=0):
    keras.utils.set_random_seed(seed)
    models, layers = keras_hub.models, keras_hub.layers
    text = models.SigLIPTextEncoder(vocabulary_size=60, max_sequence_length=64, projection_dim=24, **TEXT)
    backbone = models.SigLIPBackbone(models.SigLIPVisionEncoder(**VISION), text)
    tokenizer = models.SigLIPTokenizer(pieces(pad_id=0, eos_id=1, unk_id=2, bos_id=-1))
    converter = layers.SigLIPImageConverter(
        image_size=(SIZE, SIZE), scale=1 / 127.5, offset=-1, crop_to_aspect_ratio=False
    )
    return save(folder, backbone, models.SigLIPPreprocessor(tokenizer, converter))


def make_metaclip(folder, seed=0):
    keras.utils.set_random_seed(seed)
    models, layers = keras_hub.models, keras_hub.layers
    text = models.MetaCLIP2TextEncoder(vocabulary_size=60, max_sequence_length=77, **TEXT)
    backbone = models.MetaCLIP2Backbone(models.MetaCLIP2VisionEncoder(**VISION), text, projection_dim=DIM)
    tokenizer = models.MetaCLIP2Tokenizer(pieces(unk_id=0, bos_id=1, eos_id=2))
    converter = layers.MetaCLIP2ImageConverter(
        image_size=(SIZE, SIZE), scale=1 / 127.5, offset=-1, crop_to_aspect_ratio=False, pad_to_aspect_ratio=True
    )
    return save(folder, backbone, models.MetaCLIP2CausalLMPreprocessor(tokenizer, converter))


def save(folder, backbone, preprocessor):
    backbone.save_to_preset(str(folder))
    preprocessor.save_to_preset(str(folder))
    return folder


FAMILIES = {"clip": make_clip, "siglip": make_siglip, "metaclip2": make_metaclip}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Name of a family → its folder, made once; tests that change it copy it."""
    root = tmp_path_factory.mktemp("presets")
    return {name: make(root / name) for name, make in FAMILIES.items()}


@pytest.fixture
def clip(made, tmp_path):
    return shutil.copytree(made["clip"], tmp_path / "clip")


@pytest.fixture(scope="module")
def images():
    return samples.photos().subset(np.arange(0, 60, 10))


@pytest.fixture(scope="module")
def pixels(images):
    return [read_image(path) for path in images.paths]


def unit(vectors) -> np.ndarray:
    vectors = np.asarray(vectors, np.float64)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def loaded(folder, name):
    """Backbone and preprocessor of a folder, by KerasHub's own calls."""
    kind = {"clip": "CLIP", "siglip": "SigLIP", "metaclip2": "MetaCLIP2"}[name]
    preprocessor = (
        getattr(keras_hub.models, f"{kind}Preprocessor", None) or keras_hub.models.MetaCLIP2CausalLMPreprocessor
    )
    return keras_hub.models.Backbone.from_preset(str(folder)), preprocessor.from_preset(str(folder))


def rounded(converter, image):
    """KerasHub's resizing, rounded to 8 bits, and its scale and offset."""
    resized = np.rint(np.asarray(converter.resizing(np.asarray(image, np.float32)))).clip(0, 255)
    return resized[None] * np.float32(converter.scale) + np.float32(converter.offset)


@pytest.mark.parametrize("name", FAMILIES)
def test_images_and_texts(made, name, images, pixels):
    extractor = open_extractor(f"hub:{made[name]}")
    assert isinstance(extractor, TextEncoder) and extractor.size == SIZE
    backbone, preprocessor = loaded(made[name], name)
    converter = preprocessor.image_converter
    found = extractor.extract(images, cache=False, progress=False)
    assert isinstance(extractor.network, CompiledNetwork)
    expected = [backbone.get_vision_embeddings(rounded(converter, image))[0] for image in pixels]
    assert found.shape == (len(images), extractor.dim)
    np.testing.assert_allclose(found, unit(expected), atol=1e-4)
    np.testing.assert_allclose(extractor.extract_arrays(pixels), found, atol=1e-6)
    # Without rounding the vectors are nearly the same.
    exact = unit([backbone.get_vision_embeddings(converter(np.float32(image)[None]))[0] for image in pixels])
    assert ((found * exact).sum(axis=1) > 0.999).all()
    tokens = preprocessor({"prompts": TEXTS, "images": np.zeros((3, 8, 8, 3))})["token_ids"]
    texts = extractor.embed_text(TEXTS)
    assert texts.dtype == np.float32
    np.testing.assert_allclose(texts, unit(backbone.get_text_embeddings(tokens)), atol=1e-5)
    assert abs(texts[0] @ texts[1]) < 0.9999
    # Case and spaces do not count.
    np.testing.assert_allclose(extractor.embed_text(["the boat at night!"])[0], texts[1], atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "settings", "pool"),
    [
        ("DINOV2", {**DINO, "position_embedding_shape": (80, 80, 3), "image_shape": (80, 80, 3)}, lambda t: t[:, 0]),
        ("DINOV3", DINO, lambda t: t[:, 0]),
        ("ViT", {**{k: v for k, v in VISION.items() if k != "intermediate_dim"}, "mlp_dim": 48}, lambda t: t[:, 0]),
        ("ResNet", {
            "input_conv_filters": [64], "input_conv_kernel_sizes": [7], "stackwise_num_filters": [64, 80],
            "stackwise_num_blocks": [1, 1], "stackwise_num_strides": [1, 2], "block_type": "basic_block",
        }, lambda m: m.mean(axis=(1, 2))),
    ],
)  # fmt: skip
def test_encoders_of_images(tmp_path, pixels, kind, settings, pool):
    keras.utils.set_random_seed(0)
    backbone = getattr(keras_hub.models, f"{kind}Backbone")(**settings)
    converter = getattr(keras_hub.layers, f"{kind}ImageConverter")(image_size=(SIZE, SIZE), scale=1 / 127.5, offset=-1)
    backbone.save_to_preset(str(tmp_path))
    converter.save_to_preset(str(tmp_path))
    shape = {"image_shape": (SIZE, SIZE, 3)} if kind.startswith("DINO") else {}
    reference = keras_hub.models.Backbone.from_preset(str(tmp_path), **shape)
    name = next(iter(reference.input)) if isinstance(reference.input, dict) else None
    inputs = [rounded(converter, image) for image in pixels]
    outputs = np.concatenate([reference({name: one} if name else one) for one in inputs])
    extractor = open_extractor(f"hub:{tmp_path}")
    assert extractor.dim == pool(outputs).shape[1]
    np.testing.assert_allclose(extractor.extract_arrays(pixels), unit(pool(outputs)), atol=2e-4)
    with pytest.raises(NoTextEncoder, match="cannot embed text"):
        text_encoder(extractor)


def test_a_folder_as_published(clip, made, pixels):
    """Published presets have no preprocessor.json, and early ones another form of the image size."""
    expected = open_extractor(f"hub:{made['clip']}")
    (clip / "preprocessor.json").unlink()
    settings = json.loads((clip / "image_converter.json").read_text())
    height, width = settings["config"].pop("image_size")
    settings["config"] |= {"height": height, "width": width}
    (clip / "image_converter.json").write_text(json.dumps(settings))
    extractor = open_extractor(f"hub:{clip}")
    np.testing.assert_allclose(extractor.embed_text(TEXTS), expected.embed_text(TEXTS), atol=1e-5)
    np.testing.assert_allclose(extractor.extract_arrays(pixels), expected.extract_arrays(pixels), atol=1e-5)


# Takes more than 5 seconds, because Keras builds four models and compiles two of them.
def test_a_preset_saved_in_half_precision(tmp_path, made, pixels):
    single, preprocessor = loaded(made["siglip"], "siglip")
    models, half = keras_hub.models, {"dtype": "float16"}
    text = models.SigLIPTextEncoder(vocabulary_size=60, max_sequence_length=64, projection_dim=24, **TEXT, **half)
    backbone = models.SigLIPBackbone(models.SigLIPVisionEncoder(**VISION, **half), text, **half)
    backbone.set_weights(single.get_weights())
    save(tmp_path, backbone, preprocessor)
    weights = [folder / "model.weights.h5" for folder in (tmp_path, made["siglip"])]
    assert weights[0].stat().st_size < 0.9 * weights[1].stat().st_size
    extractor, single = open_extractor(f"hub:{tmp_path}"), open_extractor(f"hub:{made['siglip']}")
    cosines = (extractor.extract_arrays(pixels) * single.extract_arrays(pixels)).sum(axis=1)
    assert (cosines > 0.999).all()
    assert isinstance(extractor.network, CompiledNetwork)
    assert ((extractor.embed_text(TEXTS) * single.embed_text(TEXTS)).sum(axis=1) > 0.999).all()


def test_a_long_text_is_cut_with_a_warning(made):
    extractor = open_extractor(f"hub:{made['clip']}")
    with pytest.warns(TruncatedTextWarning, match=r"first 77 tokens.*\(102 tokens\)"):
        found = extractor.embed_text(["dog", " ".join(["cat"] * 100)])
    np.testing.assert_allclose(found[1], extractor.embed_text([" ".join(["cat"] * 75)])[0], atol=1e-5)


@pytest.mark.parametrize(
    ("texts", "message"), [([], "no text"), ([""], "empty"), (["a" * 10_000], "10,000 characters")]
)
def test_bad_texts(made, texts, message):
    with pytest.raises(ValueError, match=message):
        open_extractor(f"hub:{made['siglip']}").embed_text(texts)


# ---- wrong folders --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("config.json", "config.json is missing: save the backbone and its preprocessor"),
        ("image_converter.json", "image_converter.json is missing"),
        ("model.weights.h5", "has no file model.weights.h5"),
        ("tokenizer.json", "tokenizer.json is missing: without it"),
    ],
)
def test_a_missing_file(clip, name, message):
    (clip / name).unlink()
    with pytest.raises(EncoderError, match=message) as caught:
        open_extractor(f"hub:{clip}")
    assert str(clip) in str(caught.value)


def test_damaged_files(clip, pixels):
    path = clip / "model.weights.h5"
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(EncoderError, match=f"KerasHub cannot load {clip}"):
        open_extractor(f"hub:{clip}").extract_arrays(pixels[:1])
    (clip / "assets/tokenizer/merges.txt").unlink()
    with pytest.raises(EncoderError, match="KerasHub cannot load"):
        open_extractor(f"hub:{clip}").embed_text(["cat"])
    (clip / "config.json").write_text("{")
    with pytest.raises(EncoderError, match="config.json is damaged"):
        open_extractor(f"hub:{clip}")


def change(path, *keys, value):
    found = part = json.loads(path.read_text())
    for key in keys[:-1]:
        part = part[key]
    part[keys[-1]] = value
    path.write_text(json.dumps(found))


def test_another_input_size(clip):
    change(clip / "image_converter.json", "config", "image_size", value=[32, 32])
    with pytest.raises(EncoderError, match="the backbone takes 64 × 64 pixels, its image converter makes 32 × 32"):
        open_extractor(f"hub:{clip}")
    change(clip / "image_converter.json", "config", "image_size", value=[64, 48])
    with pytest.raises(EncoderError, match="only squares"):
        open_extractor(f"hub:{clip}")


def test_a_configuration_without_the_dimension(made, tmp_path):
    folder = shutil.copytree(made["siglip"], tmp_path / "siglip")
    config = json.loads((folder / "config.json").read_text())
    del config["config"]["vision_encoder"]["config"]["hidden_dim"]
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(EncoderError, match="config.json has no hidden_dim of the vision encoder. Save the backbone"):
        open_extractor(f"hub:{folder}")


def test_weights_of_another_model(clip, pixels, tmp_path):
    keras.utils.set_random_seed(0)
    other = keras_hub.models.DINOV3Backbone(**DINO)
    other.save_to_preset(str(tmp_path / "other"))
    shutil.copy(tmp_path / "other/model.weights.h5", clip)
    with pytest.raises(EncoderError, match=f"KerasHub cannot load {clip}"):
        open_extractor(f"hub:{clip}").extract_arrays(pixels[:1])


def test_a_folder_that_is_no_preset(clip):
    change(clip / "config.json", "module", value="os")
    with pytest.raises(EncoderError, match="not the configuration of a KerasHub backbone.*onnx:FOLDER"):
        open_extractor(f"hub:{clip}")


def test_names(tmp_path):
    with pytest.raises(EncoderError, match=f"encoder folder {tmp_path / 'none'} does not exist"):
        open_extractor(f"hub:{tmp_path / 'none'}")
    with pytest.raises(EncoderError, match="neither a folder nor a preset.*Did you mean clip_vit_base_patch32"):
        open_extractor("hub:clip_vit_base_patch31")


def test_a_preset_is_fetched_by_its_name(made, monkeypatch):
    import kagglehub

    handles = []
    monkeypatch.setattr(kagglehub, "model_download", lambda handle: handles.append(handle) or str(made["siglip"]))
    extractor = open_extractor("hub:siglip_base_patch16_224")
    assert extractor.name == "hub:siglip_base_patch16_224"
    assert extractor.fingerprint == open_extractor(f"hub:{made['siglip']}").fingerprint
    assert {handle.rpartition("/")[0] for handle in handles} == {"keras/siglip/keras/siglip_base_patch16_224"}

    def offline(handle):
        raise ConnectionError("no route to host")

    monkeypatch.setattr(kagglehub, "model_download", offline)
    with pytest.raises(WeightsUnavailable, match="cannot be fetched .no route to host.*save_to_preset"):
        open_extractor("hub:siglip_base_patch16_224")


def test_packages_are_missing(made, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "tensorflow_text", None)
    with pytest.raises(extras.MissingExtra, match="tensorflow-text.*--no-deps -r requirements-hub.txt"):
        open_extractor(f"hub:{made['clip']}").embed_text(["cat"])
    monkeypatch.setitem(sys.modules, "keras_hub", None)
    with pytest.raises(extras.MissingExtra, match="needs keras-hub"):
        open_extractor("hub:clip_vit_base_patch32")


# ---- fingerprints and engines ------------------------------------------------------------------------------


def test_the_fingerprint_depends_on_content_not_on_the_place(clip, made, tmp_path):
    first = open_extractor(f"hub:{made['clip']}").fingerprint
    assert first.startswith("hub-") and open_extractor(f"hub:{clip}").fingerprint == first
    seen = {first}
    for name in ("preprocessor.json", "tokenizer.json", "image_converter.json", "assets/tokenizer/merges.txt"):
        (clip / name).write_text((clip / name).read_text() + "\n")
        seen.add(open_extractor(f"hub:{clip}").fingerprint)
    seen.add(open_extractor(f"hub:{make_clip(tmp_path / 'other', seed=1)}").fingerprint)
    assert len(seen) == 6


def test_an_engine_of_another_encoder(made, images, tmp_path, monkeypatch):
    folder = shutil.copytree(made["siglip"], tmp_path / "encoder")
    monkeypatch.chdir(tmp_path)
    Engine("hub:./encoder").fit(images).save("my.engine")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert Engine.load("../my.engine").query(images.paths[1], k=1)[0].path == images.paths[1]
    with pytest.raises(EngineFolderError, match="their vectors cannot be compared"):
        Engine.load("../my.engine", open_extractor(f"hub:{made['clip']}"))
    folder.rename(tmp_path / "moved")
    with pytest.raises(EncoderError, match=f"encoder folder {folder} does not exist"):
        Engine.load("../my.engine")


def test_the_list_agrees_with_the_registry():
    """The presets that are listed without KerasHub, and a license for each preset in the registry."""
    registry = encoder_list.hub_registry()
    assert {name: registry[name] for name in encoder_list.RECOMMENDED} == encoder_list.RECOMMENDED
    found = {one.name: one for one in encoder_list.hub_encoders(registry)}
    licenses = {license for license, _ in encoder_list.LICENSES.values()}
    assert len(found) > 50 and {one.license for one in found.values()} == licenses
    assert found["hub:metaclip_2_vit_huge_patch14_224"].license == "CC-BY-NC-4.0"
    assert found["hub:clip_vit_b_32_laion2b_s34b_b79k"].license == "MIT"


def test_all_preprocessors_are_known():
    """Each backbone that embeds text is one that KerasHub has, with its preprocessor."""
    for backbone, preprocessor in hub_encoder.IMAGE_TEXT.items():
        assert getattr(keras_hub.models, preprocessor).backbone_cls is getattr(keras_hub.models, backbone)
