"""Pooling, means, sums and extremes: positively homogeneous, and most of them let constants through."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction

from mli_check.symmetry.call import Call, Result, register_rule
from mli_check.symmetry.forms import Form
from mli_check.symmetry.rules.elementwise import larger
from mli_check.symmetry.rules.layers import without
from mli_check.symmetry.rules.shapes import moved
from mli_check.symmetry.values import Value, along


def reduced(call: Call, value: Value, dims: Iterable[int], *, keepdim: bool) -> Value:
    """The value with `dims` gone, or of size 1; parts along them have been made to scale alike."""
    gone = set(dims)
    left = [dim for dim in range(len(value.shape)) if dim not in gone]
    place = {dim: dim if keepdim else index for index, dim in enumerate(left)}
    return moved(value.replaced(tensor=None), place, call.shape, call.text)


def _dims(call: Call, value: Value) -> list[int]:
    """The dimensions of a reduction, counted from the front; all where none is named."""
    found = call.get("dim")
    if found is None or (isinstance(found, list | tuple) and not found):
        return list(range(len(value.shape)))
    return [dim % max(len(value.shape), 1) for dim in ([found] if isinstance(found, int) else found)]


@register_rule("aten::mean", "aten::sum", "aten::nanmean", "aten::nansum")
def linear_reduction(call: Call) -> Value:
    """A mean or a sum: linear, so every constant stays one."""
    value = call.value("self")
    dims = _dims(call, value)
    return reduced(call, call.uniform(value, dims), dims, keepdim=bool(call.get("keepdim")))


@register_rule("aten::cumsum")
def running_sum(call: Call) -> Value:
    """A sum that keeps its dimension: a constant grows along it."""
    value = call.value("self")
    dim = call.get("dim") % len(value.shape)
    return without(call.uniform(value, [dim]), [dim])


@register_rule("aten::amax", "aten::amin", "aten::max", "aten::min", "aten::sort", "aten::topk", "aten::median")
def extreme(call: Call) -> Result:
    """The largest entries: a constant along the dimension passes through, any other one has to scale along."""
    if call.arguments.get("other") is not None:
        return larger(call)
    value = call.value("self")
    dims = _dims(call, value)
    whole = call.uniform(value, dims)
    passed = call.settled(whole, lambda offset: along(offset, whole, dims))
    keeps = call.operation in ("sort", "topk") or bool(call.get("keepdim"))
    made = reduced(call, passed, dims, keepdim=keeps)
    if len(call.shapes) == 1:
        return made
    return made, Value.whole(call.shapes[1], Form(), f"the indices of {value.text}")


@register_rule("aten::linalg_vector_norm", "aten::norm", "aten::frobenius_norm")
def norm(call: Call) -> Value:
    """A norm: absolutely homogeneous, but for the one that counts what is not zero."""
    value = call.settled(call.value("self"))
    if call.get("ord", call.get("p")) == 0:
        return call.result(Form())
    dims = _dims(call, value)
    return reduced(call, call.uniform(value, dims), dims, keepdim=bool(call.get("keepdim")))


@register_rule("aten::std", "aten::var")
def spread(call: Call) -> Value:
    """A standard deviation or variance: what is constant along the dimensions is gone."""
    value = call.value("self")
    dims = _dims(call, value)
    whole = call.uniform(value, dims)
    left = call.dropped(whole, lambda offset: along(offset, whole, dims))
    made = reduced(call, left, dims, keepdim=bool(call.get("keepdim")))
    power = Fraction(2 if call.operation == "var" else 1)
    pieces = tuple((length, None if scale is None else scale * power) for length, scale in made.pieces)
    return made.replaced(pieces=pieces)


@register_rule("aten::max_pool1d", "aten::max_pool2d", "aten::max_pool3d", "aten::max_pool2d_with_indices")
@register_rule("aten::adaptive_max_pool1d", "aten::adaptive_max_pool2d", "aten::adaptive_max_pool3d")
def max_pool(call: Call) -> Result:
    """The largest of a window; padding is infinitely small, so a constant passes."""
    value = call.value("self")
    space = _space(call, value)
    whole = call.uniform(value, space)
    passed = call.settled(whole, lambda offset: along(offset, whole, space))
    made = passed.replaced(shape=call.shape, tensor=None)
    return made if len(call.shapes) == 1 else (made, Value.whole(call.shapes[1], Form(), "the indices of a pooling"))


@register_rule("aten::avg_pool1d", "aten::avg_pool2d", "aten::avg_pool3d")
def average_pool(call: Call) -> Value:
    """The mean of a window; zeros that are padded and counted make a constant vary near the border."""
    value = call.value("self")
    space = _space(call, value)
    padding = call.get("padding", 0)
    padded = bool(padding) if isinstance(padding, int) else any(padding)
    uneven = (padded and call.get("count_include_pad", True)) or call.get("divisor_override") is not None
    value = call.uniform(value, space)
    return (without(value, space) if uneven else value).replaced(shape=call.shape, tensor=None)


@register_rule("aten::adaptive_avg_pool1d", "aten::adaptive_avg_pool2d", "aten::adaptive_avg_pool3d")
@register_rule("aten::upsample_nearest1d", "aten::upsample_nearest2d", "aten::upsample_nearest3d")
@register_rule("aten::upsample_linear1d", "aten::upsample_bilinear2d", "aten::upsample_trilinear3d")
def resized(call: Call) -> Value:
    """Weighted means with weights that sum to one: a constant stays what it is."""
    value = call.value("self" if "self" in call.arguments else "input")
    return call.uniform(value, _space(call, value)).replaced(shape=call.shape, tensor=None)


def _space(call: Call, value: Value) -> list[int]:
    """The dimensions that a pooling works on: as many last ones as its name says."""
    count = next(int(digit) for digit in "123" if f"{digit}d" in call.operation)
    return list(range(len(value.shape) - count, len(value.shape)))
