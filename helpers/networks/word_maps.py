"""The network and the loss of DeViSE: from feature vectors to word vectors (Frome et al. 2013).

A. Frome et al., DeViSE: A deep visual-semantic embedding model, NIPS 2013.
"""

import keras
import numpy as np
from keras import ops


@keras.saving.register_keras_serializable(package="lookalike")
class HingeRankLoss(keras.losses.Loss):
    """The true class's word vector should score higher than all others, by a margin (Frome et al. 2013, equation 1).

    Σ over the other classes j of max(0, margin − t_label · v + t_j · v), where v is the network's output, divided by
    its length, and t are the word vectors of length 1.

    targets : float32 (c, dim), of length 1: the word vector of each class.
    """

    def __init__(self, targets: np.ndarray, margin: float = 0.1, name: str = "hinge_rank"):
        super().__init__(name=name, dtype="float32")
        if not margin > 0:
            raise ValueError(f"margin must be positive, got {margin}")
        self.targets, self.margin = np.asarray(targets, np.float32), margin

    def call(self, y_true: keras.KerasTensor, y_pred: keras.KerasTensor) -> keras.KerasTensor:
        """Labels (b,) or (b, 1), vectors (b, dim) → float32 (b,)."""
        scores = ops.matmul(ops.normalize(y_pred, axis=-1), ops.transpose(ops.convert_to_tensor(self.targets)))
        labels = ops.reshape(ops.cast(y_true, "int32"), (-1, 1))
        true = ops.take_along_axis(scores, labels, axis=1)
        others = 1 - ops.one_hot(labels[:, 0], len(self.targets))
        return ops.sum(ops.relu(self.margin - true + scores) * others, axis=1)

    def get_config(self) -> dict:
        return {"targets": self.targets.tolist(), "margin": self.margin, "name": self.name}


def word_map(dim: int, out: int, hidden: int = 300, dropout: float = 0.5, seed: int = 0) -> keras.Model:
    """Feature vectors (b, dim) → hidden layer with ReLU → word vectors (b, out).

    dropout : of the features and of the hidden layer. Dropout of the features helps most, if each class has few images.
    """
    keras.utils.set_random_seed(seed)
    vectors = keras.Input((dim,), name="vectors")
    x = keras.layers.Dropout(dropout, seed=seed, name="feature_dropout")(vectors)
    x = keras.layers.Dense(hidden, activation="relu", name="hidden")(x)
    x = keras.layers.Dropout(dropout, seed=seed + 1, name="hidden_dropout")(x)
    return keras.Model(vectors, keras.layers.Dense(out, name="words")(x), name="word_map")


def train_word_map(
    model: keras.Model, vectors: np.ndarray, labels: np.ndarray, targets: np.ndarray, *, loss: str = "hinge",
    margin: float = 0.3, epochs: int = 60, learning_rate: float = 1e-3, batch_size: int = 32,
) -> list[float]:  # fmt: skip
    """Train a `word_map` with Adam; returns the loss of each epoch.

    vectors : float32 (n, dim). labels : int64 (n,), rows of ``targets``. targets : float32 (c, out), of length 1.
    loss : ``hinge`` for `HingeRankLoss`, or ``cosine``, which only looks at the true class.
    """
    if loss not in ("hinge", "cosine"):
        raise ValueError(f"loss must be hinge or cosine, got {loss!r}")
    goal = HingeRankLoss(targets, margin) if loss == "hinge" else keras.losses.CosineSimilarity()
    # Compiling by XLA takes longer than the training of a small network.
    model.compile(keras.optimizers.Adam(learning_rate), goal, jit_compile=False)
    true = labels if loss == "hinge" else targets[labels]
    history = model.fit(vectors, true, batch_size=batch_size, epochs=epochs, verbose=0)
    return [float(value) for value in history.history["loss"]]
