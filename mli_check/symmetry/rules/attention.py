"""Softmax and attention: a constant along the summed dimension is gone, and the rest has to keep its scale."""

from __future__ import annotations

from mli_check.symmetry.call import Call, register_rule
from mli_check.symmetry.forms import Form
from mli_check.symmetry.values import Offset, Value, along


@register_rule("aten::softmax", "aten::log_softmax", "aten::_softmax", "aten::_log_softmax", "aten::special_softmax")
def softmax(call: Call) -> Value:
    """softmax(x + c) = softmax(x) where c is constant along its dimension; softmax(a x) is no multiple of it."""
    value = call.value("self")
    dims = [call.get("dim") % max(len(value.shape), 1)] if value.shape else []
    call.demand_fixed(call.dropped(value, lambda offset: along(offset, value.shape, dims)))
    return call.result(Form())


@register_rule("aten::scaled_dot_product_attention")
def attention(call: Call) -> Value:
    """softmax(Q K' / sqrt(d)) V. A constant of K that is the same for all keys adds one number to a query's scores, so
    it is gone (the key's bias); the attention weights sum to one, so that of V passes.
    """
    query, key, value = (call.value(name) for name in ("query", "key", "value"))
    query = call.settled(query)
    tokens = len(key.shape) - 2
    key = call.dropped(key, lambda offset: along(offset, key.shape, [tokens]))
    scores = call.scale(query) + call.scale(key)
    call.require(scores, Form(), f"{query.text} times {key.text}", "1, for softmax is not homogeneous")
    mask = call.optional("attn_mask")
    if mask is not None:
        call.demand_fixed(mask)
    dropped = bool(call.get("dropout_p"))
    if dropped:
        call.walk.note(
            "dropout is active: the symmetries hold when the same mask is drawn; model.eval() switches it off"
        )
    features = {tokens, tokens + 1}
    passed = call.uniform(
        call.settled(value, lambda offset: not dropped and along(offset, value.shape, [tokens])), features
    )
    offsets = tuple(Offset(one.equation, one.dims - {tokens + 1}) for one in passed.offsets)
    return Value(call.shape, passed.pieces, call.text, dim=passed.dim, offsets=offsets, sources=value.sources)
