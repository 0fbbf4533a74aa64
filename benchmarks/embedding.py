"""From images to vectors by ResNet50: the compiled network against what people do with Keras.

    python -m benchmarks.embedding
    python -m benchmarks.embedding --images 100 --times 1
    python -m benchmarks.embedding --precisions          what bfloat16 and float16 save, and cost in retrieval score

Four ways, one after the other in one process, several rounds of all four; the ratios are those of the medians.

- predict one at a time: Keras's ``model.predict`` for each image, as most search systems on the web do
- Keras, batches of 32: one traced graph, pixels ready in memory
- compiled: the same pixels through `helpers.networks.compiled`
- end to end: ``open_extractor("resnet50").extract``, from files to vectors: reading, decoding and resizing included

"Of the compiled rate" is what reading files costs beside computing. The vectors of all ways are compared.

Precisions are those that this processor can compute in, by real images that come with the course; the difference in
mAP is that of the same queries, with its paired 95 % interval.
"""

import argparse
import time
from statistics import median

import numpy as np

from benchmarks.inputs import conditions, real_images
from helpers.evaluation import protocol_files
from helpers.features.registry import open_extractor
from helpers.images import att_faces, reading, samples
from helpers.lessons.extractor_comparison import compare_extractors
from helpers.networks import zoo
from helpers.networks.compiled import PRECISIONS, CompiledNetwork, KerasNetwork, PrecisionUnavailable
from helpers.vectors import l2_normalize

NETWORK = "resnet50"
BATCH = 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--times", type=int, default=3, help="rounds of all four ways")
    parser.add_argument("--singles", type=int, default=100, help="images for predict one at a time, the slowest way")
    parser.add_argument("--precisions", action="store_true", help="compare precisions instead")
    asked = parser.parse_args()
    if asked.precisions:
        compare_precisions(asked.times)
    else:
        compare_ways(asked)


def compare_ways(asked: argparse.Namespace) -> None:
    images = real_images(asked.images)
    print(f"{NETWORK}: {conditions(images)}")
    by = open_extractor(NETWORK, engine="openvino")
    by.prepare()
    assert isinstance(by.network, CompiledNetwork)
    pixels = np.concatenate([part for _, part in reading.batches(images, by.size)])
    model, prepare = zoo.embedder(NETWORK), zoo.preprocessing(NETWORK)
    keras = KerasNetwork(model, prepare, by.size)
    starts = range(0, len(pixels), BATCH)

    def one_at_a_time():
        some = pixels[: asked.singles]
        return [model.predict(prepare(each[None].astype(np.float32)), verbose=0)[0] for each in some]

    def in_batches():
        return np.concatenate([keras(pixels[start : start + BATCH]) for start in starts])

    def compiled():
        batches = ((np.arange(start, start + BATCH), pixels[start : start + BATCH]) for start in starts)
        return np.concatenate([output for _, output in by.network.stream(batches)])

    def end_to_end():
        return by.extract(images, cache=False, progress=False)

    ways = {
        "predict one at a time": one_at_a_time,
        f"Keras, batches of {BATCH}": in_batches,
        "compiled": compiled,
        "end to end from files": end_to_end,
    }
    # What is done once, such as tracing, is not part of any rate.
    model.predict(prepare(pixels[:1].astype(np.float32)), verbose=0)
    keras(pixels[:BATCH])
    rates, vectors = {name: [] for name in ways}, {}
    for _ in range(asked.times):
        for name, way in ways.items():
            start = time.perf_counter()
            vectors[name] = l2_normalize(np.asarray(way()))
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
        print(f"  {name:24} vectors off by at most {np.abs(found - reference[: len(found)]).max():.1e}")


def compare_precisions(times: int) -> None:
    for load, protocol in ((samples.photos, "sample-leave-one-out"), (att_faces.load, "att-faces-leave-one-out")):
        images, vectors, rates = load(), {}, {}
        print(f"{NETWORK}: {conditions(images)}; protocol {protocol}")
        for precision in PRECISIONS:
            try:
                by = open_extractor(NETWORK, engine="openvino", precision=precision)
            except PrecisionUnavailable as error:
                print(f"  {precision}: {error}")
                continue
            by.prepare()
            by.extract(images.subset(range(BATCH)), cache=False, progress=False)
            spent = []
            for _ in range(times):
                start = time.perf_counter()
                vectors[precision] = by.extract(images, cache=False, progress=False)
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
