"""Operations that only move entries: what is known along a dimension moves with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mli_check.symmetry.call import Call, Result, register_rule
from mli_check.symmetry.forms import Form
from mli_check.symmetry.rules.elementwise import framed
from mli_check.symmetry.rules.layers import without
from mli_check.symmetry.values import Piece, Value


def moved(value: Value, place: Mapping[int, int], shape: Sequence[int], text: str | None = None) -> Value:
    """The value with its dimensions renumbered; what is not in `place` is gone."""
    return value.replaced(
        shape=tuple(shape),
        text=text or value.text,
        constant=frozenset(place[dim] for dim in value.constant if dim in place),
        dim=None if value.dim is None else place[value.dim],
        offsets=tuple(one.moved(place[dim] for dim in one.dims if dim in place) for one in value.offsets),
    )


def groups(old: Sequence[int], new: Sequence[int]) -> list[tuple[list[int], list[int]]]:
    """Which dimensions of a reshape belong together: runs of equal product, as short as they come."""
    found, i, j = [], 0, 0
    while i < len(old) or j < len(new):
        ours, theirs = [], []
        left, right = 1, 1
        if i < len(old):
            ours, left, i = [i], old[i], i + 1
        if j < len(new):
            theirs, right, j = [j], new[j], j + 1
        while left != right:
            if (left < right and i < len(old)) or j >= len(new):
                left, i = left * old[i], i + 1
                ours.append(i - 1)
            else:
                right, j = right * new[j], j + 1
                theirs.append(j - 1)
        found.append((ours, theirs))
    return found


@register_rule("aten::view", "aten::reshape", "aten::flatten", "aten::unflatten", "aten::_unsafe_view")
@register_rule("aten::squeeze", "aten::unsqueeze", "aten::view_as", "aten::reshape_as")
def reshape(call: Call) -> Value:
    """New dimensions for old ones: one is constant where all that it is made of are."""
    value = call.value("self")
    together = groups(value.shape, call.shape)

    def constant(dims: frozenset[int]) -> frozenset[int]:
        kept: set[int] = set()
        for ours, theirs in together:
            if all(dim in dims or value.shape[dim] == 1 for dim in ours):
                kept |= {dim for dim in theirs if call.shape[dim] > 1}
        return frozenset(kept)

    if value.dim is not None:
        cut = _cut(value, call.shape, together)
        value = call.uniform(value) if cut is None else value.replaced(dim=cut[0], pieces=cut[1])
    return value.replaced(
        shape=call.shape,
        constant=constant(value.constant),
        offsets=tuple(one.moved(constant(one.dims)) for one in value.offsets),
    )


def _cut(
    value: Value, shape: Sequence[int], together: list[tuple[list[int], list[int]]]
) -> tuple[int, tuple[Piece, ...]] | None:
    """Where the pieces lie after the reshape: stretched by what is merged behind them, or on the outer part."""
    ours, theirs = next((ours, theirs) for ours, theirs in together if value.dim in ours)
    big_ours = [dim for dim in ours if value.shape[dim] > 1]
    big_theirs = [dim for dim in theirs if shape[dim] > 1]
    if not big_ours or not big_theirs or big_ours[0] != value.dim:
        return None
    outer = shape[big_theirs[0]]
    inner = 1
    for dim in big_ours:
        inner *= value.shape[dim]
    inner //= outer  # entries of the old run that one step along the new outer dimension covers
    behind = 1
    for dim in big_ours[1:]:
        behind *= value.shape[dim]
    lengths = [length * behind for length, _ in value.pieces]
    if any(length % inner for length in lengths):
        return None
    scales = (scale for _, scale in value.pieces)
    return big_theirs[0], tuple((length // inner, scale) for length, scale in zip(lengths, scales, strict=True))


@register_rule("aten::transpose", "aten::t", "aten::numpy_T", "aten::mT", "aten::swapaxes", "aten::adjoint")
def transpose(call: Call) -> Value:
    """Two dimensions change places."""
    value = call.value("self")
    count = len(value.shape)
    first = call.get("dim0", call.get("axis0", count - 2))
    second = call.get("dim1", call.get("axis1", count - 1))
    place = {dim: dim for dim in range(count)}
    if count > 1:
        first, second = first % count, second % count
        place[first], place[second] = second, first
    return moved(value, place, call.shape)


@register_rule("aten::permute", "aten::movedim")
def permute(call: Call) -> Value:
    """Dimensions in another order."""
    value = call.value("self")
    order = call.get("dims")
    if order is None:  # movedim
        return without(call.uniform(value), range(len(value.shape))).replaced(shape=call.shape)
    return moved(value, {dim % len(value.shape): index for index, dim in enumerate(order)}, call.shape)


@register_rule("aten::expand", "aten::expand_as", "aten::broadcast_to")
def expand(call: Call) -> Value:
    """Broadcasting: constant along the new dimensions."""
    return framed(call.value("self"), call.shape)


@register_rule("aten::repeat", "aten::tile", "aten::repeat_interleave", "aten::pixel_shuffle", "aten::pixel_unshuffle")
@register_rule("aten::channel_shuffle", "aten::index", "aten::index_select", "aten::gather", "aten::unfold")
@register_rule("aten::im2col", "aten::as_strided", "aten::diagonal", "aten::tril", "aten::triu", "aten::flip")
def rearranged(call: Call) -> Value:
    """Entries in another arrangement, some of them perhaps zero: one scale, and nothing known to be constant."""
    value = call.value("self" if "self" in call.arguments else "input")
    return call.result(call.scale(value), value.sources).replaced(tensor=value.tensor)


@register_rule("aten::roll")
def roll(call: Call) -> Value:
    """Entries move along dimensions: constants along them stay, parts along them mix."""
    value = call.value("self")
    dims = [dim % len(value.shape) for dim in call.get("dims", ())]
    if not dims:  # all entries in one row
        return without(call.uniform(value), range(len(value.shape)))
    return call.uniform(value, dims)


@register_rule("aten::slice", "aten::narrow")
def cut(call: Call) -> Value:
    """A stretch of one dimension."""
    value = call.value("self")
    dim = call.get("dim", 0) % len(value.shape)
    start, size = call.get("start", 0), value.shape[dim]
    start = max(start + size, 0) if start < 0 else min(start, size)
    step = call.get("step", 1)
    if step != 1:
        value = call.uniform(value, [dim])
    return _stretch(value, dim, start, call.shape, call.text)


def _stretch(value: Value, dim: int, start: int, shape: Sequence[int], text: str) -> Value:
    """The entries from `start` on along `dim`, as many as `shape` has there."""
    pieces = value.stretch(start, start + shape[dim]) if value.dim == dim else value.pieces
    made = value.replaced(shape=tuple(shape), pieces=pieces, text=value.text if value.tensor else text)
    return made.replaced(dim=None, pieces=((0, pieces[0][1]),)) if len(pieces) == 1 else made


@register_rule("aten::select")
def select(call: Call) -> Value:
    """One entry of a dimension, which is gone then."""
    value = call.value("self")
    return _selected(value, call.get("dim") % len(value.shape), call.get("index"), call.shape, call.text)


def _selected(value: Value, dim: int, index: int, shape: Sequence[int], text: str) -> Value:
    size = value.shape[dim]
    one = _stretch(value, dim, index % size, [*value.shape[:dim], 1, *value.shape[dim + 1 :]], text)
    place = {other: other - (other > dim) for other in range(len(value.shape)) if other != dim}
    return moved(one, place, shape)


@register_rule("aten::unbind")
def unbind(call: Call) -> Result:
    """Every entry of a dimension apart."""
    value = call.value("self")
    dim = call.get("dim", 0) % len(value.shape)
    return tuple(_selected(value, dim, index, shape, call.text) for index, shape in enumerate(call.shapes))


@register_rule("aten::chunk", "aten::split", "aten::split_with_sizes", "aten::tensor_split")
def split(call: Call) -> Result:
    """Stretches of a dimension, one after the other."""
    value = call.value("self")
    dim = call.get("dim", 0) % len(value.shape)
    found, at = [], 0
    for shape in call.shapes:
        found.append(_stretch(value, dim, at, shape, call.text))
        at += shape[dim]
    return tuple(found)


@register_rule("aten::cat", "aten::concat", "aten::concatenate")
def cat(call: Call) -> Value:
    """One tensor after the other: each part keeps its scale until something mixes them."""
    values = [value for value in call.values("tensors") if value.shape != (0,)]
    return _joined(call, values, call.get("dim", 0) % len(call.shape))


@register_rule("aten::stack")
def stack(call: Call) -> Value:
    """Tensors side by side along a new dimension."""
    dim = call.get("dim", 0) % len(call.shape)
    place = {old: old + (old >= dim) for old in range(len(call.shape) - 1)}
    shape = [size if other != dim else 1 for other, size in enumerate(call.shape)]
    return _joined(call, [moved(value, place, shape) for value in call.values("tensors")], dim)


def _joined(call: Call, values: list[Value], dim: int) -> Value:
    values = [value if value.dim in (None, dim) else call.uniform(value) for value in values]
    pieces: list[Piece] = []
    for value in values:
        for length, scale in value.pieces:
            size = length if value.dim is not None else value.shape[dim]
            if pieces and (pieces[-1][1] == scale or scale is None or pieces[-1][1] is None):
                known = scale if pieces[-1][1] is None else pieces[-1][1]
                pieces[-1] = (pieces[-1][0] + size, known)  # zeros go with their neighbour
            else:
                pieces.append((size, scale))
    one = len(pieces) == 1
    offsets = [one.moved(one.dims - {dim}) for value in values for one in value.offsets]
    shared = frozenset.intersection(*(value.constant_dims() for value in values)) - {dim}
    return Value(
        call.shape,
        ((0, pieces[0][1]),) if one else tuple(pieces),
        call.text,
        dim=None if one else dim,
        constant=frozenset(d for d in shared if call.shape[d] > 1),
        offsets=tuple(dict.fromkeys(offsets)),
        sources=frozenset().union(*(value.sources for value in values)),
    )


@register_rule("aten::pad", "aten::constant_pad_nd", "aten::reflection_pad1d", "aten::reflection_pad2d")
@register_rule(
    "aten::replication_pad1d", "aten::replication_pad2d", "aten::replication_pad3d", "aten::reflection_pad3d"
)
def pad(call: Call) -> Value:
    """Zeros, or entries once more, at the ends of the last dimensions."""
    value, widths = call.value("self"), list(call.get("pad", call.get("padding")))
    padded = [len(value.shape) - 1 - k // 2 for k, width in enumerate(widths) if width]
    copies = call.operation.startswith(("reflection", "replication")) or call.get("mode", "constant") != "constant"
    value = call.uniform(value, padded)
    if copies:
        return value.replaced(shape=call.shape)
    fill = call.get("value", 0)
    if fill:  # another constant is seen at one scale only
        call.demand_fixed(value)
        return call.result(Form())
    return without(value, padded).replaced(shape=call.shape)


@register_rule("aten::zeros", "aten::zeros_like", "aten::new_zeros")
def zeros(call: Call) -> Value:
    """Zeros, which any scale leaves alone."""
    return Value.whole(call.shape, None, "zeros")


@register_rule("aten::ones_like", "aten::new_ones", "aten::full_like", "aten::new_full")
@register_rule("aten::empty_like", "aten::new_empty", "aten::rand_like", "aten::randn_like")
def filled(call: Call) -> Value:
    """A tensor of another one's shape, with nothing of its entries."""
    return call.result(Form())


@register_rule("aten::full")
def full(call: Call) -> Value:
    """A constant; zeros if it is 0."""
    return Value.whole(call.shape, None if call.get("fill_value") == 0 else Form(), "a constant")
