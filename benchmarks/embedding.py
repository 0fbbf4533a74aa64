"""Extraction by ResNet50 and EfficientNet-Lite0: the compiled networks against common ways to use Keras.

    python -m benchmarks.embedding
    python -m benchmarks.embedding --images 100 --times 1
    python -m benchmarks.embedding --precisions          speed and mAP of bfloat16 and float16
    python -m benchmarks.embedding --faces               dlib's face network

Four methods run one after the other in one process, for several rounds; ratios are those of the medians.

- predict one at a time: Keras's ``model.predict`` for each image, as in most search systems on the web
- Keras, batches of 32: one traced graph, pixels in memory
- compiled: the same pixels through `helpers.networks.compiled`
- end to end: ``open_extractor("resnet50").extract`` from files to vectors, including reading, decoding and resizing

The last line compares the two networks.

The share "of the compiled rate" shows the cost of reading files. The vectors of all methods are compared.

With ``--faces``, the same aligned faces are computed by dlib's ``compute_face_descriptor`` in batches, and by
`helpers.networks.face_network`. The last line compares the extractor, which also finds and aligns the faces.

Precisions are those that this processor supports, on real images that come with the course. The difference in mAP has
a paired 95 % interval over the same queries.
"""

import argparse
import time
from statistics import median

import numpy as np

from benchmarks.inputs import conditions, real_images
from helpers.evaluation import protocol_files
from helpers.features import faces
from helpers.features.faces import FaceExtractor
from helpers.features.registry import open_extractor
from helpers.images import att_faces, reading, samples
from helpers.lessons.extractor_comparison import compare_extractors
from helpers.networks import zoo
from helpers.networks.compiled import PRECISIONS, CompiledNetwork, KerasNetwork, PrecisionUnavailable
from helpers.networks.face_network import face_network
from helpers.vectors import l2_normalize

NETWORK = "resnet50"
NETWORKS = (NETWORK, "efficientnet-lite0")
BATCH = 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--times", type=int, default=3, help="rounds of all four methods")
    parser.add_argument("--singles", type=int, default=100, help="images for predict one at a time, the slowest method")
    parser.add_argument("--precisions", action="store_true", help="compare precisions instead")
    parser.add_argument("--faces", action="store_true", help="compare dlib's face network instead")
    options = parser.parse_args()
    if options.faces:
        compare_faces(min(options.images, 100), options.times)
    elif options.precisions:
        compare_precisions(options.times)
    else:
        first, second = ({name: compare_methods(name, options) for name in NETWORKS}).values()
        print(
            f"{NETWORKS[1]} against {NETWORKS[0]}: "
            + ", ".join(f"{name} {second[name] / first[name]:.2f} times" for name in first)
        )


def compare_methods(network: str, options: argparse.Namespace) -> dict[str, float]:
    """Print the rates of all methods, and return their medians: images per second."""
    images = real_images(options.images)
    print(f"{network}: {conditions(images)}")
    extractor = open_extractor(network, engine="openvino")
    extractor.prepare()
    assert isinstance(extractor.network, CompiledNetwork)
    pixels = np.concatenate([part for _, part in reading.batches(images, extractor.size)])
    model, prepare = zoo.embedder(network), zoo.preprocessing(network)
    keras = KerasNetwork(model, prepare, extractor.size)
    starts = range(0, len(pixels), BATCH)

    def one_at_a_time() -> list[np.ndarray]:
        some = pixels[: options.singles]
        return [model.predict(prepare(each[None].astype(np.float32)), verbose=0)[0] for each in some]

    def in_batches() -> np.ndarray:
        return np.concatenate([keras(pixels[start : start + BATCH]) for start in starts])

    def compiled() -> np.ndarray:
        batches = ((np.arange(start, start + BATCH), pixels[start : start + BATCH]) for start in starts)
        return np.concatenate([output for _, output in extractor.network.stream(batches)])

    def end_to_end() -> np.ndarray:
        return extractor.extract(images, cache=False, progress=False)

    methods = {
        "predict one at a time": one_at_a_time,
        f"Keras, batches of {BATCH}": in_batches,
        "compiled": compiled,
        "end to end from files": end_to_end,
    }
    # Tracing and other one-time work is part of no rate.
    model.predict(prepare(pixels[:1].astype(np.float32)), verbose=0)
    keras(pixels[:BATCH])
    rates, vectors = {name: [] for name in methods}, {}
    for _ in range(options.times):
        for name, method in methods.items():
            start = time.perf_counter()
            vectors[name] = l2_normalize(np.asarray(method()))
            rates[name].append(len(vectors[name]) / (time.perf_counter() - start))
    rate = {name: median(found) for name, found in rates.items()}
    for name, found in rates.items():
        print(f"  {name:24} {rate[name]:6.1f} images/s ({min(found):.1f} to {max(found):.1f})")
    single, batched, own, whole = rate.values()
    print(f"  compiled is {own / single:.2f} times predict one at a time, {own / batched:.2f} times Keras in batches")
    print(f"  end to end is {whole / single:.2f} times predict one at a time, {whole / batched:.2f} times Keras in")
    print(f"  batches, and {whole / own:.0%} of the compiled rate")
    reference = vectors[f"Keras, batches of {BATCH}"]
    for name, found in vectors.items():
        print(f"  {name:24} maximum difference of vectors {np.abs(found - reference[: len(found)]).max():.1e}")
    return rate


