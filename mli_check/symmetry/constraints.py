"""The walk over a network's graph: every operation's rule turns the log-scales of its inputs into that of its result.

What a rule may not assume it writes down as an equation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor
from torch._ops import HigherOrderOperator
from torch.fx import GraphModule, Node

from mli_check.errors import TraceError, UnknownOperationError
from mli_check.symmetry.call import RULES, Call, Walk, constant, operation_of
from mli_check.symmetry.forms import Form
from mli_check.symmetry.trace import Program, place_of, source_of
from mli_check.symmetry.values import Value

# results of these share memory with the input although their schemas do not say so
SAME_MEMORY = (
    "aten::einsum",
    "aten::dropout",
    "aten::feature_dropout",
    "aten::alpha_dropout",
    "aten::to",
    "aten::contiguous",
)
# `with` blocks of the model that torch.export keeps apart, as graphs of their own
REGIONS = ("wrap_with_set_grad_enabled", "wrap_with_autocast")
# these say more of what no factor reaches than that: where zeros are, and where it is constant
ALWAYS = ("aten::zeros", "aten::zeros_like", "aten::new_zeros", "aten::full", "aten::cat", "aten::expand", "aten::pad")


def walk(program: Program) -> tuple[Walk, dict[str, Value]]:
    """Follow the graph from inputs to outputs; returns what was found, and the outputs by name.

    Raises UnknownOperationError for an operation without a rule that a factor reaches, TraceError for an in-place
    change of memory that another tensor of the graph still shows.
    """
    found = Walk()
    statistics = _running_statistics(program.nodes)
    inputs = [node for node in program.nodes if node.op == "placeholder"]
    seen: dict[Node, Any] = {node: _placeholder(node, program, statistics) for node in inputs}
    _follow(found, program.nodes, seen)
    outputs = {}
    for name, node in program.outputs:
        if isinstance(seen[node], Value) and _floating(node):
            outputs[name] = _finished(found, node, seen[node], name)
    return found, outputs


def _follow(found: Walk, nodes: Sequence[Node], seen: dict[Node, Any]) -> dict[Node, Node]:
    """Give every operation its result, in order; returns whose memory each view shows."""
    memory: dict[Node, Node] = {}
    last_use = {node: index for index, user in enumerate(nodes) for node in user.all_input_nodes}
    for index, node in enumerate(nodes):
        if node.op == "get_attr":
            seen[node] = _attribute(node)
        elif node.op == "call_function":
            seen[node] = _called(found, node, seen)
            _rebind(node, seen, memory, last_use, index)
    return memory


def _attribute(node: Node) -> Any:
    """A constant of the graph, or the graph of a region."""
    held = attrgetter(str(node.target))(node.graph.owning_module)
    return held if isinstance(held, GraphModule) else constant(held)


def _region(found: Walk, node: Node, seen: dict[Node, Any]) -> tuple[Any, ...]:
    """What a `with` block computes, such as one that switches gradients or autocast: its graph is part of this one."""
    graph, inputs = _inside(node, seen)
    nodes = tuple(graph.graph.nodes)
    holders = [inner for inner in nodes if inner.op == "placeholder"]
    inner_seen = {holder: seen[given] for holder, given in zip(holders, inputs, strict=True)}
    memory = _follow(found, nodes, inner_seen)
    results = next(inner for inner in nodes if inner.op == "output").args[0]
    shared = [one for one in results if memory.get(one, one) in holders]
    if shared or any(inner_seen[holder] is not seen[given] for holder, given in zip(holders, inputs, strict=True)):
        raise TraceError(
            f"the block in {place_of(node)} changes its inputs in place, or hands on a view of one, and the graph does "
            "not say how; move that out of the `with` block"
        )
    return tuple(inner_seen[one] for one in results)


def _inside(node: Node, seen: Mapping[Node, Any]) -> tuple[GraphModule, list[Node]]:
    """The graph of a region, and what goes in."""
    given = [one for one in node.args if isinstance(one, Node)]
    graphs = [one for one in given if isinstance(seen.get(one, _graph_of(one)), GraphModule)]
    if operation_of(node) not in REGIONS or len(graphs) != 1:
        raise UnknownOperationError(
            f"`{node.target}` in {place_of(node)} holds a graph of its own that has no rule; take it out of the model, "
            "or pass the part of the network behind it"
        )
    return _graph_of(graphs[0]), [one for one in given if one is not graphs[0]]


def _graph_of(node: Node) -> Any:
    return _attribute(node) if node.op == "get_attr" else None


def _placeholder(node: Node, program: Program, statistics: set[Node]) -> Value:
    name = program.tensors.get(node.name)
    shape = tuple(getattr(node.meta.get("val"), "shape", ()))
    if name is None:
        return Value.whole(shape, Form(), f"the input `{node.name}`")
    if name in program.parameters or node in statistics:
        return Value.whole(shape, Form.of(name), f"`{name}`").replaced(tensor=name)
    return Value.whole(shape, Form(), f"the buffer `{name}`")


def _running_statistics(nodes: Sequence[Node]) -> set[Node]:
    """The buffers that a normalisation reads as its running statistics."""
    found: set[Node] = set()
    for node in nodes:
        name = operation_of(node) if node.op == "call_function" else ""
        if name in ("aten::batch_norm", "aten::instance_norm"):
            bound = bind(node, lambda item: item)
            if not bound["training" if "training" in bound else "use_input_stats"]:
                found |= {bound[key] for key in ("running_mean", "running_var") if isinstance(bound[key], Node)}
        elif name in REGIONS:
            graph, inputs = _inside(node, {})
            inner = tuple(graph.graph.nodes)
            holders = [one for one in inner if one.op == "placeholder"]
            read = _running_statistics(inner)
            found |= {given for holder, given in zip(holders, inputs, strict=True) if holder in read}
    return found


def bind(node: Node, look_up: Callable[[Any], Any]) -> dict[str, Any]:
    """The arguments of a call by the names of its schema, defaults filled in."""
    schema = getattr(node.target, "_schema", None)
    names = [argument.name for argument in schema.arguments] if schema else [str(i) for i in range(len(node.args))]
    given = dict(zip(names, node.args, strict=False)) | node.kwargs
    bound = {argument.name: argument.default_value for argument in schema.arguments} if schema else {}
    return bound | {name: torch.fx.map_arg(value, look_up) for name, value in given.items()}


def _called(found: Walk, node: Node, seen: dict[Node, Any]) -> Any:
    if isinstance(node.target, HigherOrderOperator):
        return _region(found, node, seen)
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
    """After an in-place operation the node that it changed has the new value; nothing else may show that memory."""
    schema, given = getattr(node.target, "_schema", None), node.all_input_nodes
    if not given:
        return
    first = given[0]
    owner = memory.get(first, first)
    if schema is None:
        if first in memory and operation_of(node) == "getitem":  # one of several views
            memory[node] = owner
        return
    info = schema.arguments[0].alias_info
    if info is not None and info.is_write:
        _check_alone(node, first, [one for one in seen if memory.get(one, one) is owner], last_use, index)
        seen[first] = seen[node]
        memory[node] = owner
    elif _views(schema) or (schema.name in SAME_MEMORY and len(given) == 1):
        memory[node] = owner


def _check_alone(node: Node, first: Node, others: list[Node], last_use: dict[Node, int], index: int) -> None:
    """Raise TraceError where memory that changes is seen later through another tensor."""
    for other in others:
        siblings = operation_of(other) == operation_of(first) == "getitem" and other.args[0] is first.args[0]
        if other not in (first, node) and not siblings and last_use.get(other, -1) > index:
            raise TraceError(
                f"`{node.target}` in {place_of(node)}, {source_of(node)}, changes memory that `{other}` still "
                "shows, and the graph does not say how; write it without the in-place operation"
            )


def _views(schema: Any) -> bool:
    return any(one.alias_info is not None and not one.alias_info.is_write for one in schema.returns)


def _floating(node: Node) -> bool:
    made = node.meta.get("val")
    return isinstance(made, Tensor) and made.is_floating_point()


def _finished(found: Walk, node: Node, value: Value, name: str) -> Value:
    """An output has to have one scale, and constants that scale with it."""
    call = Call(found, node, {})
    return call.uniform(call.settled(value.replaced(text=name)))
