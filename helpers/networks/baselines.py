"""Small convolutional networks to train from scratch: two published student networks, and an improved one.

The input is (b, size, size, 3) in 0 … 255, the output class probabilities. The output of the layer ``embedding`` is
the feature vector, see `embedder`. `train` compiles a network and trains it by a `Schedule`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import ModuleType
from typing import TYPE_CHECKING, Any

from helpers.networks import training
from helpers.networks.cifar_networks import EMBEDDING
from helpers.networks.cifar_networks import embedder as embedder
from helpers.networks.examples import Examples
from helpers.networks.training import Plateau, Training

if TYPE_CHECKING:
    import keras

#: The augmentation of `corrected`. The classic recipe (40°, 0.2) is for objects in any position; faces and centered
#: objects need less.
GENTLE: dict[str, Any] = {"rotation": 10, "shift": 0.1, "zoom": 0.1, "flip": True}


@dataclass(frozen=True)
class Schedule:
    """Settings of a training with Adam.

    Parameters
    ----------
    rate : learning rate; with ``cosine`` its maximum.
    cosine : linear warm-up from a tenth of the rate in the first tenth of the steps, then cosine decay to zero
        (Loshchilov & Hutter 2017). It excludes ``plateau``.
    one_hot : the loss takes one-hot labels instead of class numbers. With dropout after the softmax the two differ.
    smoothing : label smoothing (Szegedy et al. 2016); it requires ``one_hot``.
    plateau, patience : see `helpers.networks.training.fit`.
    """

    epochs: int
    batch_size: int
    rate: float = 1e-3
    cosine: bool = False
    one_hot: bool = False
    smoothing: float = 0.0
    plateau: Plateau | None = None
    patience: int | None = None

    def __post_init__(self) -> None:
        if self.cosine and self.plateau:
            raise ValueError("the learning rate follows either a cosine or plateaus, not both")
        if self.smoothing and not self.one_hot:
            raise ValueError("label smoothing requires one-hot labels: give one_hot=True")


#: As published.
STUDENT_FACES = Schedule(epochs=10, batch_size=100)
#: As published, except for the batch size and patience, which the authors do not give.
STUDENT_OBJECTS = Schedule(epochs=60, batch_size=16, one_hot=True, plateau=Plateau(0.5, 10), patience=30)

#: Chosen on validation images of AT&T faces, and used unchanged for other data sets.
CORRECTED = Schedule(epochs=40, batch_size=20, rate=3e-3, cosine=True, one_hot=True, smoothing=0.1)


def student_faces(n_classes: int, size: int = 250, seed: int = 0) -> "keras.Model":
    """Convolutions of 32, 64 and 128 channels (3 × 3, valid, ReLU), each pooled 2 × 2; flatten; softmax.

    At 250 × 250 the embedding has 107,648 dimensions (29 × 29 × 128), so all but 93,248 of the network's parameters are
    in its classifier.
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

    dropout_after_softmax : as published. Dropout after the softmax sets probabilities of classes to zero. If the true
        class is hit, in a fifth of the images, the loss of one-hot labels is constant, -log(1e-7) = 16.1, with gradient
        zero. If all classes are hit, which happens with very few classes, the loss is 0/0. ``False`` moves the dropout
        before the classifier, where it belongs, with the same parameters.
    """
    import keras

    layers = _layers(seed)
    penalty = keras.regularizers.L1L2(l1=1e-5, l2=1e-4)
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
    """Stages of two 3 × 3 convolutions with batch normalization; global average pooling; dropout 0.2; softmax.

    The number of parameters does not depend on the size. The first layer augments images in training, see `GENTLE`.

    channels : of each stage, all of which halve the feature map.
    """
    from helpers.images.augmentation import RandomAffine

    layers = _layers(seed)
    steps = [RandomAffine(**GENTLE, dtype="float32"), layers.Rescaling(1 / 127.5, offset=-1)]
    for width in channels:
        for stride in (2, 1):
            steps += [
                # The batch normalization has a bias.
                layers.Conv2D(width, 3, strides=stride, padding="same", use_bias=False),
                layers.BatchNormalization(momentum=0.9),
                layers.ReLU(),
            ]
    steps += [layers.GlobalAveragePooling2D(name=EMBEDDING), layers.Dropout(0.2, seed=seed)]
    return _built("corrected", size, [*steps, _softmax(layers, n_classes)])


#: Name → function that builds the network (n_classes, seed=…), and its schedule.
NETWORKS: dict[str, "tuple[Callable[..., keras.Model], Schedule]"] = {
    "student-faces": (student_faces, STUDENT_FACES),
    "student-objects": (student_objects, STUDENT_OBJECTS),
    "student-objects-moved": (partial(student_objects, dropout_after_softmax=False), STUDENT_OBJECTS),
    "corrected": (corrected, CORRECTED),
}


def compiled(model: "keras.Model", schedule: Schedule, steps_per_epoch: int) -> "keras.Model":
    """Compile the model with Adam, cross-entropy and accuracy by the schedule; returns it."""
    import keras

    rate: float | keras.optimizers.schedules.CosineDecay = schedule.rate
    if schedule.cosine:
        steps = schedule.epochs * steps_per_epoch
        warmup = max(1, steps // 10)
        rate = keras.optimizers.schedules.CosineDecay(
            schedule.rate / 10, max(1, steps - warmup), warmup_target=schedule.rate, warmup_steps=warmup
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
    model: "keras.Model", schedule: Schedule, train_examples: Examples, validation: Examples, *, name: str,
    seed: int = 0, progress: bool = True,
) -> Training:  # fmt: skip
    """Compile a network and train it by its schedule, see `helpers.networks.training.fit`.

    The weights of the best validation loss are kept.
    """
    compiled(model, schedule, -(-len(train_examples) // schedule.batch_size))
    return _fit(model, schedule, train_examples, validation, name, seed, progress)


def train_seeds(
    networks: "Mapping[int, keras.Model]", schedule: Schedule, train_examples: Examples, validation: Examples, *,
    name: str, progress: bool = True,
) -> dict[int, Training]:  # fmt: skip
    """Call `train` for networks that differ only in their seed; returns the training of each seed.

    The weights are those of separate calls. One copy is compiled, and trained for each seed, because TensorFlow traces
    every compiled model, which takes longer than several epochs of a small network.

    networks : seed → the network with its initial weights.
    name : without the seed.
    """
    import keras

    shared = compiled(
        keras.models.clone_model(next(iter(networks.values()))), schedule,
        -(-len(train_examples) // schedule.batch_size),
    )  # fmt: skip
    found = {}
    for seed, network in networks.items():
        shared.set_weights(network.get_weights())
        found[seed] = _fit(shared, schedule, train_examples, validation, f"{name}-seed{seed}", seed, progress)
        network.set_weights(shared.get_weights())
    return found


def _fit(
    model: "keras.Model", schedule: Schedule, train_examples: Examples, validation: Examples, name: str, seed: int,
    progress: bool,
) -> Training:  # fmt: skip
    return training.fit(
        model, train_examples, name=name, epochs=schedule.epochs, batch_size=schedule.batch_size, seed=seed,
        one_hot=model.output_shape[-1] if schedule.one_hot else None, validation=validation, plateau=schedule.plateau,
        patience=schedule.patience, progress=progress,
    )  # fmt: skip


def _layers(seed: int) -> ModuleType:
    """``keras.layers``, after the seed for initial weights was set."""
    import keras

    keras.utils.set_random_seed(seed)
    return keras.layers


def _softmax(layers: ModuleType, n_classes: int) -> "keras.layers.Layer":
    if n_classes < 2:
        raise ValueError(f"a classifier needs at least two classes, got {n_classes}")
    return layers.Dense(n_classes, activation="softmax", name="classifier")


def _built(name: str, size: int, steps: list) -> "keras.Model":
    import keras

    return keras.Sequential([keras.Input((size, size, 3), name="image"), *steps], name=name)
