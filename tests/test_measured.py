"""Tests of curves that are kept: what comes back is what went in, and what does not fit is measured again."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from helpers import images, random_state
from torch import nn

from mli_check import locations, measured
from mli_check.curves import Surface
from mli_check.errors import DamagedRunWarning
from mli_check.evaluation.front import evaluate
from mli_check.measured import Measured, digest, from_bytes, to_bytes
from mli_check.paths import LinearPath, Plane, ScaledPath
from mli_check.runs import Store
from mli_check.subjects import find
from mli_check.workbench import Workbench

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from mli_check.curves import Curve


def curve(kind: str = "classes") -> Curve:
    """A curve with ties at alpha = 0, of each kind that a curve can be."""
    model, data = nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.BatchNorm1d(10)), images(37)
    options: dict[str, Any] = {"calibration": images(20, seed=1)}
    if kind == "regression":
        data = dataclasses.replace(data, targets=torch.zeros(37, 10))
        options |= {"loss": "squared_error"}
    if kind == "logits":
        options |= {"keep": "logits", "calibration_subset": 10}
    return evaluate(model, ScaledPath(random_state(model, 0)), data, 5, **options)


def same(first: Curve, second: Curve) -> bool:
    assert (first.record, first.checkpoint) == (second.record, second.checkpoint)
    for name in measured.ARRAYS:
        one, other = getattr(first, name), getattr(second, name)
        assert (one is None) == (other is None), name
        if one is not None:
            assert (one.dtype, one.shape) == (other.dtype, other.shape)
            assert np.array_equal(one, other, equal_nan=one.dtype.kind == "f"), name
    if first.outcomes is not None:
        assert np.array_equal(first.outcomes.errors(), second.outcomes.errors())
        assert sorted(first.outcomes.ties) == sorted(second.outcomes.ties)
    return True


@pytest.mark.parametrize("kind", ["classes", "regression"])
def test_a_surface_comes_back_bit_for_bit(kind: str) -> None:
    model, data = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), images(37)
    options: dict[str, Any] = {"betas": [-1.0, 0.0, 0.5]}
    if kind == "regression":
        data = dataclasses.replace(data, targets=torch.zeros(37, 10))
        options |= {"loss": "squared_error"}
    wanted = evaluate(model, Plane(random_state(model, 0), random_state(model, 1)), data, 5, **options)
    found = from_bytes(to_bytes(wanted))
    assert isinstance(found, Surface)
    assert found.record == wanted.record
    for name in measured.SURFACE:
        one, other = getattr(wanted, name), getattr(found, name)
        assert (one is None) == (other is None) == (kind == "regression" and "error" in name), name
        assert one is None or np.array_equal(one, other)


@pytest.mark.parametrize("kind", ["classes", "regression", "logits"])
def test_a_curve_comes_back_bit_for_bit(kind: str) -> None:
    wanted = curve(kind)
    assert same(wanted, from_bytes(to_bytes(wanted)))
    if kind != "regression":
        assert wanted.outcomes.ties, "the case should have ties"


def one_of(kept: Measured, key: dict[str, Any], measure: Callable[[], Curve] = curve) -> Curve:
    """The curve of one key."""
    (found,) = kept.curves([key], lambda places: [measure() for _ in places])
    return found


def test_curves_are_measured_once_and_only_the_missing_ones(tmp_path: Path) -> None:
    calls = []

    def measure(places: list[int]) -> list[Curve]:
        calls.append(places)
        return [dataclasses.replace(curve(), loss=np.full(5, float(place))) for place in places]

    kept = Measured(tmp_path)
    kept.curves([{"a": 1}], measure)
    found = kept.curves([{"a": 2}, {"a": 1}, {"a": 3}], measure)
    assert [float(one.loss[0]) for one in found] == [0, 0, 2]
    again = Measured(tmp_path).curves([{"a": 2}, {"a": 1}, {"a": 3}], measure)
    assert calls == [[0], [0, 2]]
    assert all(same(one, other) for one, other in zip(found, again, strict=True))
    assert kept.curves([], measure) == []
    assert len(calls) == 2
    assert not list(tmp_path.rglob("*.part"))


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "text", "folder"])
def test_a_damaged_curve_is_measured_again_with_a_warning(damage: str, tmp_path: Path) -> None:
    kept = Measured(tmp_path)
    wanted = one_of(kept, {})
    (file,) = kept.folder.glob("*.npz")
    content = file.read_bytes()
    middle = content.index(wanted.loss.tobytes())  # within an array
    changed = {
        "cut": content[: len(content) // 2],
        "flipped": content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :],
        "empty": b"",
        "text": b"not a curve",
    }
    if damage == "folder":
        file.unlink()
        file.mkdir()
    else:
        file.write_bytes(changed[damage])
    with pytest.warns(DamagedRunWarning, match="is damaged .* and is measured again"):
        assert np.array_equal(one_of(kept, {}).loss, wanted.loss)
    if damage != "folder":
        assert same(wanted, dataclasses.replace(one_of(kept, {}, pytest.fail), record=wanted.record))


def test_a_store_that_cannot_be_written_costs_no_figure(tmp_path: Path) -> None:
    (tmp_path / "curves").write_text("in the way")
    assert len(one_of(Measured(tmp_path), {}).loss) == 5


def test_curves_of_other_code_are_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one_of(Measured(tmp_path), {})
    monkeypatch.setattr(measured, "code_fingerprint", lambda: "other")
    kept = Measured(tmp_path)
    assert one_of(kept, {}) is not None
    assert [folder.name for folder in (tmp_path / "curves").iterdir()] == ["other"]


def test_pruning_drops_curves_of_other_code_and_where_asked_all(tmp_path: Path) -> None:
    one_of(Measured(tmp_path), {})
    other = tmp_path / "curves" / "other"
    other.mkdir()
    assert Store(tmp_path).prune() == [other]
    assert Store(tmp_path).prune(everything=True) == [Measured(tmp_path).folder]
    assert not list((tmp_path / "curves").iterdir())


def test_the_fingerprint_is_of_every_module_but_the_claims() -> None:
    assert len(locations.code_fingerprint()) == 64
    assert locations.code_fingerprint() == locations.code_fingerprint.__wrapped__()


def test_keys_tell_threads_apart() -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = digest({"a": 1})
        torch.set_num_threads(2)
        assert digest({"a": 1}) != one
    finally:
        torch.set_num_threads(before)


def test_a_bench_keeps_its_curves_and_tells_paths_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    subject = dataclasses.replace(find("lenet-bn-digits"), networks=1, test_examples=50, points=3)
    short = dataclasses.replace(subject.setting.recipe, epochs=1, milestones=(), checkpoints=())
    subject = dataclasses.replace(subject, setting=dataclasses.replace(subject.setting, recipe=short))
    first = Workbench(subject, Store(tmp_path))
    policies = ("recalibrate", "freeze", "interpolate")
    wanted = [first.curves(left, policy)[0] for left in ("own", "zero", "unrelated") for policy in policies]
    init, final = first.run(first.settings[0]).init, first.run(first.settings[0]).final
    exponents = {name: 2.0 for name in final if name.endswith("bias")}
    wanted += [*first.losses_on_lines([(init, final)]), first.scaled_curve(ScaledPath(final))]
    wanted += [first.scaled_curve(ScaledPath(final, exponents=exponents))]
    assert len({found.loss.tobytes() for found in wanted}) == len(wanted), "no two of these are the same curve"
    assert len(list((tmp_path / "curves").rglob("*.npz"))) == len(wanted)
    monkeypatch.setattr("mli_check.workbench.evaluate_many", lambda *_, **__: pytest.fail("measured again"))
    second = Workbench(subject, Store(tmp_path))
    found = [second.curves(left, policy)[0] for left in ("own", "zero", "unrelated") for policy in policies]
    found += [*second.losses_on_lines([(init, final)]), second.scaled_curve(ScaledPath(final))]
    found += [second.scaled_curve(ScaledPath(final, exponents=exponents))]
    assert all(same(one, other) for one, other in zip(wanted, found, strict=True))


def test_another_test_set_or_calibration_set_is_another_curve(tmp_path: Path) -> None:
    subject = dataclasses.replace(find("lenet-bn-digits"), networks=1, test_examples=50, points=3)
    short = dataclasses.replace(subject.setting.recipe, epochs=1, milestones=(), checkpoints=())
    subject = dataclasses.replace(subject, setting=dataclasses.replace(subject.setting, recipe=short))
    changes = ({}, {"test_examples": 60}, {"calibration_examples": 100}, {"points": 5})
    benches = [Workbench(dataclasses.replace(subject, **change), Store(tmp_path)) for change in changes]
    assert len({bench.curves("own")[0].loss.tobytes() for bench in benches}) == len(changes)


def test_the_linear_path_of_a_part_is_another_curve(tmp_path: Path) -> None:
    """The key names what a path leaves still: no two paths of one pair of states are taken for each other."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    first, last = random_state(model, 0), random_state(model, 1)
    paths = [LinearPath(first, last), LinearPath(first, last, only="*.bias")]
    keys = [digest({"path": [type(p).__name__, dict(p.exponents), p.still]}) for p in paths]
    assert keys[0] != keys[1]
