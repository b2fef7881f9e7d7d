"""Seconds and memory of the image index of `kore-bench augment`: many pictures, and many vectors.

    python benchmarks/images.py [--pictures 4000] [--vectors 200000] [--clip FOLDER]

Pictures of 640 x 480 are drawn into a scratch folder and indexed with a CLIP (default: a tiny random one, so that the time
is that of everything else: reading, hashing, decoding, perceptual hashes). Vectors of 768 features, as many as asked for,
are then put into a store and searched for 256 items at once and for one. Peak memory is that of the process.
"""

from __future__ import annotations

import argparse
import importlib
import os
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from kore_bench.augment.clip import Clip
from kore_bench.augment.index import PictureIndex

FEATURES = 768


def draw(folder: Path, count: int) -> list[Path]:
    """Write ``count`` different JPEG files."""
    files = [folder / f"{number:06}.jpg" for number in range(count)]
    for number, file in enumerate(files):
        small = np.random.default_rng(number).integers(0, 255, (12, 16, 3), dtype=np.uint8)
        Image.fromarray(small).resize((640, 480), Image.Resampling.BICUBIC).save(file, quality=85)
    return files


def fill(index: PictureIndex, count: int) -> None:
    """Put random unit vectors into the index's store, shard by shard."""
    rng = np.random.default_rng(0)
    for start in range(0, count, 512):
        vectors = rng.standard_normal((min(512, count - start), FEATURES), dtype=np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        digests = [(start + row).to_bytes(32, "big") for row in range(len(vectors))]
        index.store.add(digests, list(range(len(vectors))), vectors)


def say(what: str, count: int, seconds: float) -> None:
    """Print one line: how many, how long, and the peak memory until now."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    print(f"{what:<34} {count:>9,} {seconds:>9.2f} s {peak:>8.0f} MiB", flush=True)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=4000)
    parser.add_argument("--vectors", type=int, default=200_000)
    parser.add_argument("--clip", default="", help="folder of a CLIP model (default: a tiny random one)")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["KORE_BENCH_CACHE"] = f"{scratch}/cache"
        sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
        tiny: Any = importlib.import_module("tiny_clip")
        clip = Clip(given.clip or str(tiny.write_clip(Path(scratch) / "clip")))
        clip.texts(["warm"])
        (Path(scratch) / "pictures").mkdir()
        files = draw(Path(scratch) / "pictures", given.pictures)
        quarter = files[: len(files) // 4]
        for what, part in (("indexed", quarter), ("indexed, a quarter known", files), ("indexed, all known", files)):
            start = time.perf_counter()
            PictureIndex(clip, "pictures").read(part, "pictures")
            say(what, len(part), time.perf_counter() - start)
        index = PictureIndex(clip, "vectors")
        fill(index, given.vectors)
        rows = np.arange(index.store.count - given.vectors, index.store.count)
        queries = np.random.default_rng(1).standard_normal((256, FEATURES), dtype=np.float32)
        for count in (256, 1):
            start = time.perf_counter()
            index.nearest(queries[:count], rows, 64)
            say(f"searched for {count} at once", given.vectors, time.perf_counter() - start)


if __name__ == "__main__":
    main()
