"""A sketch: a network's code while it is being written, with the shape that its variable `x` has by then."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

Shape = tuple[int, ...]


@dataclass
class Sketch:
    """The lines of `__init__` and of `forward`, and the shape of `x` after them: (channels, height, width) or (n,)."""

    shape: Shape
    layers: list[str] = field(default_factory=list)
    steps: list[str] = field(default_factory=list)
    traits: set[str] = field(default_factory=set)
    _numbers: Counter[str] = field(default_factory=Counter)

    def layer(self, stem: str, constructor: str) -> str:
        """Adds a layer, named by the stem and a number, and returns the code that refers to it."""
        self._numbers[stem] += 1
        name = f"self.{stem}{self._numbers[stem]}"
        self.layers.append(f"{name} = {constructor}")
        return name

    def step(self, *templates: str, x: str = "x", y: str = "x") -> None:
        """Adds steps from the variable `x` to `y`: templates hold `{x}` and `{y}` in their place."""
        self.steps += [template.format(x=x, y=y) for template in templates]

    def definition(self, shape: Shape) -> str:
        """The code that defines `class Model` for inputs of `shape`."""
        functional = "from torch.nn import functional as F\n" if any("F." in step for step in self.steps) else ""
        return _DEFINITION.format(
            functional=functional,
            layers="".join(f"        {layer}\n" for layer in self.layers),
            shape=", ".join(map(str, shape)),
            steps="".join(f"        {step}\n" for step in self.steps),
        )


_DEFINITION = """\
import torch
from torch import nn
{functional}
from mli_check.strategies import fill


class Model(nn.Module):
    def __init__(self):
        super().__init__()
{layers}
    def forward(self, x):  # (batch, {shape})
{steps}        return x
"""
