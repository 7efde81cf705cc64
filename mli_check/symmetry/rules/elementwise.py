"""Sums, products and activations.

A positively homogeneous activation keeps the scale, f(a x) = a f(x) for a > 0; any other demands that it stays.
"""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

from mli_check.symmetry.call import Call, Layer, register_rule
from mli_check.symmetry.forms import Form
from mli_check.symmetry.values import Offset, Piece, Value


def framed(value: Value, shape: tuple[int, ...]) -> Value:
    """The value broadcast to `shape`: dimensions that it lacks, or has with size 1, become constant."""
    shift = len(shape) - len(value.shape)
    spread = {dim for dim, size in enumerate(shape) if size > 1 and (dim < shift or value.shape[dim - shift] == 1)}
    return value.replaced(
        shape=shape,
        constant=frozenset(dim + shift for dim in value.constant) | spread,
        offsets=tuple(offset.moved(frozenset(dim + shift for dim in offset.dims) | spread) for offset in value.offsets),
        dim=None if value.dim is None else value.dim + shift,
    )


def aligned(call: Call, first: Value, second: Value) -> tuple[Value, Value]:
    """Two values of one shape cut into the same pieces, so that piece i of one meets piece i of the other."""
    if first.dim is not None and second.dim is not None and first.dim != second.dim:
        first, second = call.uniform(first), call.uniform(second)
    dim = first.dim if first.dim is not None else second.dim
    if dim is None:
        return first, second
    size = first.shape[dim]
    cuts = sorted({0, size} | set(_ends(first, size)) | set(_ends(second, size)))
    return tuple(  # type: ignore[return-value]
        value.replaced(pieces=tuple(piece for cut in pairwise(cuts) for piece in value.stretch(*cut)), dim=dim)
        for value in (first, second)
    )


def _ends(value: Value, size: int) -> list[int]:
    ends, at = [], 0
    for length, _ in value.pieces:
        at += length
        ends.append(at if value.dim is not None else size)
    return ends


def added(call: Call, first: Value, second: Value) -> Value:
    """The sum: one summand becomes an offset of the other, the one that is constant along more dimensions."""
    first, second = framed(first, call.shape), framed(second, call.shape)
    swap = len(first.constant) > len(second.constant) or (
        len(first.constant) == len(second.constant) and (first.tensor is not None or first.invariant)
    )
    base, extra = aligned(call, *((second, first) if swap else (first, second)))
    pieces: list[Piece] = []
    offsets = [*base.offsets, *extra.offsets]
    for (length, ours), (_, theirs) in zip(base.pieces, extra.pieces, strict=True):
        pieces.append((length, theirs if ours is None else ours))
        if ours is not None and theirs is not None and ours != theirs:
            like = f"{base.text}, which it is added to"
            offsets.append(
                Offset(call.equation(theirs, ours, extra.text, like), extra.constant, parted=base.dim is not None)
            )
    sources = base.sources | extra.sources
    return Value(
        call.shape,
        tuple(pieces),
        call.text,
        dim=base.dim,
        constant=base.constant & extra.constant,
        offsets=tuple(dict.fromkeys(offsets)),
        sources=sources,
    )


@register_rule("aten::add", "aten::sub")
def add(call: Call) -> Value:
    """a + b: both scale alike."""
    return added(call, call.value("self"), call.value("other"))


@register_rule("aten::rsub")
def reverse_sub(call: Call) -> Value:
    """b - a."""
    return added(call, call.value("other"), call.value("self"))


@register_rule("aten::mul")
def multiply(call: Call) -> Value:
    """a * b: log-scales add; a constant stays one where its other factor is constant too."""
    return multiplied(call, call.value("self"), call.value("other"))


