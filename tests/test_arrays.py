import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal

from dirlearn.arrays import check_finite, floating_like, like, look_up, paired, to_numpy

REFUSED = {
    "bool": [True, False],
    "strings": ["1", "2"],
    "complex": [1j],
    "objects": [object()],
    "none": None,
    "dates": np.array(["2021-07-18"], dtype="datetime64[D]"),
    "empty strings": np.array([], dtype=str),
    "bool tensor": torch.tensor([True]),
    "complex tensor": torch.tensor([1j]),
}


@pytest.mark.parametrize("values", REFUSED.values(), ids=REFUSED.keys())
def test_to_numpy_refuses_what_is_not_a_real_number(values):
    with pytest.raises(TypeError, match="labels must hold real numbers, got dtype"):
        to_numpy(values, "labels")


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int8", "uint8", "int64"])
def test_to_numpy_keeps_values_and_dtype(dtype, device):
    tensor = torch.tensor([[1, 2], [3, 4]], dtype=getattr(torch, dtype), device=device)
    array = to_numpy(tensor, "y")
    assert array.dtype == dtype
    assert_array_equal(array, [[1, 2], [3, 4]])
    assert to_numpy(np.ones(2, dtype), "y").dtype == dtype


def test_to_numpy_widens_bfloat16_without_changing_a_value(device):
    tensor = torch.tensor([0.7, 3.0, -1e30], dtype=torch.bfloat16, device=device)
    array = to_numpy(tensor, "y")
    assert array.dtype == np.float32
    assert array.tolist() == tensor.tolist()


def test_to_numpy_drops_the_gradient(device):
    tensor = torch.tensor([1.5, 2.5], device=device, requires_grad=True)
    assert to_numpy(tensor * 2, "y").tolist() == [3.0, 5.0]


def test_to_numpy_copies_nothing_it_need_not():
    array, tensor = np.zeros(3), torch.zeros(3)
    to_numpy(array, "y")[0] = 1
    to_numpy(tensor, "y")[0] = 1
    assert array[0] == 1
    assert tensor[0] == 1


def test_to_numpy_follows_strides():
    assert to_numpy(torch.arange(6).reshape(2, 3).T, "y").tolist() == [[0, 3], [1, 4], [2, 5]]
    assert to_numpy(np.arange(6)[::-2], "y").tolist() == [5, 3, 1]


@pytest.mark.parametrize("values", [[1.0, 2.0], (1.0, 2.0), range(1, 3)])
def test_to_numpy_takes_python_sequences(values):
    assert to_numpy(values, "y").tolist() == [1, 2]


@pytest.mark.parametrize("values", [[], (), [[]]])
def test_to_numpy_gives_an_empty_list_a_number_type(values):
    assert to_numpy(values, "y").dtype == np.float64


def test_like_follows_the_kind_and_device_of_the_reference(device):
    result = np.arange(6.0).reshape(2, 3).T
    assert like(result, [1, 2]) is result
    assert like(result, np.zeros(1)) is result
    tensor = like(result, torch.zeros(1, device=device))
    assert tensor.device.type == device.type
    assert tensor.dtype == torch.float64
    assert tensor.tolist() == result.tolist()


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        (np.zeros(1, np.float16), np.float16),
        (np.zeros(1, np.float32), np.float32),
        (np.zeros(1, np.int32), np.float64),
        (np.zeros(1, np.uint8), np.float64),
        ([1, 2], np.float64),
    ],
)
def test_floating_like_numpy(reference, expected):
    assert floating_like(np.array([0.5]), reference).dtype == expected


@pytest.mark.parametrize("default", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int64, torch.uint8]
)
def test_floating_like_torch(dtype, default, device):
    before = torch.get_default_dtype()
    torch.set_default_dtype(default)
    try:
        result = floating_like(np.array([0.5]), torch.zeros(1, dtype=dtype, device=device))
    finally:
        torch.set_default_dtype(before)
    assert result.dtype == (dtype if dtype.is_floating_point else default)
    assert result.device.type == device.type
    assert result.tolist() == [0.5]


@pytest.mark.parametrize(
    "dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int64]
)
def test_look_up_is_indexing_on_tensors(dtype, device):
    table = np.array([0.5, 2.0, 8.0])
    index = torch.tensor([[2, 0], [1, 1], [0, 2]], device=device)
    found = look_up(table, index, torch.zeros(1, dtype=dtype, device=device))
    assert found.dtype == (dtype if dtype.is_floating_point else torch.get_default_dtype())
    assert found.device.type == device.type
    assert found.tolist() == [[8, 0.5], [2, 2], [0.5, 8]]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int64])
def test_look_up_is_indexing_on_arrays(dtype):
    found = look_up(np.array([0.5, 2.0]), np.array([[1, 0]]), np.zeros(1, dtype))
    assert found.dtype == (dtype if dtype != np.int64 else np.float64)
    assert found.tolist() == [[2, 0.5]]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_check_finite_counts_what_is_wrong(bad, dtype):
    with pytest.raises(ValueError, match=r"y holds 2 values that are NaN or infinite, of 4"):
        check_finite(np.array([[bad, 0], [1, bad]], dtype), "y")


@pytest.mark.parametrize(
    "values", [np.array([]), np.array([1e300, -1e300]), np.arange(3), np.array([5e-324])]
)
def test_check_finite_passes_finite_values(values):
    assert check_finite(values, "y") is None


def test_masked_arrays_are_refused():
    with pytest.raises(TypeError, match="mask would be lost"):
        to_numpy(np.ma.array([1.0, 2.0], mask=[0, 1]), "y")


@pytest.mark.parametrize("half", [np.zeros(1, np.float16), torch.zeros(1, dtype=torch.float16)])
def test_a_value_beyond_a_narrow_type_is_refused(half):
    with pytest.raises(ValueError, match=r"1e\+05 is beyond the range of .*float16; pass a wider"):
        floating_like(np.array([1.0, 1e5]), half)
    assert np.isinf(np.asarray(floating_like(np.array([np.inf]), half))).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.int64])
def test_pairs_are_flat_and_in_double(dtype, device):
    pred = torch.tensor([[1, 2], [3, 4]], dtype=dtype, device=device)
    for array in paired(pred, pred.T):
        assert array.dtype == np.float64
        assert array.shape == (4,)
    assert paired(pred, pred.T)[1].tolist() == [1, 3, 2, 4]


def test_what_is_no_pair_is_refused():
    with pytest.raises(ValueError, match=r"pred has shape \(2,\), target has \(2, 1\)"):
        paired(np.ones(2), np.ones((2, 1)))
    with pytest.raises(ValueError, match="pred and target are empty"):
        paired([], [])
    with pytest.raises(ValueError, match="target holds 1 value that is NaN"):
        paired([1.0], [np.nan])
