from __future__ import annotations

import importlib
import importlib.util

import pytest

import dirlearn.lab


def test_without_the_extra_the_lab_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r'needs joblib, .* pip install "dirlearn\[lab\]"'):
        importlib.reload(dirlearn.lab)
