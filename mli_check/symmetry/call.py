"""What a rule sees of one operation: the values that go in, ways to demand equations, and to answer.

The rules stand in `rules/`; `register_rule` adds one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.fx import Node

from mli_check.errors import OptionError
from mli_check.symmetry.forms import Equation, Form
from mli_check.symmetry.trace import module_of, place_of
from mli_check.symmetry.values import Offset, Value

Result: TypeAlias = Value | tuple[Value, ...]
Rule: TypeAlias = Callable[["Call"], Result]

RULES: dict[str, Rule] = {}


def register_rule(*operations: str) -> Callable[[Rule], Rule]:
    """Say how operations behave under scaling: decorate a function with `@register_rule("mylib::my_relu")`.

    The function takes the Call, reads its inputs with `call.value(name)`, demands what has to hold (`call.scale`,
    `call.demand_fixed`, `call.require`) and returns the result's Value, most simply `call.result(scale)`. An in-place
    variant (`aten::relu_`) takes the same rule. A later rule replaces an earlier one. Raises OptionError for a name
    that is not of the form `namespace::operation`.
    """
    for name in operations:
        if not isinstance(name, str) or not re.fullmatch(r"\w+::\w+", name):
            raise OptionError(
                f"an operation is named like `aten::relu`, namespace first and overload left out; got {name!r}"
            )

    def register(rule: Rule) -> Rule:
        RULES.update({name.removesuffix("_"): rule for name in operations})
        return rule

    return register


@dataclass(frozen=True)
class Layer:
    """One use of a weight: what it scales, and to what scale."""

    weight: str
    before: frozenset[str]  # the weights that scaled the layer's input last
    after: tuple[Form, ...]  # several where parts of the result scale apart


@dataclass(frozen=True)
class Normalisation:
    """One use of a normalisation: the module, and the log-scales of what it normalises."""

    module: str
    scales: tuple[Form, ...]  # several where parts of it scale apart


@dataclass
class Walk:
    """What the walk has found so far."""

    equations: list[Equation] = field(default_factory=list)
    removed: list[Equation] = field(default_factory=list)
    layers: list[Layer] = field(default_factory=list)
    normalisations: list[Normalisation] = field(default_factory=list)
    roots: list[Form] = field(default_factory=list)  # log-scales of values that a root was taken of
    notes: list[str] = field(default_factory=list)

    def note(self, text: str) -> None:
        """Keep a remark for the user, once."""
        if text not in self.notes:
            self.notes.append(text)


class Call:
    """One operation of the graph with the values that go in, for its rule to read."""

    def __init__(self, walk: Walk, node: Node, arguments: dict[str, Any]) -> None:
        self.walk, self.node, self.arguments = walk, node, arguments

    # Reading

    def value(self, name: str) -> Value:
        """The input tensor `name` of the operation's schema; a number there is a constant."""
        found = self.arguments[name]
        return found if isinstance(found, Value) else constant(found)

    def optional(self, name: str) -> Value | None:
        """The input tensor `name`, or None where it is left out."""
        return None if self.arguments.get(name) is None else self.value(name)

    def values(self, name: str) -> list[Value]:
        """The input `name`, a list of tensors."""
        return [item if isinstance(item, Value) else constant(item) for item in self.arguments[name]]

    def get(self, name: str, default: Any = None) -> Any:
        """An argument that is no tensor."""
        found = self.arguments.get(name)
        return default if found is None else found

    @property
    def shape(self) -> tuple[int, ...]:
        """The result's shape (of the first result, where there are several)."""
        return self.shapes[0]

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """The shape of every result."""
        made = self.node.meta["val"]
        return [tuple(one.shape) for one in ([made] if isinstance(made, Tensor) else made) if isinstance(one, Tensor)]

    @property
    def operation(self) -> str:
        """The operation's name without namespace, for people."""
        return operation_of(self.node).partition("::")[2].strip("_")

    @property
    def text(self) -> str:
        """The result in the model's own terms."""
        name, kind = module_of(self.node)
        if not name:
            return f"the result of `{self.operation}`"
        own = kind.startswith("torch.nn.modules") and ".container" not in kind
        return f"the output of `{name}`" if own else f"the result of `{self.operation}` in `{name}`"

    # Demanding

    def require(self, left: Form, right: Form, what: str, like: str) -> None:
        """Write down that two log-scales are equal; one that holds for all factors is left out."""
        self._demand(self.equation(left, right, what, like))

    def equation(self, left: Form, right: Form, what: str, like: str) -> Equation:
        """Two log-scales that may have to be equal, and why."""
        return Equation(left, right, what, like, place_of(self.node))

    def settled(self, value: Value, keep: Callable[[Offset], bool] = lambda _: False) -> Value:
        """The value after demanding that its constants scale as it does, all but those that `keep` lets pass."""
        kept = tuple(offset for offset in value.offsets if keep(offset))
        for offset in value.offsets:
            if offset not in kept:
                self._demand(offset.equation)
        return value.replaced(offsets=kept)

    def dropped(self, value: Value, gone: Callable[[Offset], bool]) -> Value:
        """The value after demanding all of its constants but those that this operation takes out."""
        self.walk.removed += [offset.equation for offset in value.offsets if gone(offset)]
        return self.settled(value.replaced(offsets=tuple(o for o in value.offsets if not gone(o))))

    def uniform(self, value: Value, dims: Iterable[int] | None = None) -> Value:
        """The value with one scale: parts that were concatenated (along one of `dims`) have to scale alike."""
        if value.dim is None or (dims is not None and value.dim not in dims):
            return value
        scales = [scale for _, scale in value.pieces if scale is not None]
        for other in scales[1:]:
            self.require(other, scales[0], f"a part of {value.text}", "its first part, which it is used with")
        return value.replaced(pieces=((0, scales[0] if scales else None),), dim=None)

    def scale(self, value: Value) -> Form:
        """The log-scale of a value that has to have one and carry no constants."""
        found = self.uniform(self.settled(value)).pieces[0][1]
        return Form() if found is None else found

    def demand_fixed(self, value: Value) -> None:
        """Demand that the value keeps its scale, as an operation must have it that is not homogeneous."""
        for _, scale in self.settled(value).pieces:
            if scale:
                self.require(scale, Form(), value.text, f"1, for `{self.operation}` is not homogeneous")

    def _demand(self, equation: Equation) -> None:
        if equation.form:
            self.walk.equations.append(equation)

    # Answering

    def result(self, scale: Form, sources: frozenset[str] = frozenset()) -> Value:
        """A result of one log-scale and no constants."""
        return Value.whole(self.shape, scale, self.text, sources)


def constant(number: object) -> Value:
    """A number or a tensor that no factor reaches."""
    shape = tuple(number.shape) if isinstance(number, Tensor) else ()
    scale = None if isinstance(number, int | float) and number == 0 else Form()
    text = f"the constant {number}" if isinstance(number, int | float) else "a constant"
    return Value.whole(shape, scale, text)


def operation_of(node: Node) -> str:
    """`aten::relu` for a node that calls any overload of it, or its in-place variant."""
    target = node.target
    name = (
        target._schema.name if isinstance(target, torch._ops.OpOverload) else getattr(target, "__name__", str(target))
    )
    return name.removesuffix("_") if "::" in name and not name.endswith("__") else name
