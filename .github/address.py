"""Carry the repository's web address from pyproject.toml to every copy of it: `make address`.

The old address is the one that _config.yml states; every tracked or new text file that holds it
gets the new one.
"""

from __future__ import annotations

import subprocess
import tomllib
from pathlib import Path
from urllib.parse import urlparse

import yaml

ROOT = Path(__file__).resolve().parents[1]


def stated() -> str:
    """Return the address that pyproject.toml states, without a slash at its end."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return project["urls"]["Repository"].rstrip("/")


def spellings(address: str) -> list[str]:
    """Every way in which it is written: the repository, Colab's copy of it, the pages served."""
    owner, name = urlparse(address).path.strip("/").split("/")
    return [f"github.com/{owner}/{name}", f"/github/{owner}/{name}/", f"{owner}.github.io/{name}"]


def files() -> list[Path]:
    """Files that git tracks or would track."""
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    names = subprocess.run(
        listed, cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split("\0")
    return [ROOT / name for name in names if name and (ROOT / name).is_file()]


def main() -> None:
    old = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))["repository"]["url"]
    pairs = list(zip(spellings(old), spellings(stated()), strict=True))
    for path in files():
        try:
            before = after = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # not text
        for a, b in pairs:
            after = after.replace(a, b)
        if after != before:
            path.write_text(after, encoding="utf-8")
            print(f"{path.relative_to(ROOT)}: {stated()}")


if __name__ == "__main__":
    main()
