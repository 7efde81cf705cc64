"""The walk over a network's graph: every operation's rule turns the log-scales of its inputs into that of its result.

What a rule may not assume it writes down as an equation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from mli_check.errors import TraceError, UnknownOperationError
from mli_check.symmetry.call import RULES, Call, Walk, constant, operation_of
from mli_check.symmetry.forms import Form
from mli_check.symmetry.trace import Program, place_of, source_of
from mli_check.symmetry.values import Value

# results of these share memory with the input although their schemas do not say so
SAME_MEMORY = ("aten::dropout", "aten::feature_dropout", "aten::alpha_dropout", "aten::to", "aten::contiguous")
# these say more of what no factor reaches than that: where zeros are, and where it is constant
ALWAYS = ("aten::zeros", "aten::zeros_like", "aten::new_zeros", "aten::full", "aten::cat", "aten::expand", "aten::pad")


def walk(program: Program) -> tuple[Walk, dict[str, Value]]:
    """Follow the graph from inputs to outputs; returns what was found, and the outputs by name.

    Raises UnknownOperationError for an operation without a rule that a factor reaches, TraceError for an in-place
    change of memory that another tensor of the graph still shows.
    """
    found = Walk()
    seen: dict[Node, Any] = {}
    memory: dict[Node, Node] = {}  # views -> the node that owns the memory
    last_use = {node: index for index, user in enumerate(program.nodes) for node in user.all_input_nodes}
    statistics = _running_statistics(program)
    for index, node in enumerate(program.nodes):
        if node.op == "placeholder":
            seen[node] = _placeholder(node, program, statistics)
        elif node.op == "get_attr":
            seen[node] = constant(None).replaced(shape=tuple(getattr(node.meta.get("val"), "shape", ())))
        elif node.op == "call_function":
            seen[node] = _called(found, node, seen)
            _rebind(node, seen, memory, last_use, index)
    outputs = {}
    for name, node in program.outputs:
        if isinstance(seen[node], Value) and _floating(node):
            outputs[name] = _finished(found, node, seen[node], name)
    return found, outputs


def _placeholder(node: Node, program: Program, statistics: set[Node]) -> Value:
    name = program.tensors.get(node.name)
    shape = tuple(getattr(node.meta.get("val"), "shape", ()))
    if name is None:
        return Value.whole(shape, Form(), f"the input `{node.name}`")
    if name in program.parameters or node in statistics:
        return Value.whole(shape, Form.of(name), f"`{name}`").replaced(tensor=name)
    return Value.whole(shape, Form(), f"the buffer `{name}`")


def _running_statistics(program: Program) -> set[Node]:
    """The buffers that a normalisation reads as its running statistics."""
    found: set[Node] = set()
    for node in program.nodes:
        if node.op == "call_function" and operation_of(node) in ("aten::batch_norm", "aten::instance_norm"):
            bound = bind(node, lambda item: item)
            if not bound["training" if "training" in bound else "use_input_stats"]:
                found |= {bound[key] for key in ("running_mean", "running_var") if isinstance(bound[key], Node)}
    return found


def bind(node: Node, look_up: Callable[[Any], Any]) -> dict[str, Any]:
    """The arguments of a call by the names of its schema, defaults filled in."""
    schema = getattr(node.target, "_schema", None)
    names = [argument.name for argument in schema.arguments] if schema else [str(i) for i in range(len(node.args))]
    given = dict(zip(names, node.args, strict=False)) | node.kwargs
    bound = {argument.name: argument.default_value for argument in schema.arguments} if schema else {}
    return bound | {name: torch.fx.map_arg(value, look_up) for name, value in given.items()}


def _called(found: Walk, node: Node, seen: dict[Node, Any]) -> Any:
    arguments = bind(node, lambda item: seen[item])
    name = operation_of(node)
    if node.meta.get("val") is None and not node.users and "getitem" not in name:
        return None  # it only asserts something
    if name == "getitem":
        return arguments["0"][arguments["1"]]
    call = Call(found, node, arguments)
    inputs = [value for item in arguments.values() for value in _leaves(item)]
    if all(value.invariant for value in inputs) and name not in ALWAYS:
        return _invariant(call)
    if name not in RULES:
        raise UnknownOperationError(
            f"no rule says how `{node.target}` behaves under scaling; it stands in {place_of(node)}, "
            f"{source_of(node)}.\n"
            f'Give it one: @mli_check.symmetry.register_rule("{name}") on a function of the call, or take it out.'
        )
    return RULES[name](call)


def _leaves(item: Any) -> list[Value]:
    if isinstance(item, Value):
        return [item]
    return [value for part in item for value in _leaves(part)] if isinstance(item, list | tuple) else []


def _invariant(call: Call) -> Any:
    """What depends on nothing that scales does not scale either, whatever the operation."""
    made = call.node.meta.get("val")
    if isinstance(made, Tensor):
        return call.result(Form())
    if isinstance(made, Sequence) and not isinstance(made, str):
        return tuple(Value.whole(getattr(one, "shape", ()), Form(), call.text) for one in made)
    return made


def _rebind(node: Node, seen: dict[Node, Any], memory: dict[Node, Node], last_use: dict[Node, int], index: int) -> None:
    """After an in-place operation the node that it changed has the new value, as has whatever names its memory."""
    schema = getattr(node.target, "_schema", None)
    if schema is None or not node.args or not isinstance(node.args[0], Node):
        return
    first, info = node.args[0], schema.arguments[0].alias_info
    owner = memory.get(first, first)
    if info is not None and info.is_write:
        partial = [
            other
            for other in seen
            if memory.get(other, other) is owner and other not in (first, node) and last_use.get(other, -1) > index
        ]
        if partial:
            raise TraceError(
                f"`{node.target}` in {place_of(node)}, {source_of(node)}, changes memory that `{partial[0]}` still "
                "shows, and the graph does not say how; write it without the in-place operation"
            )
        seen[first] = seen[node]
        memory[node] = owner
    elif isinstance(seen[node], Value) and (_views(schema) or schema.name in SAME_MEMORY):
        memory[node] = owner


def _views(schema: Any) -> bool:
    return any(one.alias_info is not None and not one.alias_info.is_write for one in schema.returns)


def _floating(node: Node) -> bool:
    made = node.meta.get("val")
    return isinstance(made, Tensor) and made.is_floating_point()


def _finished(found: Walk, node: Node, value: Value, name: str) -> Value:
    """An output has to have one scale, and constants that scale with it."""
    call = Call(found, node, {})
    return call.uniform(call.settled(value.replaced(text=name)))
