"""Make fashion.npz: 750 images of each class of Fashion-MNIST, from Debian's package of it.

apt-get download dataset-fashion-mnist
dpkg -x dataset-fashion-mnist_*_all.deb unpacked
python data/images/make_fashion.py unpacked/usr/share/datasets/fashion-mnist
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

HERE = Path(__file__).parent
# Of the unpacked files: packages differ in how they were packed.
SHA256 = {
    "train-images-idx3": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
SEED = 2021
TRAIN, VAL, TEST = 600, 50, 100  # images per class; the first two from the original training file


def unpacked(folder: Path, name: str) -> bytes:
    """Read a file, and refuse one that is not what this script was written for."""
    content = gzip.decompress((folder / f"{name}-ubyte.gz").read_bytes())
    found = hashlib.sha256(content).hexdigest()
    if found != SHA256[name]:
        raise SystemExit(f"{name}-ubyte.gz has SHA-256 {found}, expected {SHA256[name]}")
    return content


def read(folder: Path, part: str) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Images (N, 28, 28) and classes (N,) of the part "train" or "t10k"."""
    images = np.frombuffer(unpacked(folder, f"{part}-images-idx3"), np.uint8, offset=16)
    labels = np.frombuffer(unpacked(folder, f"{part}-labels-idx1"), np.uint8, offset=8)
    return images.reshape(-1, 28, 28), labels


def drawn(
    labels: npt.NDArray[np.uint8], number: int, rng: np.random.Generator
) -> npt.NDArray[np.int64]:
    """Rows (10, number): as many of each class."""
    of = [np.flatnonzero(labels == c) for c in range(10)]
    return np.stack([rng.choice(rows, number, replace=False) for rows in of])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where the four ubyte.gz files lie")
    parser.add_argument("--out", type=Path, default=HERE / "fashion.npz")
    options = parser.parse_args()
    images, labels = read(options.folder, "train")
    test_images, test_labels = read(options.folder, "t10k")
    rng = np.random.default_rng(SEED)
    rows, test_rows = drawn(labels, TRAIN + VAL, rng), drawn(test_labels, TEST, rng)
    np.savez_compressed(
        options.out,
        train=images[rows[:, :TRAIN]],
        val=images[rows[:, TRAIN:]],
        test=test_images[test_rows],
    )
    print(f"{rows.size + test_rows.size} images, {options.out.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
