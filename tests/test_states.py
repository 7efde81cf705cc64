"""Tests of reading, measuring, comparing and loading states."""

from __future__ import annotations

import math
import pickle
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import pytest
import safetensors.torch
import torch
from helpers import random_state
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from mli_check import states
from mli_check.errors import OptionError, StateMismatchError

if TYPE_CHECKING:
    from pathlib import Path

NORMALISED = {
    "weight": torch.tensor([[3.0, -1.0], [0.0, 2.0]]),
    "bias": torch.tensor([4.0, -2.0]),
    "running_mean": torch.tensor([100.0, 100.0]),
    "running_var": torch.tensor([100.0, 100.0]),
    "num_batches_tracked": torch.tensor(7),
}


class WithBuffer(nn.Module):
    """A linear layer beside a floating-point buffer that is no running statistic."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 1)
        self.register_buffer("mask", torch.full((3,), 50.0))


class Tied(nn.Module):
    """Two layers that share one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.encode = nn.Linear(3, 3, bias=False)
        self.decode = nn.Linear(3, 3, bias=False)
        self.decode.weight = self.encode.weight


class Malicious:
    """Pickles to an instruction that makes a file when it is unpickled."""

    def __init__(self, made: Path) -> None:
        self.made = made

    def __reduce__(self) -> tuple[Any, ...]:
        return exec, (f"import pathlib; pathlib.Path({str(self.made)!r}).touch()",)


def plain() -> dict[str, Tensor]:
    return {"weight": torch.arange(6.0).reshape(2, 3), "bias": torch.tensor([1.0, -1.0])}


def assert_same(got: states.State, wanted: states.State) -> None:
    assert list(got) == list(wanted)
    for name in wanted:
        assert got[name].dtype == wanted[name].dtype
        assert torch.equal(got[name], wanted[name])


# Parameters and buffers


def test_running_statistics_and_integers_are_buffers() -> None:
    assert list(states.parameters(NORMALISED)) == ["weight", "bias"]
    assert list(states.buffers(NORMALISED)) == ["running_mean", "running_var", "num_batches_tracked"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [("bn.running_mean", True), ("running_var", True), ("a.b.num_batches_tracked", True), ("a.weight", False),
     ("running_mean.weight", False), ("my_running_mean", False)],
)  # fmt: skip
def test_a_running_statistic_is_known_by_the_last_part_of_its_name(name: str, expected: bool) -> None:
    assert states.is_running_statistic(name) is expected


def test_a_model_tells_its_parameters_from_its_other_floating_buffers() -> None:
    model = WithBuffer()
    state = model.state_dict()
    assert set(states.parameters(state)) == {"mask", "layer.weight", "layer.bias"}
    assert set(states.parameters(state, model)) == {"layer.weight", "layer.bias"}
    assert set(states.buffers(state, model)) == {"mask"}


def test_both_names_of_a_tied_weight_are_parameters() -> None:
    model = Tied()
    assert set(states.parameters(model.state_dict(), model)) == {"encode.weight", "decode.weight"}


# Size, delta, distance


def test_size_is_the_mean_absolute_parameter_without_running_statistics() -> None:
    assert states.size(NORMALISED) == (3 + 1 + 0 + 2 + 4 + 2) / 6


def test_size_with_a_model_leaves_out_its_buffers() -> None:
    model = WithBuffer()
    state = model.state_dict() | {"layer.weight": torch.tensor([[1.0, -3.0]]), "layer.bias": torch.tensor([2.0])}
    assert states.size(state, model) == 2
    assert states.size(state) == (1 + 3 + 2 + 3 * 50) / 6


def test_size_sums_in_double_precision() -> None:
    assert states.size({"weight": torch.full((100_000,), 0.1)}) == pytest.approx(float(torch.tensor(0.1)), rel=1e-12)
    assert states.size({"weight": torch.full((70_000,), 2.0, dtype=torch.float16)}) == 2  # the sum overflows float16


def test_a_state_without_parameters_has_no_size() -> None:
    with pytest.raises(OptionError, match="has no size"):
        states.size({"running_mean": torch.ones(2), "count": torch.tensor(1)})


def test_delta_is_the_ratio_of_sizes() -> None:
    init = plain()
    assert states.delta({name: 3 * tensor for name, tensor in init.items()}, init) == pytest.approx(3)
    assert states.delta(states.zeros_like(init), init) == 0


