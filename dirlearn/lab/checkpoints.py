"""The state of a training on disk, so that what was interrupted goes on as if it had not been."""

from __future__ import annotations

import os
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch


@dataclass(frozen=True)
class Checkpoint:
    """A file that holds all of a training that its next epoch depends on.

    Parameters
    ----------
    path : Path
    plan : dict of numbers
        What the training is to be; another plan refuses the file.
    stateful : dict
        Model, optimizer and schedule: whatever has ``state_dict`` and ``load_state_dict``.
    generators : sequence of Generator or None
        Besides torch's own, which dropout draws from.

    Examples
    --------
    >>> import tempfile
    >>> model, generator = torch.nn.Linear(2, 1), torch.Generator()
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     saved = Checkpoint(Path(folder) / "a.pt", {"seed": 0}, {"model": model}, [generator])
    ...     print(saved.load())
    ...     saved.save(epoch=3)
    ...     print(saved.load())
    None
    {'epoch': 3}
    """

    path: Path
    plan: Mapping[str, int]
    stateful: Mapping[str, Any]
    generators: Sequence[torch.Generator | None]

    def save(self, **said: Any) -> None:
        """Write the state, and what is said besides; an interruption leaves the former file."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        fresh = self.path.with_name(f"{self.path.name}.{os.getpid()}.part")
        torch.save(
            {
                "plan": dict(self.plan),
                "state": {name: part.state_dict() for name, part in self.stateful.items()},
                "generators": [g.get_state() if g else None for g in self.generators],
                "rng": torch.get_rng_state(),
                "accelerator": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
                "said": said,
            },
            fresh,
        )
        fresh.replace(self.path)

    def load(self) -> dict[str, Any] | None:
        """Restore the state and give back what was said; ``None`` if there is no file yet.

        Raises
        ------
        ValueError
            If the file is damaged, or of another training.
        """
        if not self.path.exists():
            return None
        try:
            held = torch.load(self.path, map_location="cpu", weights_only=True)
        except (RuntimeError, EOFError, pickle.UnpicklingError, LookupError, ValueError) as error:
            raise ValueError(
                f"{self.path} is damaged ({error}); delete it to start again"
            ) from error
        if not isinstance(held, dict) or not {"plan", "state", "generators", "said"} <= held.keys():
            raise ValueError(f"{self.path} is no checkpoint of a training; give another path")
        if held["plan"] != dict(self.plan):
            raise ValueError(
                f"{self.path} is of another training: {held['plan']}, this one is "
                f"{dict(self.plan)}; give another path, or delete it to start again"
            )
        drawn = [generator is not None for generator in self.generators]
        if drawn != [state is not None for state in held["generators"]]:
            raise ValueError(
                f"{self.path} is of a training with another sampler; give another path, or delete "
                "it to start again"
            )
        try:
            for name, part in self.stateful.items():
                part.load_state_dict(held["state"][name])
        except (RuntimeError, ValueError) as error:  # what torch says of another model, optimizer
            raise ValueError(
                f"{self.path} is of another model or optimizer ({error}); give another path, or "
                "delete it to start again"
            ) from error
        for generator, state in zip(self.generators, held["generators"], strict=True):
            if generator is not None:
                generator.set_state(state)
        torch.set_rng_state(held["rng"])
        if held["accelerator"] and torch.cuda.is_available():
            torch.cuda.set_rng_state_all(held["accelerator"])
        return dict(held["said"])
