"""Convolutional networks small enough to train from scratch: two published student networks, and a better one.

Every network takes images as they are, 0 … 255 (b, size, size, 3), and ends in class probabilities; the layer named
``embedding`` is what is searched with, see `embedder`. They are built, not compiled: a `Schedule` says how each was or
should be trained, and `train` does it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from helpers.networks import training
from helpers.networks.examples import Examples
from helpers.networks.training import Plateau, Training

if TYPE_CHECKING:
    import keras

#: The layer before the classifier.
EMBEDDING = "embedding"

#: How `corrected` changes images in training: turned by up to 10°, shifted and zoomed by a tenth, half mirrored.
#: The classic recipe (40°, a fifth) is for things that lie anywhere; faces and things in the middle of an image don't.
GENTLE = {"rotation": 10, "shift": 0.1, "zoom": 0.1, "flip": True}


@dataclass(frozen=True)
class Schedule:
    """How a network is trained, always by Adam.

    Parameters
    ----------
    epochs, batch_size : at most so many epochs, in batches of so many images.
    rate : learning rate; with ``cosine`` its peak.
    cosine : up from a tenth of the rate over the first tenth of the steps, then down to zero along half a cosine
        (Loshchilov & Hutter 2017).
    one_hot : the loss takes one-hot labels instead of class numbers. With dropout behind the softmax the two differ.
    smoothing : label smoothing: so much of each label is spread evenly over all classes (Szegedy et al. 2016); needs
        one-hot labels.
    plateau, patience : see `helpers.networks.training.fit`; a rate that falls by a cosine can't be lowered as well.

    Raises
    ------
    ValueError : a cosine and a plateau at once, or smoothing without one-hot labels.
    """

    epochs: int
    batch_size: int
    rate: float = 1e-3
    cosine: bool = False
    one_hot: bool = False
    smoothing: float = 0.0
    plateau: Plateau | None = None
    patience: int | None = None

    def __post_init__(self):
        if self.cosine and self.plateau:
            raise ValueError("the rate follows either a cosine or plateaus: give cosine=True or a plateau, not both")
        if self.smoothing and not self.one_hot:
            raise ValueError("only one-hot labels can be smoothed: give one_hot=True")


#: As published: Adam, ten epochs in batches of 100.
STUDENT_FACES = Schedule(epochs=10, batch_size=100)
#: As published: Adam, stopped early, the rate lowered on plateaus. Batch and patience are ours.
STUDENT_OBJECTS = Schedule(epochs=60, batch_size=16, one_hot=True, plateau=Plateau(0.5, 10), patience=30)

#: Ours, chosen on validation images of AT&T faces, and taken as it is everywhere else.
CORRECTED = Schedule(epochs=40, batch_size=20, rate=3e-3, cosine=True, one_hot=True, smoothing=0.1)


def student_faces(n_classes: int, size: int = 250, seed: int = 0) -> "keras.Model":
    """Convolutions of 32, 64 and 128 channels (3 × 3, valid, ReLU), each pooled 2 × 2; flatten; softmax.

    At 250 × 250 the vector has 107 648 numbers (29 × 29 × 128), each of which the classifier ties to every class: all
    but 93 248 of its parameters sit there.

    Raises
    ------
    ValueError : images of less than 22 pixels, of which three poolings leave nothing.
    """
    if size < 22:
        raise ValueError(f"student_faces pools three times and needs images of at least 22 pixels, got {size}")
    layers = _layers(seed)
    steps = [layers.Rescaling(1 / 255)]
    for channels in (32, 64, 128):
        steps += [layers.Conv2D(channels, 3, activation="relu"), layers.MaxPooling2D()]
    return _built("student_faces", size, [*steps, layers.Flatten(name=EMBEDDING), _softmax(layers, n_classes)])


def student_objects(
    n_classes: int, size: int = 224, dropout_after_softmax: bool = True, seed: int = 0
) -> "keras.Model":
    """Convolutions of 8 (7 × 7, stride 3), 16 (stride 2), 16, 32 (stride 2) and 32 channels, each with batch
    normalization and ReLU, L1 and L2 penalties; average pooling; flatten; softmax; dropout 0.2.

    dropout_after_softmax : as published. Dropout behind the softmax sets the probability of whole classes to zero.
        Where it hits the right one, in a fifth of the images, the loss on one-hot labels is -log(1e-7) = 16.1
        whatever the network saw, and its gradient zero. Where it hits all classes at once, which happens with very few
        of them, the loss is 0/0 and training ends. ``False`` puts it before the classifier, where it belongs; the
        parameters are the same.
    """
    layers = _layers(seed)
    penalty = _penalty()
    steps = [layers.Rescaling(1 / 255)]
    for channels, kernel, stride in ((8, 7, 3), (16, 3, 2), (16, 3, 1), (32, 3, 2), (32, 3, 1)):
        steps += [
            layers.Conv2D(channels, kernel, strides=stride, padding="same", kernel_regularizer=penalty),
            layers.BatchNormalization(),
            layers.ReLU(),
        ]
    steps += [layers.AveragePooling2D(2, padding="same"), layers.Flatten(name=EMBEDDING)]
    last = [_softmax(layers, n_classes), layers.Dropout(0.2, seed=seed)]
    name = "student_objects" if dropout_after_softmax else "student_objects_moved"
    return _built(name, size, steps + (last if dropout_after_softmax else last[::-1]))


def corrected(
    n_classes: int, size: int = 64, channels: tuple[int, ...] = (32, 64, 128), seed: int = 0
) -> "keras.Model":
    """Our own: pairs of 3 × 3 convolutions with batch normalization, halved in size from stage to stage; global average
    pooling; dropout 0.2; softmax.

    No parameter is tied to a place in the image, so the image's size costs time alone. While it trains it sees each
    image as `GENTLE` changes it: augmentation is its first layer, which does nothing at any other time.

    channels : of each stage. The first one halves the image, too.
    """
    from helpers.images.augmentation import RandomAffine

    layers = _layers(seed)
    steps = [RandomAffine(**GENTLE, dtype="float32"), layers.Rescaling(1 / 127.5, offset=-1)]
    for width in channels:
        for stride in (2, 1):
            steps += [
                # The shift of the batch normalization makes a bias needless.
                layers.Conv2D(width, 3, strides=stride, padding="same", use_bias=False),
                layers.BatchNormalization(momentum=0.9),
                layers.ReLU(),
            ]
    steps += [layers.GlobalAveragePooling2D(name=EMBEDDING), layers.Dropout(0.2, seed=seed)]
    return _built("corrected", size, [*steps, _softmax(layers, n_classes)])


#: Every network by the name that tables call it: how it is built (n_classes, seed=…) and how it is trained.
NETWORKS: dict[str, "tuple[Callable[..., keras.Model], Schedule]"] = {
    "student-faces": (student_faces, STUDENT_FACES),
    "student-objects": (student_objects, STUDENT_OBJECTS),
    "student-objects-moved": (partial(student_objects, dropout_after_softmax=False), STUDENT_OBJECTS),
    "corrected": (corrected, CORRECTED),
}


def compiled(model: "keras.Model", schedule: Schedule, steps_per_epoch: int) -> "keras.Model":
    """The model, compiled with Adam, cross-entropy and accuracy as the schedule says."""
    import keras

    rate = schedule.rate
    if schedule.cosine:
        steps = schedule.epochs * steps_per_epoch
        warm = max(1, steps // 10)
        rate = keras.optimizers.schedules.CosineDecay(
            rate / 10, max(1, steps - warm), warmup_target=rate, warmup_steps=warm
        )
    if schedule.one_hot:
        loss = keras.losses.CategoricalCrossentropy(label_smoothing=schedule.smoothing)
        metric = keras.metrics.CategoricalAccuracy("accuracy")
    else:
        loss, metric = keras.losses.SparseCategoricalCrossentropy(), keras.metrics.SparseCategoricalAccuracy("accuracy")
    # XLA on a CPU takes longer to compile these than it saves.
    model.compile(keras.optimizers.Adam(rate), loss, metrics=[metric], jit_compile=False)
    return model


def train(
    model: "keras.Model",
    schedule: Schedule,
    teaching: Examples,
    validation: Examples,
    *,
    name: str,
    seed: int = 0,
    progress: bool = True,
) -> Training:
    """Compile a network and train it by its schedule; afterwards it has the weights of the best validation loss.

    The rest is as for `helpers.networks.training.fit`: a finished training is taken from the cache, a killed one goes
    on.
    """
    compiled(model, schedule, -(-len(teaching) // schedule.batch_size))
    return training.fit(
        model,
        teaching,
        name=name,
        epochs=schedule.epochs,
        batch_size=schedule.batch_size,
        seed=seed,
        one_hot=model.output_shape[-1] if schedule.one_hot else None,
        validation=validation,
        plateau=schedule.plateau,
        patience=schedule.patience,
        progress=progress,
    )


def embedder(model: "keras.Model") -> "keras.Model":
    """The model cut before its classifier: images → what its layer ``embedding`` gives, (b, dim).

    It shares the model's weights: train first, then describe.
    """
    import keras

    return keras.Model(model.inputs[0], model.get_layer(EMBEDDING).output, name=f"{model.name}_embedder")


def _layers(seed: int):
    """Keras's layers, whose first weights will depend on the seed alone."""
    import keras

    keras.utils.set_random_seed(seed)
    return keras.layers


def _softmax(layers, n_classes: int):
    if n_classes < 2:
        raise ValueError(f"a classifier needs at least two classes, got {n_classes}")
    return layers.Dense(n_classes, activation="softmax", name="classifier")


def _penalty():
    import keras

    return keras.regularizers.L1L2(l1=1e-5, l2=1e-4)


def _built(name: str, size: int, steps: list) -> "keras.Model":
    import keras

    return keras.Sequential([keras.Input((size, size, 3), name="image"), *steps], name=name)