def test_delta_with_a_model_leaves_out_its_buffers() -> None:
    model = WithBuffer()
    final = model.state_dict()
    init = {name: tensor if name == "mask" else 2 * tensor for name, tensor in final.items()}
    assert states.delta(init, final, model) == pytest.approx(2)
    assert states.delta(init, final) < 1.5


def test_delta_needs_a_final_state_that_is_not_zero() -> None:
    with pytest.raises(OptionError, match="not all zero"):
        states.delta(plain(), states.zeros_like(plain()))


def test_distance_is_euclidean_without_running_statistics() -> None:
    moved = {name: tensor + 1 for name, tensor in NORMALISED.items()}
    assert states.distance(NORMALISED, moved) == pytest.approx(math.sqrt(6))


def test_distance_with_a_model_leaves_out_its_buffers() -> None:
    model = WithBuffer()
    first = model.state_dict()
    second = {name: tensor + 2 for name, tensor in first.items()}
    assert states.distance(first, second, model) == pytest.approx(math.sqrt(3 * 4), rel=1e-6)
    assert states.distance(first, second) == pytest.approx(math.sqrt(6 * 4), rel=1e-6)


@given(first=st.integers(0, 2**32), second=st.integers(0, 2**32), factor=st.floats(0.0625, 16))
def test_distance_is_symmetric_homogeneous_and_zero_to_itself(first: int, second: int, factor: float) -> None:
    model = nn.Linear(3, 2)
    one, other = random_state(model, first), random_state(model, second)
    between = states.distance(one, other)
    assert between == states.distance(other, one)
    assert states.distance(one, one) == 0
    scaled = [{name: factor * tensor.double() for name, tensor in state.items()} for state in (one, other)]
    assert states.distance(*scaled) == pytest.approx(factor * between)


def test_tensors_that_require_gradients_can_be_measured() -> None:
    state = dict(nn.Linear(3, 2).named_parameters())
    assert states.size(state) > 0
    assert states.delta(state, state) == 1
    assert states.distance(state, state) == 0
    assert states.digest(state) == states.digest(states.clone(state))


# Digest


def test_a_digest_does_not_depend_on_order_contiguity_or_gradients() -> None:
    state = plain()
    turned = {
        "bias": nn.Parameter(state["bias"].clone()),
        "weight": state["weight"].t().contiguous().t(),
    }
    assert not turned["weight"].is_contiguous()
    assert states.digest(turned) == states.digest(state)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_digest_does_not_depend_on_the_device() -> None:
    assert states.digest({name: tensor.cuda() for name, tensor in plain().items()}) == states.digest(plain())


WEIGHT = torch.arange(6.0)
TELLING = {
    "the name": ({"weight": WEIGHT}, {"other": WEIGHT}),
    "which name has which tensor": ({"a": WEIGHT, "b": -WEIGHT}, {"a": -WEIGHT, "b": WEIGHT}),
    "the dtype of the same bytes": ({"weight": WEIGHT}, {"weight": WEIGHT.view(torch.int32)}),
    "the dtype of the same values": ({"weight": WEIGHT}, {"weight": WEIGHT.double()}),
    "the shape": ({"weight": WEIGHT}, {"weight": WEIGHT.reshape(2, 3)}),
    "an empty tensor": ({"weight": WEIGHT}, {"weight": WEIGHT, "none": torch.zeros(0)}),
    "the sign of a zero": ({"weight": torch.tensor(0.0)}, {"weight": torch.tensor(-0.0)}),
}


@pytest.mark.parametrize(("first", "second"), TELLING.values(), ids=TELLING.keys())
def test_a_digest_depends_on(first: states.State, second: states.State) -> None:
    assert states.digest(first) != states.digest(second)


@given(element=st.integers(0, 5), bit=st.integers(0, 31))
def test_one_flipped_bit_changes_the_digest(element: int, bit: int) -> None:
    flipped = plain()
    flipped["weight"].view(torch.int32).view(-1)[element] ^= 1 << bit if bit < 31 else -(1 << 31)
    assert states.digest(flipped) != states.digest(plain())


