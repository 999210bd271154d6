"""Regressor re-training: an encoder that stays as it is, and a head that starts again."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from copy import deepcopy
from typing import Any, TypeVar

import torch
from torch import nn

ModuleT = TypeVar("ModuleT", bound=nn.Module)


class Frozen(nn.Module):
    """A module that no training changes, for the second stage of regressor re-training (RRT).

    Yang et al. (2021, section 4) follow Kang et al. (2020): train encoder and regressor as usual,
    then freeze the encoder and train the regressor again, with weights. With a model that has an
    ``encoder`` and a ``head``::

        model.encoder = Frozen(model.encoder)
        reinitialise(model.head, seed=0)

    Frozen means three things. The parameters need no gradient. Batch normalisation and dropout stay
    in evaluation mode, whatever ``train()`` is called with, so that the features of an input do not
    depend on its batch and the running statistics do not move. And no graph is built, so that no
    gradient reaches what lies before the module either.

    Parameters
    ----------
    module : Module
        Frozen in place, not copied, and kept as the attribute ``module``. To undo it, take
        ``frozen.module.requires_grad_().train()``.

    Raises
    ------
    TypeError
        If ``module`` is not a module.

    Notes
    -----
    Attributes of the module, such as ``num_features``, are those of the wrapper too. Keys of the
    state dict begin with ``module.``

    The released code (agedb-dir/train.py, lines 157-159 and 244) takes away the gradients alone:
    its batch normalisation uses the statistics of each batch, and its running statistics go on
    moving. ``encoder.requires_grad_(False)`` does the same.

    Batch normalisation with ``track_running_stats=False`` has nothing else to use than its batch,
    frozen or not.

    Examples
    --------
    >>> encoder = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout())
    >>> model = nn.Sequential(Frozen(encoder), nn.Linear(4, 1)).train()
    >>> encoder[1].training
    False
    >>> [name for name, p in model.named_parameters() if p.requires_grad]
    ['1.weight', '1.bias']

    Used in the chapter *Re-weighting and re-sampling*.
    """

    module: nn.Module

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        _check_module(module)
        self.module = module.requires_grad_(False)
        self.module.zero_grad(set_to_none=True)  # an older optimizer would still take a step
        self.eval()

    def train(self, mode: bool = True) -> Frozen:  # noqa: ARG002  # the caller's wish is not granted
        """Stay in evaluation mode."""
        return super().train(False)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Give what the module gives, without a graph."""
        if self.module.training:  # someone who holds the module itself has called its train()
            self.module.eval()
        with torch.no_grad():  # not inference_mode: a head could not keep its tensors for backward
            return self.module(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name.startswith("__"):  # or copy and pickle would copy and pickle the inner module
                raise
            return getattr(super().__getattr__("module"), name)


def reinitialise(module: ModuleT, seed: int) -> ModuleT:
    """Draw all parameters of ``module`` anew, in place, as its layers do when they are made.

    Each layer's ``reset_parameters`` is called, a module's after those of its parts. The draws are
    made on the CPU, so that one seed gives the same parameters on every device, and leave torch's
    own random state alone.

    Parameters
    ----------
    module : Module
        A layer, or a module of layers, such as the head of a regressor.
    seed : int
        Of the draws.

    Returns
    -------
    Module
        The same ``module``, with the same parameter objects: an optimizer still holds them.

    Raises
    ------
    TypeError
        If ``module`` is not a module, or ``seed`` not a whole number.
    ValueError
        If ``module`` has nothing to draw, or a part of it holds parameters or buffers but has no
        ``reset_parameters``, or one that leaves a parameter as it is. Nothing is changed then.

    Examples
    --------
    >>> head = nn.Linear(64, 1)
    >>> first = reinitialise(head, seed=0).weight.clone()
    >>> bool((reinitialise(head, seed=0).weight == first).all())
    True

    Used in the chapter *Re-weighting and re-sampling*.
    """
    _check_module(module)
    seed = operator.index(seed)
    found = False
    for name, part in module.named_modules():
        if isinstance(part, Frozen):
            raise ValueError(
                f"{name or 'the module'} is Frozen, so that nothing changes it; give the head alone"
            )
        if any(map(nn.parameter.is_lazy, part.parameters(recurse=False))):
            raise ValueError(
                f"{name or 'the module'} ({type(part).__name__}) has no shapes yet; give it a "
                "batch first"
            )
        if _can_draw(part):
            found = True
        elif [*part.parameters(recurse=False), *part.buffers(recurse=False)]:
            raise ValueError(
                f"{name or 'the module'} ({type(part).__name__}) holds parameters or buffers but "
                "has no reset_parameters() to draw them anew; give it one, or make a new module"
            )
    if not found:
        raise ValueError(f"{type(module).__name__} has no layer whose parameters could be drawn")
    try:
        fresh = deepcopy(module).cpu()
    except RuntimeError as error:  # a weight that a hook computes, or that has no data
        raise ValueError(
            f"{type(module).__name__} cannot be copied, which drawing it anew needs; remove "
            "weight_norm or pruning from it first, or make a new module"
        ) from error
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.default_generator.manual_seed(seed)
        for parameter in fresh.parameters():
            if parameter.is_floating_point():
                parameter.fill_(torch.nan)
        # What a module draws for its parts, such as zeros for its last layer, is the last word.
        for part in dict.fromkeys(_inside_out(fresh)):
            if _can_draw(part):
                part.reset_parameters()
    for name, parameter in fresh.named_parameters():
        if parameter.isnan().any():
            raise ValueError(
                f"{name} is not drawn anew by reset_parameters(), as under spectral_norm or "
                "weight_norm, whose layers draw a weight that is computed; make a new module"
            )
    module.load_state_dict(fresh.state_dict())
    return module


def _can_draw(part: nn.Module) -> bool:
    return callable(getattr(part, "reset_parameters", None))


def _inside_out(module: nn.Module) -> Iterator[Any]:
    for child in module.children():
        yield from _inside_out(child)
    yield module


def _check_module(module: Any) -> None:
    if not isinstance(module, nn.Module):
        raise TypeError(f"module must be a torch.nn.Module, got {type(module).__name__}")
