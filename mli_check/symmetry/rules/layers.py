"""Layers that are linear in a weight and in what goes in: log-scales add, constants stay constants where they can."""

from __future__ import annotations

from collections.abc import Iterable

from mli_check.symmetry.call import Call, register_rule
from mli_check.symmetry.forms import Form
from mli_check.symmetry.rules.elementwise import added, weigh
from mli_check.symmetry.values import Offset, Piece, Value


def without(value: Value, dims: Iterable[int]) -> Value:
    """The value mixed along `dims`: it is no longer known to be constant there, nor are its offsets."""
    gone = frozenset(dims)
    return value.replaced(
        constant=value.constant - gone,
        offsets=tuple(one.moved(one.dims - gone) for one in value.offsets),
        tensor=None,
    )


def biased(call: Call, made: Value, bias: Value | None, channel: int, weight: Value) -> Value:
    """The value plus a bias along dimension `channel`."""
    if bias is None:
        return made
    shape = tuple(size if dim == channel else 1 for dim, size in enumerate(made.shape))
    base = made.replaced(text=f"{weight.text} times the layer's input")
    return added(call, base, bias.replaced(shape=shape)).replaced(sources=made.sources)


def weighted(call: Call, value: Value, weight: Value, pieces: tuple[Piece, ...] | None = None) -> Value:
    """The value times a weight of one scale, with the weight's own use recorded."""
    scale = call.scale(weight)
    source = frozenset({weight.tensor}) if weight.tensor is not None else frozenset(scale.terms)
    made = (value if pieces is None else value.replaced(pieces=pieces)).plus(scale, source)
    made = made.replaced(shape=call.shape, text=call.text)
    weigh(call, weight.tensor, value.sources, made)
    return made


@register_rule("aten::linear")
def linear(call: Call) -> Value:
    """x W' + b."""
    value, weight = call.value("input"), call.value("weight")
    last = len(value.shape) - 1
    mixed = without(call.uniform(value, [last]), [last])
    return biased(call, weighted(call, mixed, weight), call.optional("bias"), last, weight)


@register_rule("aten::addmm", "aten::baddbmm")
def addmm(call: Call) -> Value:
    """b + x W."""
    first, second = ("mat1", "mat2") if "mat1" in call.arguments else ("batch1", "batch2")
    made = products(call, call.value(first), call.value(second))
    return made if call.get("beta") == 0 else added(call, made, call.value("self"))


@register_rule("aten::conv1d", "aten::conv2d", "aten::conv3d")
def convolution(call: Call) -> Value:
    """A convolution; padding with zeros makes a constant vary near the border."""
    padding = call.get("padding")
    padded = padding != "valid" if isinstance(padding, str) else any(padding)
    return _convolved(call, call.value("weight"), borders=padded)


@register_rule("aten::conv_transpose1d", "aten::conv_transpose2d", "aten::conv_transpose3d")
def transposed_convolution(call: Call) -> Value:
    """A transposed convolution: fewer terms meet near the border, and with a stride everywhere."""
    return _convolved(call, call.value("weight"), borders=True)


def _convolved(call: Call, weight: Value, *, borders: bool) -> Value:
    value = call.value("input")
    channel = len(value.shape) - (len(weight.shape) - 2) - 1
    groups = call.get("groups", 1)
    space = range(channel + 1, len(value.shape))
    value = call.uniform(value, space)
    pieces = None
    if value.dim == channel:
        pieces = _by_group(call, value, groups, call.shape[channel])
    mixed = without(value, [channel, *(space if borders else ())])
    if pieces is not None and len(pieces) == 1:
        mixed, pieces = mixed.replaced(dim=None), ((0, pieces[0][1]),)
    made = weighted(call, mixed, weight, pieces)
    return biased(call, made, call.optional("bias"), channel, weight)


def _by_group(call: Call, value: Value, groups: int, size: int) -> tuple[Piece, ...]:
    """The log-scale of each group of output channels; parts that meet within a group have to scale alike."""
    assert value.dim is not None
    found: list[Piece] = []
    for scale in grouped(call, value, value.dim, groups):
        length = size // groups
        if found and found[-1][1] == scale:
            found[-1] = (found[-1][0] + length, scale)
        else:
            found.append((length, scale))
    return tuple(found)


def grouped(call: Call, value: Value, dim: int, groups: int) -> list[Form | None]:
    """The log-scale of each of `groups` equal parts along `dim`, after demanding that it is one."""
    width = value.shape[dim] // groups
    found: list[Form | None] = []
    for group in range(groups):
        inside = [scale for _, scale in value.stretch(group * width, (group + 1) * width) if scale is not None]
        for other in inside[1:]:
            call.require(other, inside[0], f"a part of {value.text}", "another part, which it is summed with")
        found.append(inside[0] if inside else None)
    return found


@register_rule("aten::matmul", "aten::mm", "aten::bmm")
def matmul(call: Call) -> Value:
    """A product of two matrices, or of batches of them."""
    return products(call, call.value("self"), call.value("other" if "other" in call.arguments else "mat2"))


def products(call: Call, first: Value, second: Value) -> Value:
    """A B: log-scales add. A constant of B that does not vary along its columns does not along the result's."""
    first, second = call.uniform(first), call.uniform(second)
    if len(first.shape) < 2 or len(second.shape) < 2:
        return call.result(call.scale(first) + call.scale(second), first.sources | second.sources)
    rows, columns = len(call.shape) - 2, len(call.shape) - 1
    kept = [*_through(first, second, call.shape, rows), *_through(second, first, call.shape, columns)]
    scales = [value.pieces[0][1] for value in (first, second)]
    scale = None if scales[0] is None or scales[1] is None else scales[0] + scales[1]
    bare = next((value.tensor for value in (second, first) if value.tensor is not None), None)
    other = first if bare is second.tensor else second
    made = Value(
        call.shape,
        ((0, scale),),
        call.text,
        offsets=tuple(dict.fromkeys(kept)),
        sources=first.sources | second.sources if bare is None else frozenset({bare}),
    )
    weigh(call, bare, other.sources, made)
    return made


def _through(one: Value, other: Value, shape: tuple[int, ...], own: int) -> list[Offset]:
    """The offsets of a factor in the product's frame: along the factor's own axis, and where both are constant."""
    shift = len(shape) - len(one.shape)
    lacking = len(shape) - len(other.shape)
    beside = {*range(lacking), *(dim + lacking for dim in other.constant_dims())}
    kept = []
    for offset in one.offsets:
        batch = {dim + shift for dim in offset.dims if dim + shift < len(shape) - 2} & beside
        axis = {own} if (own - shift) in offset.dims else set()
        across = {2 * len(shape) - 3 - own} & beside
        kept.append(offset.moved(batch | axis | across))
    return kept


@register_rule("aten::einsum")
def einsum(call: Call) -> Value:
    """A sum of products: log-scales add."""
    factors = call.values("tensors")
    scale = sum((call.scale(factor) for factor in factors), Form())
    return call.result(scale, frozenset().union(*(factor.sources for factor in factors)))


@register_rule("aten::bilinear")
def bilinear(call: Call) -> Value:
    """x1' W x2 + b."""
    first, second, weight = call.value("input1"), call.value("input2"), call.value("weight")
    scale = call.scale(first) + call.scale(second)
    base = call.result(scale, first.sources | second.sources)
    return biased(call, weighted(call, base, weight), call.optional("bias"), len(call.shape) - 1, weight)


@register_rule("aten::embedding")
def embedding(call: Call) -> Value:
    """Rows of the weight."""
    weight = call.value("weight")
    base = call.result(Form())
    return weighted(call, base, weight)