@pytest.mark.parametrize(
    "tensor",
    [torch.tensor(3), torch.tensor([True, False]), torch.ones(2, dtype=torch.bfloat16), torch.zeros(0, 3)],
    ids=["scalar", "bool", "bfloat16", "empty"],
)
def test_every_kind_of_tensor_has_a_digest(tensor: Tensor) -> None:
    assert len(states.digest({"t": tensor})) == 64


# Differences


def test_all_differences_are_listed() -> None:
    first = {"a": torch.ones(2), "b": torch.ones(2, 3), "c": torch.ones(1), "d": torch.ones(4), "same": torch.ones(1)}
    second = {
        "b": torch.ones(3, 2), "c": torch.ones(1).long(), "d": torch.ones(5).long(), "e": torch.ones(1),
        "same": torch.ones(1).double(),
    }  # fmt: skip
    assert states.differences(first, second, "init", "final") == [
        "`a` is in init, not in final",
        "`e` is in final, not in init",
        "`b` has shape (2, 3) in init, (3, 2) in final",
        "`c` is torch.float32 in init, torch.int64 in final",
        "`d` has shape (4,) in init, (5,) in final",
        "`d` is torch.float32 in init, torch.int64 in final",
    ]
    with pytest.raises(StateMismatchError, match=r"6 difference\(s\)") as raised:
        states.check_same(first, second, "init", "final")
    for line in states.differences(first, second, "init", "final"):
        assert line in str(raised.value)


@pytest.mark.parametrize("measure", [states.delta, states.distance])
def test_states_that_do_not_fit_are_not_measured(measure: Any) -> None:
    with pytest.raises(StateMismatchError, match="`bias` is in"):
        measure(plain(), {"weight": torch.ones(2, 3)})


def test_a_state_is_held_against_a_model() -> None:
    model = nn.Linear(3, 2)
    states.check_fits(model, plain(), "final.pt")
    with pytest.raises(StateMismatchError, match=r"`weight` has shape \(2, 3\) in final\.pt, \(2, 4\) in the model"):
        states.check_fits(nn.Linear(4, 2), plain(), "final.pt")


# Copies


def test_a_clone_is_detached_and_independent() -> None:
    original = dict(nn.Linear(3, 2).named_parameters())
    copy = states.clone(original)
    assert not any(tensor.requires_grad for tensor in copy.values())
    copy["weight"].zero_()
    assert original["weight"].abs().sum() > 0


def test_zeros_take_the_shapes_and_dtypes_of_all_or_of_some_tensors() -> None:
    assert_same(states.zeros_like(plain()), {"weight": torch.zeros(2, 3), "bias": torch.zeros(2)})
    assert_same(states.zeros_like(plain(), ["bias"]), {"bias": torch.zeros(2)})


# Files


def save(state: Any, path: Path) -> None:
    if path.suffix == ".safetensors":
        safetensors.torch.save_file(state, path)
    else:
        torch.save(state, path)


@pytest.mark.parametrize("name", ["final.safetensors", "final.pt", "final.pth"])
def test_a_saved_state_loads_as_it_was(tmp_path: Path, name: str) -> None:
    state = {"half": torch.ones(2, dtype=torch.bfloat16), "count": torch.tensor(3), "weight": torch.randn(2, 3)}
    save(state, tmp_path / name)
    loaded = states.load_state(str(tmp_path / name))
    assert_same({name: loaded[name] for name in state}, state)
    assert len(loaded) == len(state)