def multiplied(call: Call, first: Value, second: Value) -> Value:
    """The product, and the weight in it, where one factor is a parameter."""
    bare, other = (first, second) if first.tensor is not None else (second, first)
    if other.invariant and not other.shape:  # a number times a parameter is that parameter
        return framed(bare, call.shape) if not other.zero else call.result(Form())
    first, second = aligned(call, framed(first, call.shape), framed(second, call.shape))
    pieces = tuple(
        (length, None if a is None or b is None else a + b)
        for (length, a), (_, b) in zip(first.pieces, second.pieces, strict=True)
    )
    offsets = [one.moved(one.dims & second.constant_dims()) for one in first.offsets]
    offsets += [one.moved(one.dims & first.constant_dims()) for one in second.offsets]
    made = Value(
        call.shape,
        pieces,
        call.text,
        dim=first.dim,
        constant=first.constant & second.constant,
        offsets=tuple(dict.fromkeys(offsets)),
        sources=first.sources | second.sources if bare.tensor is None else frozenset({bare.tensor}),
    )
    weigh(call, bare.tensor, other.sources, made)
    return made


def weigh(call: Call, weight: str | None, before: frozenset[str], made: Value) -> None:
    """Record a use of a weight; one that was computed from other tensors is none of the network's own."""
    if weight is not None:
        after = tuple(dict.fromkeys(scale for _, scale in made.pieces if scale is not None))
        call.walk.layers.append(Layer(weight, before, after))


@register_rule("aten::div", "aten::divide", "aten::true_divide")
def divide(call: Call) -> Value:
    """a / b: the log-scale of b is taken away; rounded to whole numbers it is seen at one scale only."""
    below = call.value("other")
    if call.get("rounding_mode"):
        call.demand_fixed(call.value("self"))
        call.demand_fixed(below)
        return call.result(Form())
    inverse = below.replaced(
        pieces=((0, call.scale(below) * -1),), dim=None, offsets=(), tensor=None, sources=frozenset()
    )
    return multiplied(call, call.value("self"), inverse)


@register_rule("aten::reciprocal", "aten::rsqrt", "aten::sqrt", "aten::square", "aten::pow", "aten::float_power")
def power(call: Call) -> Value:
    """x**k with a fixed k: the log-scale times k."""
    fixed = {"reciprocal": -1, "rsqrt": Fraction(-1, 2), "sqrt": Fraction(1, 2), "square": 2}
    exponent = fixed[call.operation] if call.operation in fixed else call.get("exponent")
    base = call.value("self")
    if not isinstance(exponent, int | float | Fraction):
        call.demand_fixed(base)
        call.demand_fixed(call.value("exponent"))
        return call.result(Form())
    scale = call.scale(base) * Fraction(exponent).limit_denominator(1 << 20)
    call.walk.roots.append(scale)
    return call.result(scale, base.sources)


@register_rule("aten::to", "aten::_to_copy", "aten::type_as")
def cast(call: Call) -> Value:
    """The same numbers in another dtype; whole numbers are rounded, which is seen at one scale only."""
    if not call.node.meta["val"].dtype.is_floating_point:
        call.demand_fixed(call.value("self"))
        return call.result(Form())
    return call.value("self")


@register_rule("aten::neg", "aten::negative", "aten::positive", "aten::detach", "aten::clone", "aten::alias")
@register_rule("aten::contiguous", "aten::lift_fresh_copy", "aten::lift_fresh")
def keep(call: Call) -> Value:
    """The same numbers up to sign."""
    return call.value("self")


@register_rule("aten::relu", "aten::leaky_relu", "aten::abs")
def homogeneous(call: Call) -> Value:
    """f(a x) = a f(x) for a > 0, with f not linear: constants have to scale along."""
    return call.settled(call.value("self")).replaced(tensor=None)


@register_rule("aten::prelu", "aten::_prelu_kernel")
def prelu(call: Call) -> Value:
    """max(x, 0) + w min(x, 0): homogeneous in x; the slope w stays."""
    slope = call.value("weight")
    call.require(call.scale(slope), Form(), slope.text, "1, for it is a slope beside one that is 1")
    value = call.settled(call.value("self"))
    return value.replaced(tensor=None, constant=value.constant - ({1} if slope.shape != (1,) else set()))


@register_rule("aten::maximum", "aten::minimum", "aten::fmax", "aten::fmin")
def larger(call: Call) -> Value:
    """The larger of two: both scale alike."""
    first, second = (call.settled(framed(call.value(name), call.shape)) for name in ("self", "other"))
    first, second = aligned(call, first, second)
    pieces = []
    for (length, ours), (_, theirs) in zip(first.pieces, second.pieces, strict=True):
        if ours is not None and theirs is not None:
            call.require(theirs, ours, second.text, f"{first.text}, which it is compared with")
        pieces.append((length, theirs if ours is None else ours))
    return Value(call.shape, tuple(pieces), call.text, dim=first.dim, sources=first.sources | second.sources)


