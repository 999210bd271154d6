"""What the studies of FDS and RankSim vary: the arguments of :func:`train_features`."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import Any

# Which RankSim the other studies use: the strongest that costs no validation error.
CHOICES: dict[str, dict[str, Any]] = {
    "vanilla": {},
    **{
        f"RankSim {weight:g}, {interpolation:g}": {
            "ranksim": {"weight": weight, "interpolation": interpolation}
        }
        for interpolation in (0.3, 2.0)
        for weight in (64.0, 640.0, 6400.0)
    },
}

METHODS: dict[str, dict[str, Any]] = {
    "vanilla": {},
    "FDS": {"fds": {}},
    "RankSim": {"ranksim": {"weight": 640.0, "interpolation": 2.0}},
}

# Networks that memorise: few samples, no augmentation, long training.
MEMORISING: dict[str, dict[str, Any]] = {
    **METHODS,
    "FDS+RankSim": METHODS["FDS"] | METHODS["RankSim"],
    **{
        f"SQINV{'' if name == 'vanilla' else '+' + name}": method | {"power": 0.5}
        for name, method in METHODS.items()
    },
}

FDS_VARIANTS: dict[str, dict[str, Any]] = {
    "vanilla": {},
    "FDS": {"fds": {}},
    "two passes, eval": {"fds": {"second_pass": "eval"}},
    "two passes, train": {"fds": {"second_pass": "train"}},
    "lag": {"fds": {"layer": "lag"}},
    "lag and alias": {"fds": {"layer": "alias"}},
    "in place": {"fds": {"layer": "in place"}},
    "empty bins leak": {"fds": {"layer": "leak"}},
    "full covariance": {"fds": {"covariance": "full"}},
    "clip (0.5, 2)": {"fds": {"clip": [0.5, 2.0]}},
    "no clip": {"fds": {"clip": [None, None]}},
    "as released": {"fds": {"layer": "released", "second_pass": "released"}},
}

# Low and high level of each factor; what memorises less comes second, but for the last three.
FACTORS: dict[str, tuple[Any, Any]] = {
    "augment": (False, True),
    "scale": (0.1, 0.3),
    "steps": (250, 1250),
    "width": (64, 256),
    "last": ("relu", "batchnorm"),
    "power": (0.0, 0.5),
}


def half_fraction() -> list[dict[str, Any]]:
    """Half of the 64 combinations of :data:`FACTORS`: those with an even number of high levels.

    In this fraction no main effect is confounded with another one, nor with any interaction of
    fewer than five factors (Box and Hunter 1961).

    Examples
    --------
    >>> cells = half_fraction()
    >>> len(cells), cells[0]["scale"]
    (32, 0.1)
    """
    levels = (level for level in product((0, 1), repeat=len(FACTORS)) if sum(level) % 2 == 0)
    return [
        {name: FACTORS[name][high] for name, high in zip(FACTORS, level, strict=True)}
        for level in levels
    ]


def cell_name(method: str, cell: Mapping[str, Any]) -> str:
    """Name a method in a cell of the factorial study: a digit per factor, 1 for its high level.

    Examples
    --------
    >>> cell_name("FDS", half_fraction()[1])
    'FDS 000011'
    """
    digits = (str(FACTORS[name].index(level)) for name, level in cell.items())
    return f"{method} {''.join(digits)}"


FACTORIAL: dict[str, dict[str, Any]] = {
    cell_name(name, cell): method | cell
    for cell in half_fraction()
    for name, method in METHODS.items()
}

# The same cells with a tenth of the weight: what suits one cell need not suit the others.
WEAK: dict[str, dict[str, Any]] = {
    cell_name("RankSim/10", cell): {"ranksim": {"weight": 64.0, "interpolation": 2.0}} | cell
    for cell in half_fraction()
}

# One thing at a time is changed from the memorising setting, with the baseline that belongs to it.
SWEEP: dict[str, dict[str, Any]] = {
    "vanilla": {},
    "FDS, 5 bins of 1": {"fds": {}},
    "FDS, 9 bins of 1": {"fds": {"size": 9, "sigma": 2.0}},
    "FDS, 21 bins of 1": {"fds": {"size": 21, "sigma": 5.0}},
    "FDS, 5 bins of 5": {"fds": {"width": 5}},
    **{
        f"{name}, {last}": method | {"last": last}
        for last in ("linear", "layernorm")
        for name, method in METHODS.items()
    },
    **{
        f"{name}, batch {size}": METHODS[name] | {"batch_size": size, "steps": 64_000 // size}
        for size in (16, 256)
        for name in ("vanilla", "RankSim")
    },
    **{
        f"{name}, gaps": method | {"gaps": [[20, 30], [45, 50]]} for name, method in METHODS.items()
    },
}
