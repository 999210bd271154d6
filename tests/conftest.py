"""What every test shares: the device, a fixed seed, and property tests that repeat themselves."""

from __future__ import annotations

import os

import pytest
import torch
from hypothesis import settings

settings.register_profile("deterministic", derandomize=True, deadline=None, max_examples=60)
settings.load_profile("deterministic")


@pytest.fixture(scope="session")
def device() -> torch.device:
    """Where tensors live: TEST_DEVICE=cuda runs the same tests on a GPU."""
    return torch.device(os.environ.get("TEST_DEVICE", "cpu"))


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)