@register_rule("aten::clamp", "aten::clamp_min", "aten::clamp_max", "aten::threshold")
def clamp(call: Call) -> Value:
    """A bound of zero is ReLU; any other bound is seen at one scale only."""
    bounds = [call.arguments.get(name) for name in ("min", "max", "threshold", "value")]
    value = call.value("self")
    if all(bound is None or (isinstance(bound, int | float) and bound == 0) for bound in bounds):
        return call.settled(value).replaced(tensor=None)
    for one in [value, *(bound for bound in bounds if isinstance(bound, Value))]:
        call.demand_fixed(one)
    return call.result(Form())


@register_rule("aten::gelu", "aten::silu", "aten::tanh", "aten::sigmoid", "aten::hardtanh", "aten::relu6")
@register_rule("aten::hardswish", "aten::hardsigmoid", "aten::elu", "aten::selu", "aten::celu", "aten::mish")
@register_rule("aten::softplus", "aten::log_sigmoid", "aten::hardshrink", "aten::softshrink", "aten::glu", "aten::erf")
@register_rule("aten::exp", "aten::expm1", "aten::log", "aten::log1p", "aten::sin", "aten::cos", "aten::logsumexp")
def not_homogeneous(call: Call) -> Value:
    """f(a x) is no multiple of f(x): the scale of x has to stay."""
    call.demand_fixed(call.value("self"))
    return call.result(Form())


@register_rule("aten::gt", "aten::lt", "aten::ge", "aten::le", "aten::eq", "aten::ne")
def compare(call: Call) -> Value:
    """Compared with zero, the scale does not matter; with anything else both have to stay."""
    first, second = call.value("self"), call.value("other")
    if second.zero:
        call.settled(first)
    else:
        call.demand_fixed(first)
        call.demand_fixed(second)
    return call.result(Form())


@register_rule("aten::sign", "aten::argmax", "aten::argmin")
def blind(call: Call) -> Value:
    """A sign, or where the largest entry is: the same at every positive scale."""
    call.scale(call.value("self"))
    return call.result(Form())


@register_rule("aten::where")
def where(call: Call) -> Value:
    """Each entry from one of two tensors: both scale alike."""
    call.demand_fixed(call.value("condition"))
    first, second = (call.uniform(call.settled(call.value(name))) for name in ("self", "other"))
    scales = [value.pieces[0][1] for value in (first, second)]
    if scales[0] is not None and scales[1] is not None:
        call.require(scales[1], scales[0], second.text, f"{first.text}, which it alternates with")
    known = next((scale for scale in scales if scale is not None), Form())
    return call.result(known, first.sources | second.sources)


@register_rule("aten::masked_fill")
def masked_fill(call: Call) -> Value:
    """Entries become 0 or infinite, which keeps every scale; an infinite one stays infinite under any constant."""
    value, fill = call.value("self"), call.get("value")
    call.demand_fixed(call.value("mask"))
    if isinstance(fill, float) and abs(fill) == float("inf"):
        return framed(value, call.shape).replaced(tensor=None, constant=frozenset())
    if isinstance(fill, int | float) and fill == 0:
        return call.settled(framed(value, call.shape)).replaced(tensor=None, constant=frozenset())
    call.demand_fixed(value)
    call.demand_fixed(call.value("value"))
    return call.result(Form())


@register_rule("aten::dropout", "aten::feature_dropout", "aten::alpha_dropout")
def dropout(call: Call) -> Value:
    """In eval mode nothing; in train mode a random mask, the same one before and after."""
    value = call.value("input")
    if not call.get("train") or call.get("p") == 0:
        return value
    if call.operation == "alpha_dropout":  # it fills in a constant other than 0
        call.demand_fixed(value)
        return call.result(Form())
    call.walk.note("dropout is active: the symmetries hold when the same mask is drawn; model.eval() switches it off")
    return call.settled(value).replaced(tensor=None, constant=frozenset())