def test_the_format_before_zip_files_loads(tmp_path: Path) -> None:
    torch.save(plain(), tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    assert_same(states.load_state(tmp_path / "old.pt"), plain())


@pytest.mark.parametrize("key", ["state_dict", "model_state_dict", "model"])
def test_a_wrapped_checkpoint_is_unwrapped(tmp_path: Path, key: str) -> None:
    checkpoint = {"epoch": 3, key: OrderedDict(plain()), "optimizer": {"state": {}, "param_groups": [{"lr": 0.1}]}}
    torch.save(checkpoint, tmp_path / "last.pt")
    assert_same(states.load_state(tmp_path / "last.pt"), plain())


@pytest.mark.parametrize("key", ["state_dict", "model"])
def test_a_tensor_with_the_name_of_a_wrapper_is_a_tensor(tmp_path: Path, key: str) -> None:
    torch.save({key: torch.ones(2)}, tmp_path / "final.pt")
    assert_same(states.load_state(tmp_path / "final.pt"), {key: torch.ones(2)})


@pytest.mark.parametrize(
    "writer", [torch.save, lambda content, path: path.write_bytes(pickle.dumps(content, protocol=2))],
    ids=["torch.save", "pickle"],
)  # fmt: skip
@pytest.mark.parametrize("wrap", [lambda evil: evil, lambda evil: plain() | {"evil": evil}], ids=["bare", "in a state"])
def test_code_in_a_pickle_is_not_run(tmp_path: Path, writer: Any, wrap: Any) -> None:
    made, file = tmp_path / "made", tmp_path / "final.pt"
    writer(wrap(Malicious(made)), file)
    with pytest.raises(OptionError, match=r"save `model\.state_dict\(\)` alone"):
        states.load_state(file)
    assert not made.exists()


def test_the_malicious_pickle_would_have_run(tmp_path: Path) -> None:
    made = tmp_path / "made"
    torch.save({"evil": Malicious(made)}, tmp_path / "final.pt")
    torch.load(tmp_path / "final.pt", weights_only=False)
    assert made.exists()


def test_a_whole_pickled_model_is_refused(tmp_path: Path) -> None:
    torch.save(nn.Linear(3, 2), tmp_path / "model.pt")
    with pytest.raises(OptionError, match="holds more than tensors"):
        states.load_state(tmp_path / "model.pt")


@pytest.fixture(scope="module")
def whole_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("whole")
    save(plain(), folder / "a.safetensors")
    save(plain(), folder / "zip.pt")
    torch.save(plain(), folder / "old.pt", _use_new_zipfile_serialization=False)
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.mark.parametrize("name", ["a.safetensors", "zip.pt", "old.pt"])
@given(data=st.data())
def test_a_truncated_file_is_refused(
    name: str, data: st.DataObject, whole_files: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory
) -> None:
    whole = whole_files[name]
    file = tmp_path_factory.getbasetemp() / f"truncated-{name}"
    file.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    with pytest.raises(OptionError, match=r"cannot read|is damaged"):
        states.load_state(file)


@pytest.mark.parametrize("name", ["a.safetensors", "zip.pt", "old.pt"])
@given(data=st.data())
def test_a_damaged_file_is_loaded_or_refused_but_raises_nothing_else(
    name: str, data: st.DataObject, whole_files: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory
) -> None:
    content = bytearray(whole_files[name])
    content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    file = tmp_path_factory.getbasetemp() / f"damaged-{name}"
    file.write_bytes(content)
    try:
        loaded = states.load_state(file)
    except OptionError:
        return
    assert all(isinstance(tensor, Tensor) for tensor in loaded.values())


@pytest.mark.parametrize("name", ["none.pt", "none.safetensors", "."])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(OptionError, match=r"no such file: .*; pass a \.safetensors or \.pt file"):
        states.load_state(tmp_path / name)


@pytest.mark.parametrize(
    "content",
    [torch.ones(2), [torch.ones(2)], {"weight": 1.0}, {"weight": torch.ones(2), "step": 3}, {0: torch.ones(2)},
     {"state_dict": {"weight": [1.0]}}, {"state": {}, "param_groups": []}],
    ids=["a tensor", "a list", "a number", "a number beside", "a nameless tensor", "wrapped numbers", "an optimiser"],
)  # fmt: skip
def test_what_is_no_state_is_refused(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "final.pt")
    with pytest.raises(OptionError, match="expected a state_dict"):
        states.load_state(tmp_path / "final.pt")


def test_the_bytes_of_a_state_load_as_it_was() -> None:
    state = plain() | {"turned": torch.arange(6.0).reshape(2, 3).t(), "count": torch.tensor(2)}
    loaded = safetensors.torch.load(states.to_bytes(state))
    assert states.digest(loaded) == states.digest(state)


def test_tied_tensors_are_written_once_a_name() -> None:
    state = Tied().state_dict()
    assert state["encode.weight"].data_ptr() == state["decode.weight"].data_ptr()
    loaded = safetensors.torch.load(states.to_bytes(state))
    assert states.digest(loaded) == states.digest(state)


def test_the_same_state_has_the_same_bytes() -> None:
    assert states.to_bytes(plain()) == states.to_bytes(dict(reversed(plain().items())))
