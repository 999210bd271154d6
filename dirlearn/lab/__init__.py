"""Where the book's experiments are made; the library never imports it."""

from importlib.util import find_spec

# The least that the lab needs besides the library; what else is missing says so itself.
_missing = [
    name for name in ("joblib", "lightning_fabric", "pandas", "tqdm") if not find_spec(name)
]
if _missing:
    raise ImportError(
        f"dirlearn.lab needs {', '.join(_missing)}, which come with its extra: "
        'pip install "dirlearn[lab]"'
    )
