import importlib.metadata
import inspect
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import dirlearn

HEAVY = ["torchmetrics", "matplotlib", "pandas", "scipy.signal", "sklearn", "dirlearn.lab"]


def python(code, *options):
    """Run ``code`` in a fresh interpreter that finds the same packages as this one."""
    path = f"import sys; sys.path[:] = {sys.path!r}\n"
    return subprocess.run(
        [sys.executable, *options, "-c", path + code], capture_output=True, text=True, check=True
    )


@pytest.mark.parametrize("name", dirlearn.__all__)
def test_public_names_are_documented_with_an_example(name):
    thing = getattr(dirlearn, name)
    assert inspect.getdoc(thing)
    if not inspect.ismodule(thing):
        assert thing.__module__.startswith("dirlearn.")
        assert re.search(r"^Examples\n-+\n(.|\n)*>>> ", inspect.getdoc(thing), re.MULTILINE)


def test_all_is_without_repeats_and_shown_by_dir():  # ruff keeps it sorted
    assert len(dirlearn.__all__) == len(set(dirlearn.__all__))
    assert set(dirlearn.__all__) <= set(dir(dirlearn))


def test_star_import_brings_every_public_name_and_no_other():
    space = {}
    exec("from dirlearn import *", space)  # a star import is allowed at module level only
    del space["__builtins__"]
    assert set(space) == set(dirlearn.__all__)
    assert space["shot_metrics"] is dirlearn.metrics.shot_metrics


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="'dirlearn' has no attribute 'lds_weight'"):
        dirlearn.lds_weight  # noqa: B018  # asking for it is the test


DEFAULTS = {
    "class_balanced_weights": {"beta": 0.9999},  # Cui et al. 2019; released code
    "deferred_weights": {"start": 160, "beta": 0.9999},  # Cao et al. 2019
    "balanced_sampler": {"beta": 1.0},  # every class equally often
    "focal_loss": {"gamma": 1.0},  # released code of Yang & Xu 2020
    "ldam_margins": {"max_margin": 0.5},
    "ldam_loss": {"scale": 30.0},
    "LDAMLoss": {"max_margin": 0.5, "scale": 30.0},  # Cao et al. 2019
    "SemiSupervisedLoss": {"omega": 1.0},
    "joint_weights": {"omega": 1.0},
    "pseudo_label": {"threshold": None},
    "pseudo_target_weights": {"power": 0.5, "kernel": "gaussian", "size": 5, "sigma": 2.0},
    "info_nce": {"temperature": 0.2},  # MoCo v2
    "nt_xent": {"temperature": 0.5},  # Chen et al. 2020, appendix B.9
    "SimCLR": {"dim": 128, "temperature": 0.5},
    "MoCo": {"dim": 128, "queue_size": 65536, "momentum": 0.999, "temperature": 0.2},
}


@pytest.mark.parametrize("name", DEFAULTS)
def test_defaults_are_the_published_ones(name):
    parameters = inspect.signature(getattr(dirlearn, name)).parameters
    assert {key: parameters[key].default for key in DEFAULTS[name]} == DEFAULTS[name]


def test_version_is_that_of_the_metadata():
    pyproject = Path(__file__).parents[1] / "pyproject.toml"
    assert f'version = "{dirlearn.__version__}"' in pyproject.read_text()


def test_import_is_light_and_metrics_load_on_demand():
    run = python(
        f"""
import json, sys
import numpy, torch
import dirlearn
heavy = [name for name in {HEAVY!r} if name in sys.modules]
dirlearn.ShotMetrics
print(json.dumps([heavy, "torchmetrics" in sys.modules]))
""",
        "-X",
        "importtime",
    )
    heavy, on_demand = json.loads(run.stdout)
    assert heavy == []
    assert on_demand
    # "import time: self | cumulative | name", microseconds; numpy and torch were there already
    cumulative = re.search(r"\|\s*(\d+) \| dirlearn$", run.stderr, re.MULTILINE)
    assert int(cumulative[1]) < 300_000


def test_version_is_that_of_the_installation():
    assert dirlearn.__version__ == importlib.metadata.version("dirlearn")
