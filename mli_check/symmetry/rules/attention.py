"""Softmax and attention: a constant along the summed dimension is gone, and the rest has to keep its scale."""

from __future__ import annotations

from mli_check.symmetry.call import Call, register_rule
from mli_check.symmetry.forms import Form
from mli_check.symmetry.values import Value, along


@register_rule("aten::softmax", "aten::log_softmax", "aten::_softmax", "aten::_log_softmax", "aten::special_softmax")
def softmax(call: Call) -> Value:
    """softmax(x + c) = softmax(x) where c is constant along its dimension; softmax(a x) is no multiple of it."""
    value = call.value("self")
    dims = [call.get("dim") % max(len(value.shape), 1)] if value.shape else []
    whole = call.uniform(value, dims)
    call.demand_fixed(call.dropped(whole, lambda offset: along(offset, whole, dims)))
    return call.result(Form())


@register_rule("aten::scaled_dot_product_attention")
def attention(call: Call) -> Value:
    """softmax(Q K' / sqrt(d)) V. A constant of K that is the same for all keys adds one number to a query's scores, so
    it is gone (the key's bias); the attention weights sum to one, so that of V passes.
    """
    query, key, value = (call.uniform(call.value(name)) for name in ("query", "key", "value"))
    tokens = len(key.shape) - 2
    key = call.dropped(key, lambda offset: along(offset, key, [tokens]))
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
    passes = not dropped and value.shape[:tokens] == call.shape[:tokens]  # or heads would have to be told apart
    passed = call.settled(value, lambda offset: passes and along(offset, value, [tokens]))
    offsets = tuple(one.moved(one.dims - {tokens + 1}) for one in passed.offsets)
    return Value(call.shape, passed.pieces, call.text, offsets=offsets, sources=value.sources)
