"""NumPy in, NumPy out; tensor in, tensor out on the same device: the one place that converts."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Array = npt.NDArray[Any]
ArrayT = TypeVar("ArrayT", Array, Tensor)


def to_numpy(values: Any, name: str) -> Array:
    """View ``values`` as a NumPy array of real numbers, copying only where memory forbids a view.

    A gradient is dropped and a tensor on an accelerator is brought to the CPU. ``bfloat16``, which
    NumPy does not know, becomes ``float32``. ``name`` is what error messages call the argument.

    Examples
    --------
    >>> to_numpy(torch.tensor([1, 2]), "y")
    array([1, 2])
    >>> to_numpy(["a"], "y")
    Traceback (most recent call last):
    TypeError: y must hold real numbers, got dtype <U1
    """
    if isinstance(values, Tensor):
        values = values.detach().cpu()
        if values.dtype == torch.bfloat16:
            values = values.float()
    if isinstance(values, np.ma.MaskedArray):
        raise TypeError(f"{name} is a masked array, whose mask would be lost; call .compressed()")
    array = np.asarray(values)
    if array.size == 0 and not hasattr(values, "dtype"):  # an empty list has no type to refuse
        return array.astype(np.float64)
    if array.dtype.kind not in "iuf":
        raise TypeError(f"{name} must hold real numbers, got dtype {array.dtype}")
    return array


def like(result: Array, reference: ArrayT) -> ArrayT:
    """Give ``result`` the kind of array that ``reference`` is: a tensor on its device, or itself.

    Examples
    --------
    >>> like(np.array([1.0, 2.0]), torch.zeros(2))
    tensor([1., 2.], dtype=torch.float64)
    """
    if isinstance(reference, Tensor):
        return torch.from_numpy(np.ascontiguousarray(result)).to(reference.device)
    return result


def floating_like(result: Array, reference: ArrayT) -> ArrayT:
    """As :func:`like`, in the floating dtype of ``reference``, or the default one for integers.

    Examples
    --------
    >>> floating_like(np.array([0.5]), torch.tensor([1, 2])).dtype
    torch.float32
    >>> floating_like(np.array([0.5]), np.zeros(1, np.float16)).dtype
    dtype('float16')
    """
    with np.errstate(over="ignore"):  # said better below
        if isinstance(reference, Tensor):
            floating = reference.is_floating_point()
            dtype = reference.dtype if floating else torch.get_default_dtype()
            cast = torch.from_numpy(np.ascontiguousarray(result)).to(dtype)
            _check_range(result, cast.double().numpy(), dtype)
            return cast.to(reference.device)
        kind = np.asarray(reference).dtype
        array = result.astype(kind if kind.kind == "f" else np.float64, copy=False)
        _check_range(result, array, array.dtype)
        return array


def _check_range(before: Array, after: Array, dtype: Any) -> None:
    if (np.isfinite(before) & ~np.isfinite(after)).any():
        raise ValueError(
            f"{np.abs(before[np.isfinite(before)]).max():.3g} is beyond the range of {dtype}; "
            "pass a wider type, such as float32"
        )


def look_up(table: Array, index: ArrayT, reference: ArrayT) -> ArrayT:
    """``table[index]``, in the floating dtype of ``reference``, on its device.

    Examples
    --------
    >>> look_up(np.array([0.5, 2.0]), np.array([1, 0, 1]), np.zeros(3))
    array([2. , 0.5, 2. ])
    """
    entries = floating_like(table, reference)
    if isinstance(index, Tensor):
        if index.device.type != "cpu" or reference.dtype == torch.bfloat16:
            return entries[index]
    # On a CPU, NumPy gathers from a small table three times faster than torch does.
    return like(np.asarray(entries).take(np.asarray(index)), reference)


def check_finite(values: Array, name: str) -> None:
    """Refuse NaN and infinity, saying how many there are.

    Examples
    --------
    >>> check_finite(np.array([1.0, np.nan]), "y")
    Traceback (most recent call last):
    ValueError: y holds 1 value that is NaN or infinite, of 2; drop or impute it first
    """
    bad = values.size - int(np.isfinite(values).sum())
    if bad:
        are, them = ("values that are", "them") if bad > 1 else ("value that is", "it")
        raise ValueError(
            f"{name} holds {bad} {are} NaN or infinite, of {values.size}; "
            f"drop or impute {them} first"
        )


def paired(pred: Any, target: Any) -> tuple[Array, Array]:
    """Predictions and targets that belong together: flat, finite, in ``float64``.

    Examples
    --------
    >>> paired([[1], [2]], torch.zeros(2, 1))
    (array([1., 2.]), array([0., 0.]))
    >>> paired([1.0, 2.0], [[1.0], [2.0]])
    Traceback (most recent call last):
    ValueError: pred has shape (2,), target has (2, 1); give both one shape ...
    """
    prediction, label = to_numpy(pred, "pred"), to_numpy(target, "target")
    if prediction.shape != label.shape:
        raise ValueError(
            f"pred has shape {prediction.shape}, target has {label.shape}; give both one shape "
            "(squeeze a trailing 1), for broadcasting would pair every prediction with every target"
        )
    if prediction.size == 0:
        raise ValueError("there are no predictions to measure: pred and target are empty")
    check_finite(prediction, "pred")
    check_finite(label, "target")
    return prediction.astype(np.float64).reshape(-1), label.astype(np.float64).reshape(-1)
