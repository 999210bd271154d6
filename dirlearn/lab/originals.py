"""Find a data set's original files on the user's machine, and know that they are the ones."""

from __future__ import annotations

import gzip
import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

VARIABLE = "DIRLEARN_DATA"
SYSTEM = (Path("/usr/share/datasets"),)  # where Debian's packages put them


@dataclass(frozen=True)
class Packing:
    """One way to pack a data set: MD5 of its files (unpacked), and folders that may hold them."""

    name: str
    sums: Mapping[str, str]
    folders: tuple[str, ...]


def roots(folder: str | Path | None) -> tuple[Path, ...]:
    """Where to look: in the folder given, else in $DIRLEARN_DATA and where the system keeps data.

    Examples
    --------
    >>> [path.name for path in roots("here")]
    ['here']
    """
    if folder is not None:
        return (Path(folder).expanduser(),)
    held = os.environ.get(VARIABLE)
    return (*([Path(held).expanduser()] if held else []), *SYSTEM)


def find(
    title: str, packings: Sequence[Packing], where: Sequence[Path], remedy: str
) -> tuple[Packing, dict[str, bytes]]:
    """Look for a data set in the folders ``where``, and in those of its own names inside them.

    Returns
    -------
    packing, contents
        How it is packed, and the contents of its files, each the file that it should be.

    Raises
    ------
    FileNotFoundError
        If no folder holds all files of one packing. The message says what to get and where to put
        it; nothing is downloaded.
    ValueError
        If a file is there and is another, or damaged.
    """
    looked = []
    for packing in packings:
        for place in [root / name for root in where for name in ("", *packing.folders)]:
            sums = packing.sums
            there = {name: path for name in sums if (path := _path(place / name)) is not None}
            lacking = [name for name in sums if name not in there]
            if not lacking:
                return packing, {name: _checked(there[name], sums[name]) for name in sums}
            looked.append(f"{place} (without {', '.join(lacking)})" if there else str(place))
    raise FileNotFoundError(
        f"{title} is not here, and dirlearn downloads nothing. {remedy} Put the files into a "
        f"folder and give it, or set ${VARIABLE} to it or to the folder above. Recorded results of "
        f"the book's studies need no data: dirlearn.lab.experiments.record. Looked in "
        f"{', '.join(dict.fromkeys(looked))}"
    )


def _path(path: Path) -> Path | None:
    """The file, or its gzipped form, whichever is there."""
    zipped = path.with_name(path.name + ".gz")
    return path if path.is_file() else zipped if zipped.is_file() else None


def _checked(path: Path, expected: str) -> bytes:
    content = path.read_bytes()
    if path.suffix == ".gz":
        content = gzip.decompress(content)
    found = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if found != expected:
        raise ValueError(
            f"{path} has MD5 {found}, expected {expected}: it is another file, or a damaged one; "
            "get it anew"
        )
    return content
