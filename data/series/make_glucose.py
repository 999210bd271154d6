"""Make glucose.npz: the readings of one glucose monitor, from a wheel that need not be installed.

pip download --no-deps bokeh_sampledata==2026.1
python data/series/make_glucose.py bokeh_sampledata-2026.1-py3-none-any.whl
"""

from __future__ import annotations

import argparse
import csv
import gzip
import hashlib
import io
import zipfile
from datetime import datetime
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
SHA256 = "f40331a40ca30c64a1c1471835aad9006b61b0d9731a3f649ee8cbbf48d3822f"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("wheel", type=Path)
    wheel = parser.parse_args().wheel
    found = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if found != SHA256:
        raise SystemExit(f"{wheel} has SHA-256 {found}, expected {SHA256}")
    with zipfile.ZipFile(wheel) as held:
        text = gzip.decompress(held.read("bokeh_sampledata/_data/CGM.csv.gz")).decode()
    rows = list(csv.DictReader(io.StringIO(text)))
    midnight = datetime(2010, 3, 24)  # noqa: DTZ001  # the monitor's own clock, of no known zone
    times = [datetime.fromisoformat(row["datetime"]) for row in rows]
    minute = [int((time - midnight).total_seconds()) // 60 for time in times]
    np.savez_compressed(
        HERE / "glucose.npz",
        minute=np.array(minute, dtype=np.int32),
        glucose=np.array([int(row["glucose"]) for row in rows], dtype=np.int16),
    )


if __name__ == "__main__":
    main()
