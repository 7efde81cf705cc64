"""Normalisations: what they subtract and divide by frees the scale and the constants of what goes in."""

from __future__ import annotations

from collections.abc import Iterable

from mli_check.symmetry.call import Call, Normalisation, register_rule
from mli_check.symmetry.forms import Form
from mli_check.symmetry.rules.elementwise import added, weigh
from mli_check.symmetry.rules.layers import grouped, without
from mli_check.symmetry.trace import module_of
from mli_check.symmetry.values import Offset, Value, along


def normalised(call: Call, value: Value, pieces_free: Iterable[int]) -> Value:
    """The value with mean 0 and variance 1: of scale 0, whatever it was. Parts along `pieces_free` are freed apart."""
    free = tuple(pieces_free)
    if value.dim is not None and value.dim not in free:
        value = call.uniform(value)
    _recorded(call, value)
    return call.result(Form(), value.sources)


def _recorded(call: Call, value: Value) -> None:
    scales = tuple(dict.fromkeys(scale for _, scale in value.pieces if scale is not None))
    call.walk.normalisations.append(Normalisation(module_of(call.node)[0], scales))


def affine(call: Call, value: Value, dims: Iterable[int], weight: Value | None, bias: Value | None) -> Value:
    """weight * value + bias, both varying along `dims` only."""
    kept = frozenset(dims)

    def shaped(tensor: Value) -> Value:
        return tensor.replaced(shape=tuple(size if dim in kept else 1 for dim, size in enumerate(call.shape)))

    made = value.replaced(sources=frozenset())
    if weight is not None:
        source = frozenset({weight.tensor}) if weight.tensor is not None else weight.sources
        made = without(value, kept).plus(call.scale(weight), source)
        weigh(call, weight.tensor, value.sources, made)
    if bias is not None:
        rescaled = f"{weight.text} times the normalised values" if weight is not None else "the normalised values"
        made = added(call, made.replaced(text=rescaled), shaped(bias)).replaced(sources=made.sources)
    return made.replaced(shape=call.shape, text=call.text)


@register_rule("aten::batch_norm")
def batch_norm(call: Call) -> Value:
    """Batch statistics (Tao et al. 2024, Eq. 16 to 18), or running ones."""
    return _by_channel(call, [0], batch=bool(call.get("training")))


@register_rule("aten::instance_norm")
def instance_norm(call: Call) -> Value:
    """Statistics of every example's every channel, or running ones."""
    return _by_channel(call, [], batch=bool(call.get("use_input_stats")))


def _by_channel(call: Call, examples: list[int], *, batch: bool) -> Value:
    value = call.value("input")
    dims = [*examples, *range(2, len(value.shape))]
    if batch:
        whole = call.uniform(value, dims)
        left = call.dropped(whole, lambda offset: along(offset, whole, dims))
        made = normalised(call, left, [dim for dim in (0, 1) if dim not in dims])
    else:
        made = _frozen(call, value)
    return affine(call, made, [1], call.optional("weight"), call.optional("bias"))


def _frozen(call: Call, value: Value) -> Value:
    """(x - mean) / sqrt(var) with running statistics, which stay those of their input."""
    mean, variance = call.value("running_mean"), call.value("running_var")
    value = call.uniform(value)
    scale = value.pieces[0][1] or Form()
    _recorded(call, value)
    shape = tuple(size if dim == 1 else 1 for dim, size in enumerate(value.shape))
    moved = added(call, value, mean.replaced(shape=shape))
    like = f"the square of {value.text}, whose variance it is"
    call.require(call.scale(variance), scale * 2, variance.text, like)
    return without(moved, [1]).plus(scale * -1).replaced(sources=value.sources)


@register_rule("aten::layer_norm")
def layer_norm(call: Call) -> Value:
    """Statistics over the last dimensions of every example."""
    value = call.value("input")
    dims = _last(value, call.get("normalized_shape"))
    whole = call.uniform(value, dims)
    left = call.dropped(whole, lambda offset: along(offset, whole, dims))
    made = normalised(call, left, [dim for dim in range(len(value.shape)) if dim not in dims])
    return affine(call, made, dims, call.optional("weight"), call.optional("bias"))


@register_rule("aten::rms_norm")
def rms_norm(call: Call) -> Value:
    """x / sqrt(mean(x^2)): no mean is taken away, so constants stay."""
    value = call.settled(call.value("input"))
    dims = _last(value, call.get("normalized_shape"))
    made = normalised(call, value, [dim for dim in range(len(value.shape)) if dim not in dims])
    return affine(call, made, dims, call.optional("weight"), None)


def _last(value: Value, normalised_shape: Iterable[int]) -> list[int]:
    count = len(tuple(normalised_shape))
    return list(range(len(value.shape) - count, len(value.shape)))


@register_rule("aten::group_norm")
def group_norm(call: Call) -> Value:
    """Statistics of every example's groups of channels."""
    value, groups = call.value("input"), call.get("num_groups")
    space = list(range(2, len(value.shape)))
    dims = space if groups == value.shape[1] else [1, *space]

    def gone(offset: Offset) -> bool:
        return along(offset, value, dims)

    left = call.dropped(value, gone)
    if left.dim == 1:
        grouped(call, left, 1, groups)
    made = normalised(call, left, [0, 1])
    return affine(call, made, [1], call.optional("weight"), call.optional("bias"))


@register_rule("aten::_weight_norm", "aten::_weight_norm_interface")
def weight_norm(call: Call) -> Value:
    """g v / |v|: the direction's scale is free."""
    scale = call.value("g")
    call.settled(call.uniform(call.value("v")))
    return call.result(call.scale(scale)).replaced(tensor=scale.tensor)
