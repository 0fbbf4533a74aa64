"""Augmentation on the fly: six recipes as Keras layers, their copies of an image, and the leak they can cause.

A recipe changes pixels while a network trains and does nothing otherwise: no augmented file is ever written.
Most of the work is done by Keras's own layers. Where the installed ones do something else than the paper
or the classic generator, the recipes go round it, all but CutMix's labels (measured with Keras 3.15 on TensorFlow):

- ``RandomShear`` shears about the upper left corner, so that the image also slides (12 of 101 pixels at 0.2).
- Five geometric layers in a row interpolate five times: 0.20 of the fine detail (energy of the Laplacian) was left,
  against 0.55 with one interpolation, as in `RandomAffine`.
- ``RandomContrast(0.2)`` only ever raises the contrast (1.0 … 1.2): give (0.2, 0.2) for both ways.
- ``RandomSaturation`` leaves the range 0 … 255 (down to -957): what follows it has to clip.
- ``RandomErasing(1.0)`` erases in half of the images, not in all: the number is the top of a range.
- ``CutMix`` labels by the box before it is cut to whole pixels: wrong by up to 1/height + 1/width.
- ``Equalization`` makes one histogram of the whole batch: an image changes with its neighbors.
- ``AutoContrast`` ignores ``training=False``.
- ``RandAugment`` uses both of these; draws its operations once a batch, not once an image; turns by 0 … 180
  degrees one way; shifts, brightens and raises the contrast one way; and a smaller factor posterizes more.
- Inside a model they are on by default: ``model(x)`` augments, only ``predict`` and ``training=False`` don't.

Keras is imported when this module is, not with `helpers.images`.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import keras
import numpy as np
from keras import layers, ops

from helpers.images import reading
from helpers.images.imageset import ImageSet

#: The most that `siblings` may hold in memory, in bytes.
MOST_BYTES = 1 << 30

#: ImageNet's mean color, with which `random-erasing` fills.
IMAGENET_MEAN = (123.675, 116.28, 103.53)

_PACKAGE = "lookalike"


@keras.saving.register_keras_serializable(package=_PACKAGE)
class RandomAffine(layers.Layer):
    """Rotation, shift, shear, zoom and flip as one matrix an image: one interpolation, hence little blur.

    The matrix is that of Keras 2's ``ImageDataGenerator``: rotation · shift · shear · zoom about the center.
    Pixels from outside repeat the nearest border pixel. Its draws are seeded by the `Augmentation` around it.

    Parameters
    ----------
    rotation : degrees, either way.
    shift : fraction of the height and of the width, either way, drawn apart.
    shear : radians, either way. See the recipe ``classic`` for the unit.
    zoom : the sides are divided by 1 - zoom … 1 + zoom, drawn apart for height and width.
    flip : left and right change places in half of the images.
    """

    def __init__(self, rotation=0.0, shift=0.0, shear=0.0, zoom=0.0, flip=False, **kwargs):
        super().__init__(**kwargs)
        if not 0 <= zoom < 1:
            raise ValueError(f"zoom must lie in 0 … 1 (without 1), got {zoom}")
        self.settings = {"rotation": rotation, "shift": shift, "shear": shear, "zoom": zoom, "flip": flip}
        self.generator = keras.random.SeedGenerator()
        # XLA can't compile the affine transform.
        self.supports_jit = False

    def call(self, images, training=False):
        """float (b, h, w, 3) → the same shape."""
        if not training:
            return images
        shape = ops.shape(images)
        matrices = self.matrices(height=shape[1], width=shape[2], **self.draw(shape[0]))
        return ops.image.affine_transform(
            images, matrices, interpolation="bilinear", fill_mode="nearest", data_format="channels_last"
        )

    def draw(self, n: int) -> dict:
        """What happens to each of n images: the arguments of `matrices`, each float32 (n,)."""

        def uniform(limit):
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
    def matrices(theta, down, right, shear, zoom_y, zoom_x, mirror, height, width):
        """float32 (n, 8): from a pixel of the result to where it comes from, as ``affine_transform`` wants it.

        All but height and width are float32 (n,): radians, fractions of the sides, factors; mirror is -1 or 1.
        """
        height, width = (ops.cast(side, "float32") for side in (height, width))
        cos, sin = ops.cos(theta), ops.sin(theta)
        # Rows are y, as in the generator: [y, x] from the center = linear · [y, x] of the result + offset.
        yy, yx = cos * zoom_y, -(cos * ops.sin(shear) + sin * ops.cos(shear)) * zoom_x * mirror
        xy, xx = sin * zoom_y, (cos * ops.cos(shear) - sin * ops.sin(shear)) * zoom_x * mirror
        down, right = down * height, right * width
        middle_y, middle_x = (height - 1) / 2, (width - 1) / 2
        offset_y = cos * down - sin * right + middle_y - yy * middle_y - yx * middle_x
        offset_x = sin * down + cos * right + middle_x - xy * middle_y - xx * middle_x
        nothing = ops.zeros_like(xx)
        return ops.stack([xx, xy, offset_x, yx, yy, offset_y, nothing, nothing], axis=1)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {**super().get_config(), **self.settings}


class Equalize(layers.Layer):
    """Each channel of each image gets a flat histogram, as ``cv2.equalizeHist`` does it."""

    def call(self, images, training=False):
        """float (b, h, w, 3) in 0 … 255 → the same, whole numbers."""
        if not training:
            return images
        shape = ops.shape(images)
        # Transposed as floats: for whole numbers oneDNN has nothing and says so on stderr.
        channels = ops.reshape(ops.transpose(images, (0, 3, 1, 2)), (-1, shape[1] * shape[2]))
        channels = ops.cast(channels, "int32")
        so_far = ops.cumsum(ops.bincount(channels, minlength=256), axis=1)
        total = shape[1] * shape[2]
        darkest = ops.min(ops.where(so_far > 0, so_far, total), axis=1, keepdims=True)
        # A channel of one value has nothing to spread: it stays.
        table = ops.cast(so_far - darkest, "float32") / ops.cast(ops.maximum(total - darkest, 1), "float32") * 255
        table = ops.where(darkest == total, ops.arange(256, dtype="float32"), ops.round(table))
        even = ops.take_along_axis(table, channels, axis=1)
        return ops.transpose(ops.reshape(even, (-1, shape[3], shape[1], shape[2])), (0, 2, 3, 1))


@keras.saving.register_keras_serializable(package=_PACKAGE)
class RandAugment(layers.Layer):
    """Two of twelve operations for each image, one after the other (Cubuk et al. 2020, RandAugment).

    Most operations are Keras's; ranges are the paper's largest, both ways, and the strength is drawn evenly within
    them instead of being fixed. All twelve are computed for the whole batch and chosen from an image at a time.
    Seeded by the `Augmentation` around it.
    """

    def __init__(self, operations: int = 2, **kwargs):
        super().__init__(**kwargs)
        self.operations = operations
        self.generator = keras.random.SeedGenerator()
        plain = {"dtype": "float32"}
        self.choices = [
            layers.Identity(**plain),
            RandomAffine(rotation=30, **plain),
            RandomAffine(shear=0.3, **plain),
            RandomAffine(shift=0.3, **plain),
            layers.AutoContrast(**plain),
            Equalize(**plain),
            layers.Solarization(threshold_factor=1.0, **plain),
            layers.RandomPosterization((4, 8), **plain),
            layers.RandomContrast((0.9, 0.9), **plain),
            layers.RandomBrightness((-0.3, 0.3), **plain),
            layers.RandomSharpness((0.05, 0.95), **plain),
            layers.RandomSaturation((0.1, 0.65), **plain),
        ]

    def build(self, input_shape):
        for layer in self.choices:
            layer.build(input_shape)

    def call(self, images, training=False):
        """float (b, h, w, 3) in 0 … 255 → the same."""
        if not training:
            return images
        for _ in range(self.operations):
            chosen = keras.random.randint((ops.shape(images)[0], 1, 1, 1), 0, len(self.choices), seed=self.generator)
            result = images
            for number, layer in enumerate(self.choices):
                result = ops.where(chosen == number, layer(images, training=True), result)
            # Saturation can leave the range, and the next operation relies on it.
            images = ops.clip(result, 0.0, 255.0)
        return images

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {**super().get_config(), "operations": self.operations}


@dataclass(frozen=True)
class Recipe:
    """One row of `RECIPES`.

    Parameters
    ----------
    name : what the project calls it.
    text : one line for a person.
    build : makes its Keras layer.
    mixes : whether it mixes two images and so has to mix their one-hot labels, too.
    source : the paper or the text that it comes from.
    """

    name: str
    text: str
    build: Callable[[], layers.Layer]
    mixes: bool
    source: str


#: Every recipe by name.
#:
#: ``classic`` comes from ``ImageDataGenerator(rotation_range=40, width_shift_range=0.2, height_shift_range=0.2,
#: shear_range=0.2, zoom_range=0.2, horizontal_flip=True, fill_mode="nearest")``. When that was written,
#: ``shear_range`` was in RADIANS; since keras-team/keras#8868 (December 2017) the same 0.2 is read as degrees,
#: a shear that nobody can see. The recipe meant 0.2 radians (11.5 degrees), and that is what it does here.
RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            "classic", "turned by up to 40°, shifted and zoomed by up to 0.2, sheared by up to 11.5°, half mirrored",
            lambda: RandomAffine(rotation=40, shift=0.2, shear=0.2, zoom=0.2, flip=True, dtype="float32"),
            False, "Chollet 2016, Building powerful image classification models using very little data",
        ),
        Recipe(
            "color-jitter", "brightness ±0.2, contrast × 0.8 … 1.2, saturation × 0.67 … 1.5, hue ±18°",
            lambda: layers.RandomColorJitter(
                # Saturation is f / (1 - f): 0.5 changes nothing. Hue is half a turn at 1.
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
            "mixup", "λ · image + (1 - λ) · another, labels alike, λ from Beta(0.2, 0.2): mostly near 0 or 1",
            lambda: layers.MixUp(0.2, dtype="float32"), True, "Zhang et al. 2018",
        ),
        Recipe(
            "cutmix", "a box of another image pasted in, labels by area, kept area from Beta(1, 1): all alike likely",
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
    """One recipe as a layer: in a model, in ``tf.data`` or by hand.

    >>> layer = Augmentation("classic", seed=0)
    >>> layer(pixels, training=True)                        # float32, still 0 … 255
    >>> dataset.batch(32).map(lambda x, y: (layer(x, training=True), y))

    It takes images of one size in 0 … 255, uint8 or float (b, h, w, 3), and gives float32 of the same shape and
    range. Unlike Keras's own layers it is off unless ``training=True`` is said or ``fit`` says it: ``model(x)``,
    ``predict`` and ``layer(x)`` leave the images as they are.

    A dict ``{"images": …, "labels": …}`` gives a dict. The recipes that mix images (`Recipe.mixes`) need it,
    with one-hot labels (b, classes), and give float32 labels that still sum to one.

    What is drawn depends on seed, epoch and the number of batches since `start_epoch`, nothing else. That count
    lives in variables of the layer, and outside a model no checkpoint keeps it. So a training that may be resumed
    starts each epoch by number:

    >>> begin = keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: layer.start_epoch(epoch))
    >>> model.fit(…, initial_epoch=3, callbacks=[begin])    # the layer is in the model: epoch 3 as in one run

    In ``tf.data`` map whole batches, without ``num_parallel_calls`` (parallel calls race for the count), and make
    a data set for each epoch, after `start_epoch`: a pipeline reads ahead.

    Parameters
    ----------
    recipe : a name in `RECIPES`.
    seed, epoch : where the draws begin, not negative.

    Raises
    ------
    KeyError : there is no such recipe; the message lists those that are.
    ValueError : a negative seed or epoch; not images (b, h, w, 3); or a mixing recipe without one-hot labels.
    """

    def __init__(self, recipe: str, seed: int = 0, epoch: int = 0, **kwargs):
        super().__init__(**{"dtype": "float32", **kwargs})
        if recipe not in RECIPES:
            raise KeyError(f"no recipe is called {recipe!r}; there are: {', '.join(RECIPES)}")
        self.recipe, self.seed, self.epoch = RECIPES[recipe], seed, epoch
        self.change = self.recipe.build()
        self.start_epoch(epoch)

    def start_epoch(self, epoch: int) -> None:
        """From now on draw what epoch ``epoch`` draws, whatever was drawn before."""
        # Its only variables are the states of its random generators: (seed, draws so far).
        for number, state in enumerate(self.variables):
            begin = np.random.SeedSequence((self.seed, epoch, number)).generate_state(1)[0] >> 1
            state.assign(ops.convert_to_tensor([int(begin), 0], dtype=state.dtype))
        self.epoch = epoch

    def build(self, input_shape):
        self.change.build(input_shape["images"] if isinstance(input_shape, dict) else input_shape)

    def call(self, data, training=False):
        both = isinstance(data, dict)
        images = ops.cast(data["images"] if both else data, "float32")
        if len(images.shape) != 4 or images.shape[-1] not in (3, None):
            raise ValueError(f"{self.recipe.name} wants images (b, height, width, 3), got shape {images.shape}")
        if self.recipe.mixes:
            labels = self._one_hot(data if both else {})
            if training:
                mixed = self.change({"images": images, "labels": labels}, training=True)
                images, labels = mixed["images"], mixed["labels"]
        elif training:
            images = self.change(images, training=True)
        # Interpolation rounds to a little over 255.
        images = ops.clip(images, 0.0, 255.0) if training else images
        if not both:
            return images
        return {**data, "images": images, **({"labels": labels} if self.recipe.mixes else {})}

    def _one_hot(self, data: dict):
        labels = ops.cast(data["labels"], "float32") if "labels" in data else None
        if labels is None or len(labels.shape) != 2:
            raise ValueError(
                f"{self.recipe.name} mixes the labels, too: give {{'images': …, 'labels': …}} with one-hot labels "
                "(b, classes), e.g. keras.ops.one_hot(labels, classes)"
                + ("" if labels is None else f"; got labels of shape {tuple(labels.shape)}")
            )
        return labels

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {**super().get_config(), "recipe": self.recipe.name, "seed": self.seed, "epoch": self.epoch}


def copies(pixels: np.ndarray, layer: Augmentation, n: int = 5) -> np.ndarray:
    """uint8 (b, n, h, w, 3): n augmented copies of each image, drawn one after the other.

    pixels : uint8, or float in 0 … 255, (b, h, w, 3). Recipes that mix, mix the images given.

    Raises
    ------
    ValueError : pixels of another shape, not finite, or outside 0 … 255; or n below 1.
    """
    if n < 1:
        raise ValueError(f"n must be at least 1, got {n}")
    pixels = _checked(pixels)
    data = {"images": pixels, "labels": np.eye(len(pixels), dtype=np.float32)} if layer.recipe.mixes else pixels
    made = np.empty((len(pixels), n, *pixels.shape[1:]), np.uint8)
    for copy in range(n):
        result = layer(data, training=True)
        made[:, copy] = np.rint(ops.convert_to_numpy(result["images"] if layer.recipe.mixes else result))
    return made


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
        raise ValueError("pixels must lie in 0 … 255, these end at 1 or below: multiply them by 255")
    return pixels.astype(np.float32)


@dataclass(frozen=True, eq=False)
class Siblings:
    """Augmented copies as images of their own, held in memory, for showing what they do to a split.

    Parameters
    ----------
    images : one entry a copy; ``groups`` say which come from the same original. The files do not exist: their names,
        such as ``photos/birds/wren~2.jpg`` for copy 2, only tell copies apart.
    pixels : uint8 (n · copies, size, size, 3): row i is ``images``'s row i.
    """

    images: ImageSet
    pixels: np.ndarray

    def rows(self, part: ImageSet) -> np.ndarray:
        """int64: the rows of a part of ``images``, such as a side of a split."""
        row_of = {path: row for row, path in enumerate(self.images.paths)}
        return np.array([row_of[path] for path in part.paths], dtype=np.int64)

    def split(self, fraction: float, seed: int = 0, leaky: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """The rows of two parts as `ImageSet.split` makes them: siblings stay on one side.

        ``leaky`` splits as if nobody knew of the siblings: the mistake of splitting AFTER augmenting. Most images of
        the second part then have siblings in the first, and any score across is too good.
        """
        whole = replace(self.images, groups=None) if leaky else self.images
        first, second = whole.split(fraction, seed)
        return self.rows(first), self.rows(second)


def siblings(
    images: ImageSet, recipe: str = "classic", n: int = 5, size: int = 128, rule: str = "squash", seed: int = 0
) -> Siblings:
    """n augmented copies of every image of a set: what augmenting files on disk before a split gives.

    Only to rebuild and measure that leak; to train, use an `Augmentation`, which sees training images alone.

    Parameters
    ----------
    size, rule : see `helpers.images.reading.resize`.

    Raises
    ------
    ValueError : the recipe mixes images, so a copy has two originals; or more than `MOST_BYTES` would be held.
    UnreadableImage : an image can't be read.
    """
    layer = Augmentation(recipe, seed)
    if layer.recipe.mixes:
        raise ValueError(f"a copy made by {recipe} has two originals and belongs to no one group; use another recipe")
    needed = len(images) * n * size * size * 3
    if needed > MOST_BYTES:
        raise ValueError(
            f"{len(images)} images × {n} copies at {size} × {size} are {needed / 2**30:.1f} GiB, more than "
            f"{MOST_BYTES / 2**30:.1f}: take fewer images (ImageSet.sample), fewer copies or a smaller size"
        )
    made = np.empty((len(images), n, size, size, 3), np.uint8)
    for rows, pixels in reading.batches(images, size, rule, strict=True):
        made[rows] = copies(pixels, layer, n)
    originals = np.repeat(np.arange(len(images)), n)
    known = np.full(len(images), -1) if images.groups is None else images.groups
    # An original of no group becomes one; copies of one original (twins) stay in the group they had.
    groups = np.where(known >= 0, known, np.arange(len(images)) + known.max(initial=-1) + 1)[originals]
    paths = tuple(
        path.with_name(f"{path.stem}~{copy}{path.suffix}") for path in images.paths for copy in range(1, n + 1)
    )
    return Siblings(
        replace(images, name=f"{images.name}-{recipe}", paths=paths, labels=images.labels[originals], groups=groups),
        made.reshape(-1, size, size, 3),
    )
