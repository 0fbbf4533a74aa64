"""Augmentation during training: six recipes as Keras layers, augmented copies of images, and the leak they can cause.

Most of the work is done by Keras's layers. Some of them differ from their paper or from the classic generator
(measured with Keras 3.15 on TensorFlow). The recipes avoid all of these differences except the labels of CutMix:

- ``RandomShear`` shears about the upper left corner, which also shifts the image (12 of 101 pixels at 0.2).
- Five geometric layers in a row interpolate five times, which left 0.20 of the fine detail (energy of the Laplacian).
  One interpolation, as in `RandomAffine`, left 0.55.
- ``RandomContrast(0.2)`` only raises the contrast (1.0 … 1.2); (0.2, 0.2) also lowers it.
- ``RandomSaturation`` leaves the range 0 … 255 (down to -957), so its output must be clipped.
- ``RandomErasing(1.0)`` erases in half of the images, because the number is the maximum of a range.
- ``CutMix`` mixes labels by the area of the box before rounding: wrong by up to 1/height + 1/width.
- ``Equalization`` computes one histogram of the whole batch, so an image depends on the others.
- ``AutoContrast`` ignores ``training=False``.
- ``RandAugment`` uses both of these; it draws its operations per batch instead of per image; it rotates (0 … 180°),
  shifts, brightens and raises the contrast in one direction only; and a smaller factor posterizes more.
- Inside a model they are active by default: ``model(x)`` augments, unlike ``predict`` and ``training=False``.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import keras
import numpy as np
from keras import layers, ops

from helpers.images import reading
from helpers.images.imageset import ImageSet

#: Maximum memory of `siblings`, in bytes.
MAX_BYTES = 1 << 30

#: ImageNet's mean color, which fills the boxes of ``random-erasing``.
IMAGENET_MEAN = (123.675, 116.28, 103.53)

_PACKAGE = "lookalike"


@keras.saving.register_keras_serializable(package=_PACKAGE)
class RandomAffine(layers.Layer):
    """Rotation, shift, shear, zoom and flip as one matrix per image: one interpolation, hence little blur.

    The matrix is that of Keras 2's ``ImageDataGenerator``: rotation · shift · shear · zoom about the center.
    Pixels from outside repeat the nearest border pixel. `Augmentation` sets the seed.

    rotation, shear : maximum in degrees and in radians, in both directions.
    shift : maximum fraction of the height and of the width, drawn independently, in both directions.
    zoom : height and width are divided by 1 - zoom … 1 + zoom, drawn independently.
    flip : mirror half of the images.
    """

    def __init__(
        self, rotation: float = 0.0, shift: float = 0.0, shear: float = 0.0, zoom: float = 0.0, flip: bool = False,
        **kwargs: object,
    ):  # fmt: skip
        super().__init__(**kwargs)
        if not 0 <= zoom < 1:
            raise ValueError(f"zoom must be at least 0 and less than 1, got {zoom}")
        self.settings = {"rotation": rotation, "shift": shift, "shear": shear, "zoom": zoom, "flip": flip}
        self.generator = keras.random.SeedGenerator()
        # XLA cannot compile the affine transform.
        self.supports_jit = False

    def call(self, images: keras.KerasTensor, training: bool = False) -> keras.KerasTensor:
        """float (b, h, w, 3) → the same shape."""
        if not training:
            return images
        shape = ops.shape(images)
        matrices = self.matrices(height=shape[1], width=shape[2], **self.draw(shape[0]))
        return ops.image.affine_transform(
            images, matrices, interpolation="bilinear", fill_mode="nearest", data_format="channels_last"
        )

    def draw(self, n: int) -> dict:
        """Random arguments of `matrices` for n images, each float32 (n,)."""

        def uniform(limit: float) -> keras.KerasTensor:
            return keras.random.uniform((n,), -limit, limit, seed=self.generator)

        s = self.settings
        return {
            "theta": uniform(np.deg2rad(s["rotation"])),
            "down": uniform(s["shift"]),
            "right": uniform(s["shift"]),
            "shear": uniform(s["shear"]),
            "zoom_y": 1 + uniform(s["zoom"]),
            "zoom_x": 1 + uniform(s["zoom"]),
            "mirror": ops.where(uniform(1.0) < 0, -1.0, 1.0) if s["flip"] else ops.ones((n,)),
        }

    @staticmethod
    def matrices(
        theta: keras.KerasTensor, down: keras.KerasTensor, right: keras.KerasTensor, shear: keras.KerasTensor,
        zoom_y: keras.KerasTensor, zoom_x: keras.KerasTensor, mirror: keras.KerasTensor,
        height: int | keras.KerasTensor, width: int | keras.KerasTensor,
    ) -> keras.KerasTensor:  # fmt: skip
        """float32 (n, 8): maps a pixel of the output to its source, for ``affine_transform``.

        All but height and width are float32 (n,): radians, fractions of the sides, factors; mirror is -1 or 1.
        """
        height, width = (ops.cast(side, "float32") for side in (height, width))
        cos, sin = ops.cos(theta), ops.sin(theta)
        # As in the generator: source [y, x] from the center = linear · output [y, x] + offset.
        yy, yx = cos * zoom_y, -(cos * ops.sin(shear) + sin * ops.cos(shear)) * zoom_x * mirror
        xy, xx = sin * zoom_y, (cos * ops.cos(shear) - sin * ops.sin(shear)) * zoom_x * mirror
        down, right = down * height, right * width
        middle_y, middle_x = (height - 1) / 2, (width - 1) / 2
        offset_y = cos * down - sin * right + middle_y - yy * middle_y - yx * middle_x
        offset_x = sin * down + cos * right + middle_x - xy * middle_y - xx * middle_x
        zero = ops.zeros_like(xx)
        return ops.stack([xx, xy, offset_x, yx, yy, offset_y, zero, zero], axis=1)

    def get_config(self) -> dict:
        return {**super().get_config(), **self.settings}


class Equalize(layers.Layer):
    """Equalizes the histogram of each channel of each image, like ``cv2.equalizeHist``."""

    def call(self, images: keras.KerasTensor, training: bool = False) -> keras.KerasTensor:
        """float (b, h, w, 3) in 0 … 255 → the same, rounded to integers."""
        if not training:
            return images
        shape = ops.shape(images)
        total = shape[1] * shape[2]
        # Transposed as floats, because oneDNN cannot transpose integers and prints a warning.
        channels = ops.cast(ops.reshape(ops.transpose(images, (0, 3, 1, 2)), (-1, total)), "int32")
        cumulative = ops.cumsum(ops.bincount(channels, minlength=256), axis=1)
        darkest = ops.min(ops.where(cumulative > 0, cumulative, total), axis=1, keepdims=True)
        table = ops.cast(cumulative - darkest, "float32") / ops.cast(ops.maximum(total - darkest, 1), "float32") * 255
        # A channel with one value is unchanged.
        table = ops.where(darkest == total, ops.arange(256, dtype="float32"), ops.round(table))
        equalized = ops.take_along_axis(table, channels, axis=1)
        return ops.transpose(ops.reshape(equalized, (-1, shape[3], shape[1], shape[2])), (0, 2, 3, 1))


@keras.saving.register_keras_serializable(package=_PACKAGE)
class RandAugment(layers.Layer):
    """Two of twelve operations for each image, one after the other (Cubuk et al. 2020, RandAugment).

    Ranges are the largest of the paper, in both directions. The strength is drawn uniformly instead of being fixed.
    All twelve operations are computed for the whole batch, and each image takes one. `Augmentation` sets the seed.
    """

    def __init__(self, operations: int = 2, **kwargs: object):
        super().__init__(**kwargs)
        self.operations = operations
        self.generator = keras.random.SeedGenerator()
        plain = {"dtype": "float32"}
        self.choices = [
            layers.Identity(**plain),
            RandomAffine(rotation=30, dtype="float32"),
            RandomAffine(shear=0.3, dtype="float32"),
            RandomAffine(shift=0.3, dtype="float32"),
            layers.AutoContrast(**plain),
            Equalize(**plain),
            layers.Solarization(threshold_factor=1.0, **plain),
            layers.RandomPosterization((4, 8), **plain),
            layers.RandomContrast((0.9, 0.9), **plain),
            layers.RandomBrightness((-0.3, 0.3), **plain),
            layers.RandomSharpness((0.05, 0.95), **plain),
            layers.RandomSaturation((0.1, 0.65), **plain),
        ]

    def build(self, input_shape: tuple) -> None:
        for layer in self.choices:
            layer.build(input_shape)

    def call(self, images: keras.KerasTensor, training: bool = False) -> keras.KerasTensor:
        """float (b, h, w, 3) in 0 … 255 → the same."""
        if not training:
            return images
        for _ in range(self.operations):
            chosen = keras.random.randint((ops.shape(images)[0], 1, 1, 1), 0, len(self.choices), seed=self.generator)
            result = images
            for number, layer in enumerate(self.choices):
                result = ops.where(chosen == number, layer(images, training=True), result)
            # Saturation can leave the range, which the next operation requires.
            images = ops.clip(result, 0.0, 255.0)
        return images

    def get_config(self) -> dict:
        return {**super().get_config(), "operations": self.operations}


@dataclass(frozen=True)
class Recipe:
    """One augmentation: a description in one line, a function that creates the Keras layer, and the paper or article.

    mixes : it mixes two images, and therefore their one-hot labels.
    """

    name: str
    text: str
    build: Callable[[], layers.Layer]
    mixes: bool
    source: str


#: Every recipe by name.
#:
#: ``classic`` is ``ImageDataGenerator(rotation_range=40, width_shift_range=0.2, height_shift_range=0.2,
#: shear_range=0.2, zoom_range=0.2, horizontal_flip=True, fill_mode="nearest")``. ``shear_range`` was in RADIANS when
#: that was published; since keras-team/keras#8868 (December 2017) it is in degrees, and 0.2° is invisible. The recipe
#: uses 0.2 radians (11.5 degrees).
RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            "classic", "rotated by up to 40°, shifted and zoomed by up to 0.2, sheared by up to 11.5°, half mirrored",
            lambda: RandomAffine(rotation=40, shift=0.2, shear=0.2, zoom=0.2, flip=True, dtype="float32"),
            False, "Chollet 2016, Building powerful image classification models using very little data",
        ),
        Recipe(
            "color-jitter", "brightness ±0.2, contrast × 0.8 … 1.2, saturation × 0.67 … 1.5, hue ±18°",
            lambda: layers.RandomColorJitter(
                # The saturation is multiplied by f / (1 - f), so 0.5 changes nothing. A hue factor of 1 is 180°.
                brightness_factor=(-0.2, 0.2), contrast_factor=(0.2, 0.2), saturation_factor=(0.4, 0.6),
                hue_factor=0.1, dtype="float32",
            ),
            False, "Howard 2013; Szegedy et al. 2015",
        ),
        Recipe(
            "random-erasing", "in half of the images a box of 0.02 … 0.33 of the area gets ImageNet's mean color",
            lambda: layers.RandomErasing((0.5, 0.5), scale=(0.02, 0.33), fill_value=IMAGENET_MEAN, dtype="float32"),
            False, "Zhong et al. 2020",
        ),
        Recipe(
            "mixup", "λ · image + (1 - λ) · another, the same for labels, λ from Beta(0.2, 0.2): mostly near 0 or 1",
            lambda: layers.MixUp(0.2, dtype="float32"), True, "Zhang et al. 2018",
        ),
        Recipe(
            "cutmix", "a box of another image pasted in, labels by area, kept area from Beta(1, 1): all equally likely",
            lambda: layers.CutMix((1.0, 1.0), dtype="float32"), True, "Yun et al. 2019",
        ),
        Recipe(
            "rand-augment", "two of twelve operations, drawn for each image",
            lambda: RandAugment(dtype="float32"), False, "Cubuk et al. 2020",
        ),
    )
}  # fmt: skip


@keras.saving.register_keras_serializable(package=_PACKAGE)
class Augmentation(layers.Layer):
    """One recipe as a layer, for a model, for ``tf.data`` or to be called directly.

    >>> layer = Augmentation("classic", seed=0)
    >>> layer(pixels, training=True)                        # float32, still 0 … 255
    >>> dataset.batch(32).map(lambda x, y: (layer(x, training=True), y))

    The input is uint8 or float (b, h, w, 3) in 0 … 255, the output float32 of the same shape and range. Unlike Keras's
    layers it only augments in ``fit`` and with ``training=True``: ``model(x)``, ``predict`` and ``layer(x)`` do not
    change images.

    From a dict ``{"images": …, "labels": …}`` it returns a dict. Recipes that mix images (`Recipe.mixes`) need the dict
    with one-hot labels (b, classes), and return float32 labels that sum to one.

    The random numbers depend on the seed, the epoch and the number of batches since `start_epoch`. Outside a model, no
    checkpoint saves this number. To be able to resume a training, call `start_epoch` at the beginning of each epoch,
    e.g. in a ``LambdaCallback``. In ``tf.data``, map whole batches without ``num_parallel_calls``, and create a data
    set for each epoch after `start_epoch`, because a pipeline reads ahead.

    recipe : a name in `RECIPES`.
    """

    def __init__(self, recipe: str, seed: int = 0, epoch: int = 0, **kwargs: object):
        super().__init__(**{"dtype": "float32", **kwargs})
        if recipe not in RECIPES:
            raise KeyError(f"no recipe is called {recipe!r}; there are: {', '.join(RECIPES)}")
        self.recipe, self.seed, self.epoch = RECIPES[recipe], seed, epoch
        self.change = self.recipe.build()
        self.start_epoch(epoch)

    def start_epoch(self, epoch: int) -> None:
        """Reset the random generators to the beginning of an epoch."""
        # The only variables are the states of the random generators: (seed, number of draws).
        for number, state in enumerate(self.variables):
            seed = np.random.SeedSequence((self.seed, epoch, number)).generate_state(1)[0] >> 1
            state.assign(ops.convert_to_tensor([int(seed), 0], dtype=state.dtype))
        self.epoch = epoch

    def build(self, input_shape: tuple | dict) -> None:
        self.change.build(input_shape["images"] if isinstance(input_shape, dict) else input_shape)

    def call(self, data: keras.KerasTensor | dict, training: bool = False) -> keras.KerasTensor | dict:
        given = data if isinstance(data, dict) else {"images": data}
        images = ops.cast(given["images"], "float32")
        if len(images.shape) != 4 or images.shape[-1] not in (3, None):
            raise ValueError(f"{self.recipe.name} needs images (b, height, width, 3), got shape {images.shape}")
        result = given | {"images": images}
        if self.recipe.mixes:
            result["labels"] = self._one_hot(given)
        if training and self.recipe.mixes:
            result |= self.change({"images": images, "labels": result["labels"]}, training=True)
        elif training:
            result["images"] = self.change(images, training=True)
        if training:
            # Interpolation can exceed 255 by a rounding error.
            result["images"] = ops.clip(result["images"], 0.0, 255.0)
        return result if isinstance(data, dict) else result["images"]

    def _one_hot(self, data: dict) -> keras.KerasTensor:
        labels = ops.cast(data["labels"], "float32") if "labels" in data else None
        if labels is None or len(labels.shape) != 2:
            raise ValueError(
                f"{self.recipe.name} also mixes labels: give {{'images': …, 'labels': …}} with one-hot labels "
                "(b, classes), such as keras.ops.one_hot(labels, classes)"
                + ("" if labels is None else f"; got labels of shape {tuple(labels.shape)}")
            )
        return labels

    def get_config(self) -> dict:
        return {**super().get_config(), "recipe": self.recipe.name, "seed": self.seed, "epoch": self.epoch}


def copies(pixels: np.ndarray, layer: Augmentation, n: int = 5) -> np.ndarray:
    """uint8 (b, n, h, w, 3): n augmented copies of each image. Mixing recipes mix these images.

    pixels : uint8 or float (b, h, w, 3) in 0 … 255.
    """
    if n < 1:
        raise ValueError(f"n must be at least 1, got {n}")
    pixels = _checked(pixels)
    data = {"images": pixels, "labels": np.eye(len(pixels), dtype=np.float32)}
    augmented = [np.rint(layer(data, training=True)["images"]).astype(np.uint8) for _ in range(n)]
    return np.stack(augmented, axis=1)


def _checked(pixels: np.ndarray) -> np.ndarray:
    pixels = np.asarray(pixels)
    if pixels.ndim != 4 or pixels.shape[-1] != 3:
        raise ValueError(f"pixels must have shape (b, height, width, 3), got {pixels.shape}")
    if pixels.dtype == np.uint8:
        return pixels
    # NaN fails the comparison.
    if not ((pixels >= 0) & (pixels <= 255)).all():
        raise ValueError("pixels must be numbers in 0 … 255; some are outside, infinite or NaN")
    if np.issubdtype(pixels.dtype, np.floating) and 0 < pixels.max(initial=0) <= 1:
        raise ValueError("pixels must be in 0 … 255, but these are at most 1: multiply them by 255")
    return pixels.astype(np.float32)


@dataclass(frozen=True, eq=False)
class Siblings:
    """Augmented copies of images in memory, to demonstrate their effect on a split.

    images : one entry per copy; ``groups`` has the original of each. The files do not exist: their names, such as
        ``photos/birds/wren~2.jpg`` for copy 2, only identify the copies.
    pixels : uint8 (n · copies, size, size, 3), one row per entry of ``images``.
    """

    images: ImageSet
    pixels: np.ndarray

    def split(self, fraction: float, seed: int = 0, leaky: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """The rows of the two parts of `ImageSet.split`, which keeps siblings together.

        ``leaky`` ignores the groups: the mistake of splitting AFTER augmenting. Most images of the second part then
        have siblings in the first, and every score between the parts is too high.
        """
        whole = replace(self.images, groups=None) if leaky else self.images
        row_of = {path: row for row, path in enumerate(whole.paths)}
        first, second = (np.array([row_of[path] for path in part.paths]) for part in whole.split(fraction, seed))
        return first, second


def siblings(images: ImageSet, recipe: str = "classic", n: int = 5, size: int = 128, seed: int = 0) -> Siblings:
    """n augmented copies of every image, as if files had been augmented on disk before a split.

    Use them to measure the leak. For training use `Augmentation`. Raises `UnreadableImage` if an image cannot be read.

    size : side in pixels of the square to which images are resized.
    """
    layer = Augmentation(recipe, seed)
    if layer.recipe.mixes:
        raise ValueError(f"a copy by {recipe} has two originals and belongs to no single group; use another recipe")
    needed = len(images) * n * size * size * 3
    if needed > MAX_BYTES:
        raise ValueError(
            f"{len(images)} images × {n} copies at {size} × {size} are {needed / 2**30:.1f} GiB, more than "
            f"{MAX_BYTES / 2**30:.1f}: take fewer images (ImageSet.sample), fewer copies or a smaller size"
        )
    augmented = np.empty((len(images), n, size, size, 3), np.uint8)
    for rows, pixels in reading.batches(images, size, strict=True):
        augmented[rows] = copies(pixels, layer, n)
    originals = np.repeat(np.arange(len(images)), n)
    groups = images.units[originals]
    paths = tuple(
        path.with_name(f"{path.stem}~{copy}{path.suffix}") for path in images.paths for copy in range(1, n + 1)
    )
    return Siblings(
        replace(images, name=f"{images.name}-{recipe}", paths=paths, labels=images.labels[originals], groups=groups),
        augmented.reshape(-1, size, size, 3),
    )
