"""Re-weighting by a class: find what looks like this image, but as a boat.

The classifier of a network has one weight per feature and class. Multiplied by a class's weights, a feature vector
keeps what the image has in common with the class. E. Ameisen's semantic search (2018,
https://github.com/hundredblocks/semantic-search) multiplies the vectors of VGG16, those of the query and of all images.
If only the query is multiplied, any index can be searched as it is, and the effect is larger: the product with a plain
vector is a sum of features times weights, as in the score that the classifier gives to the class.
"""

import numpy as np

from helpers.features.text import WordVectors
from helpers.images import imagenet
from helpers.networks import specs, weights
from helpers.vectors import l2_normalize


class ClassWeights:
    """The weights of a network's ImageNet classifier, by the name of a class or by any text.

    Parameters
    ----------
    network : a name in `helpers.networks.specs.ZOO` whose embedding is the input of its classifier.
    words : finds the class that is nearest to a text; None allows names of classes only.

    Raises `WeightsUnavailable`, and ValueError for VGG16: its embedding is an earlier layer.
    """

    def __init__(self, network: str, words: WordVectors | None = None):
        row = specs.network(network)
        if row.embedding != "avg_pool":
            raise ValueError(f"{row.name}: the classifier's input is not the embedding, which is {row.embedding}")
        # The kernel and the bias of the classifier are the last arrays.
        self.kernel = np.asarray(weights.arrays(row.name)[-2], np.float32)
        self.names = tuple(imagenet.classes().values())
        self.words = words
        self._vectors = None if words is None else words.embed_names(self.names)

    def classes(self, text: str) -> list[str]:
        """The classes with this name, or the class whose name is nearest to the text.

        Raises ValueError if no class has this name and there are no word vectors, and `TextError`.
        """
        return [self.names[column] for column in self._columns(text)[0]]

    def weights(self, text: str) -> np.ndarray:
        """float32 (dim,): the sum of the weights of `classes`, times the cosine of the nearest name."""
        columns, cosines = self._columns(text)
        return (self.kernel[:, columns] @ cosines).astype(np.float32)

    def _columns(self, text: str) -> tuple[np.ndarray, np.ndarray]:
        """int64 (n,), float32 (n,): columns of the kernel, and the cosines of their names to the text."""
        same = [column for column, name in enumerate(self.names) if _plain(name) == _plain(text)]
        if same:
            # Two cranes and two maillots have one name each.
            return np.array(same), np.ones(len(same), np.float32)
        if self.words is None or self._vectors is None:
            raise ValueError(f"no class of ImageNet is called {text!r}; other texts need word vectors")
        cosines = self._vectors @ self.words.embed_text(text)
        nearest = np.array([cosines.argmax()])
        return nearest, np.maximum(cosines[nearest], 0)


def reweighted(vectors: np.ndarray, class_weights: np.ndarray) -> np.ndarray:
    """float (n, dim) times `ClassWeights.weights` (dim,) → float32 (n, dim), of length 1."""
    vectors, class_weights = np.asarray(vectors, np.float32), np.asarray(class_weights, np.float32)
    if vectors.ndim != 2 or class_weights.shape != vectors.shape[1:]:
        raise ValueError(f"expected vectors (n, dim) and weights (dim,), got {vectors.shape} and {class_weights.shape}")
    return l2_normalize(vectors * class_weights)


def _plain(name: str) -> str:
    return name.replace("_", " ").strip().lower()