def compare_faces(count: int, times: int) -> None:
    """Print the rates of dlib's face network, computed by dlib and by OpenVINO, and of the whole extractor."""
    import dlib

    images = att_faces.load().subset(range(count))
    print(f"dlib-face: {conditions(images)}")
    extractor = FaceExtractor()
    pixels = np.stack([extractor.preprocess(reading.read_image(path)) for path in images.paths])
    found = [faces.find_faces(image) for image in pixels]
    aligned = [
        faces.align(image, faces.choose(each, image.shape)) for image, each in zip(pixels, found, strict=True) if each
    ]
    network = face_network(faces.model_files()[faces.NETWORK_FILE])
    reference = dlib.face_recognition_model_v1(str(faces.model_files()[faces.NETWORK_FILE]))
    extractor.prepare()
    methods = {
        "dlib": lambda: np.array(reference.compute_face_descriptor(aligned)),
        "compiled": lambda: network(np.stack(aligned)),
        "extractor, with detection": lambda: extractor.extract(images, cache=False, progress=False),
    }
    rates: dict[str, list[float]] = {name: [] for name in methods}
    vectors = {}
    for _ in range(times):
        for name, method in methods.items():
            start = time.perf_counter()
            vectors[name] = method()
            rates[name].append(len(vectors[name]) / (time.perf_counter() - start))
    off = np.abs(vectors["dlib"] - vectors["compiled"]).max()
    base = median(rates["dlib"])
    for name, found_rates in rates.items():
        print(
            f"  {name:26} {median(found_rates):6.1f} images per second, {median(found_rates) / base:.1f} times dlib's"
        )
    print(f"  largest difference between dlib and compiled: {off:.1g}")


def compare_precisions(times: int) -> None:
    for load, protocol in ((samples.photos, "sample-leave-one-out"), (att_faces.load, "att-faces-leave-one-out")):
        images, vectors, rates = load(), {}, {}
        print(f"{NETWORK}: {conditions(images)}; protocol {protocol}")
        for precision in PRECISIONS:
            try:
                extractor = open_extractor(NETWORK, engine="openvino", precision=precision)
            except PrecisionUnavailable as error:
                print(f"  {precision}: {error}")
                continue
            extractor.prepare()
            extractor.extract(images.subset(range(BATCH)), cache=False, progress=False)
            spent = []
            for _ in range(times):
                start = time.perf_counter()
                vectors[precision] = extractor.extract(images, cache=False, progress=False)
                spent.append(time.perf_counter() - start)
            rates[precision] = len(images) / median(spent)
        compared = compare_extractors(vectors, protocol_files.frozen(protocol), "float32")
        for name, row in compared.set_index("version").iterrows():
            cosines = (vectors["float32"] * vectors[name]).sum(axis=1)
            interval = f"{row['difference low']:+.4f} to {row['difference high']:+.4f}"
            print(
                f"  {name:9} {rates[name]:6.1f} images/s, {rates[name] / rates['float32']:.2f} times float32; "
                f"mAP {row['mAP']:.4f}, {row['difference']:+.4f} ({interval}); "
                f"cosine with float32 at least {cosines.min():.5f}"
            )


if __name__ == "__main__":
    main()
