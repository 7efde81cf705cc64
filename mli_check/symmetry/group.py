"""The group of all per-tensor scale symmetries of a network: the null space of its equations (claim X6)."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from numbers import Real
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

import mli_check.symmetry.rules  # noqa: F401 - fills the table of rules
from mli_check.errors import OptionError, StateMismatchError, SymmetryError, UnknownNameError
from mli_check.states import State
from mli_check.symmetry.algebra import TOLERANCE, Solution, Vector, independent, null_space, solve, whole
from mli_check.symmetry.call import Layer, Normalisation, Walk
from mli_check.symmetry.constraints import walk
from mli_check.symmetry.forms import Equation, Form, Violation
from mli_check.symmetry.trace import Example, Program, trace
from mli_check.symmetry.values import Value

Factors = dict[str, float]


@dataclass(frozen=True)
class Symmetries:
    """All ways to multiply each tensor of a network by a positive factor without changing what it computes.

    `tensors`: the parameters, and in eval mode the running statistics that normalisations read, by name; tied ones
    once, their other names in `aliases`. `constraints`: the equations between their log-scales, each with its reason.
    `outputs`: the log-scale of every output. With `output="fixed"` outputs stay as they are, with `"free"` each of them
    may be multiplied by a positive factor. `removed`: equations that do not hold in general, because a later operation
    takes the constant out that they speak of, such as a bias before batch statistics. `notes`: what to know beside.

    The symmetries are those of a network in exact arithmetic whose normalisations have eta = 0, for weights in general
    position and inputs of the example's shape. Running statistics stay those of what they normalise.
    """

    tensors: tuple[str, ...]
    constraints: tuple[Equation, ...]
    outputs: Mapping[str, Form]
    removed: tuple[Equation, ...]
    aliases: Mapping[str, str]
    shapes: Mapping[str, tuple[int, ...]]
    layers: tuple[Layer, ...]
    normalisations: tuple[Normalisation, ...]
    last: frozenset[str]  # the weights that scaled the outputs last
    roots: tuple[Form, ...] = ()  # log-scales of powers, which have to be whole for powers of two to change no bit
    notes: tuple[str, ...] = ()
    output: Literal["fixed", "free"] = "fixed"

    # The group

    @cached_property
    def equations(self) -> tuple[Equation, ...]:
        """The constraints and, with `output="fixed"`, one equation an output."""
        if self.output == "free":
            return self.constraints
        kept = [Equation(form, Form(), name, "1, to stay what it is") for name, form in self.outputs.items() if form]
        return (*self.constraints, *kept)

    @cached_property
    def basis(self) -> tuple[Vector, ...]:
        """Independent elements {tensor: exponent}, in whole numbers: factors are a**exponent for any a > 0."""
        return tuple(whole(vector, self.roots) for vector in null_space(self.equations, self._order))

    @property
    def dimension(self) -> int:
        """How many independent symmetries there are."""
        return len(self.basis)

    @cached_property
    def independent(self) -> tuple[Equation, ...]:
        """Equations that say everything, none of which follows from the others."""
        return tuple(independent(self.equations))

    @property
    def free(self) -> Symmetries:
        """The larger group under which each output may be multiplied by a positive factor (Tao et al. 2024, Eq. 10)."""
        return self if self.output == "free" else replace(self, output="free")

    @property
    def fixed(self) -> Symmetries:
        """The group under which the outputs stay what they are."""
        return self if self.output == "fixed" else replace(self, output="fixed")

    @cached_property
    def exact(self) -> Symmetries:
        """The subgroup of which powers of two change no bit: constants that are taken out later scale along too.

        Without that, the sum of a value and such a constant is rounded differently before the constant is gone.
        """
        return replace(self, constraints=(*self.constraints, *self.removed), removed=())

    # Elements

    def sample(self, seed: int = 0, *, dyadic: bool = True, spread: int = 3) -> Factors:
        """A random element: a positive factor for every tensor.

        With `dyadic` all factors are powers of two. Each free tensor's exponent is drawn up to `spread` either way; the
        others follow. Raises OptionError unless `spread` is at least 1.
        """
        if not isinstance(spread, int) or isinstance(spread, bool) or spread < 1:
            raise OptionError(f"`spread` must be a whole number of at least 1, got spread={spread!r}")
        draw = np.random.default_rng(seed)
        sizes = draw.integers(1, spread + 1, self.dimension) if dyadic else draw.uniform(0.1, spread, self.dimension)
        signs = draw.choice([-1, 1], self.dimension)
        return self.element([float(size * sign) for size, sign in zip(sizes, signs, strict=True)])

    def element(self, coordinates: Sequence[float]) -> Factors:
        """The element with these coordinates in `basis`: factors 2**(their combination of exponents)."""
        if len(coordinates) != self.dimension:
            raise OptionError(f"an element has {self.dimension} coordinates, got {len(coordinates)}")
        logs = dict.fromkeys(self.tensors, 0.0)
        for size, vector in zip(coordinates, self.basis, strict=True):
            for name, k in vector.items():
                logs[name] += size * float(k)
        return {name: 2.0**log for name, log in logs.items()}

    def apply(self, state: State, factors: Mapping[str, float]) -> dict[str, Tensor]:
        """The state with its tensors multiplied by `factors` (1 where not named); new tensors, the same dtypes.

        Tied tensors are scaled under all their names. The factors need not be a symmetry: see `violations`. Raises
        UnknownNameError and OptionError for bad factors, StateMismatchError for a state that is not of this network,
        OptionError where a product leaves the range of its dtype.
        """
        given = self.factors(factors)
        self.check(state)
        scaled = {}
        for name, tensor in state.items():
            factor = given.get(self.aliases.get(name, name), 1.0)
            scaled[name] = tensor.detach().clone() if factor == 1.0 else tensor.detach() * factor
            if factor != 1.0 and _left_range(tensor, scaled[name]):
                raise OptionError(
                    f"`{name}` times {factor:g} leaves the range of {tensor.dtype}; take a factor nearer to 1"
                )
        return scaled

    def factors(self, factors: Mapping[str, float]) -> Factors:
        """The factors by each tensor's first name, checked: known names, positive finite numbers."""
        given: Factors = {}
        for name, factor in factors.items():
            first = self.aliases.get(name, name)
            if first not in self.shapes or first not in self._names:
                raise UnknownNameError("tensor of this network", str(name), (*self.tensors, *self.aliases))
            real = isinstance(factor, Real) and not isinstance(factor, bool)
            if not real or not 0 < factor <= sys.float_info.max:
                raise OptionError(f"the factor of `{name}` must be a positive, finite number, got {factor!r}")
            if given.setdefault(first, float(factor)) != factor:
                raise OptionError(f"`{name}` and `{first}` are one tied tensor: {factor!r} and {given[first]!r} differ")
        return given

    def logs(self, factors: Mapping[str, float]) -> dict[str, float]:
        """Base-2 logarithms of checked factors: whole numbers, and exact, for powers of two."""
        return {name: math.log2(factor) for name, factor in self.factors(factors).items()}

    def violations(self, factors: Mapping[str, float]) -> list[Violation]:
        """The equations that these factors break, with what was wanted and what was got; empty for a symmetry."""
        logs = self.logs(factors)
        alike = len({logs.get(name, 0.0) for name in self.tensors}) == 1
        found = []
        for equation in self.equations:
            got, wanted = equation.left.at(logs), equation.right.at(logs)
            if abs(got - wanted) > TOLERANCE * max(1.0, abs(got), abs(wanted)):
                by = "alpha*theta" if alike else "these factors"
                found.append(Violation(equation, wanted=2.0**wanted, got=2.0**got, by=by))
        return found

    def complete(self, partial: Mapping[str, float]) -> Factors:
        """An element with the given factors; of the other tensors it leaves at 1 what the equations leave free.

        Biases and shifts adapt first, then weights, the network's last ones before its first. Raises SymmetryError with
        the equations that contradict one another where there is none.
        """
        given = self.factors(partial)
        solved = self.solved(given, [name for name in self._order if name not in given])
        return {name: 2.0 ** solved[name] for name in self.tensors}

    def solved(
        self, given: Mapping[str, float], unknown: Sequence[str], more: Sequence[Equation] = ()
    ) -> dict[str, float]:
        """Base-2 logs of all tensors: `given` factors, `unknown` ones as the equations and `more` want them, else 0."""
        known = {name: math.log2(factor) for name, factor in given.items()}
        first = solve([*self.exact.equations, *more], known, unknown)
        found: Solution = first if not first.contradictions else solve([*self.equations, *more], known, unknown)
        if found.contradictions:
            listed = "\n  ".join(map(str, found.contradictions))
            raise SymmetryError(
                f"no symmetry has these factors; these equations contradict one another:\n  {listed}",
                found.contradictions,
            )
        return dict.fromkeys(self.tensors, 0.0) | found.logs

    def reach(self, factors: Mapping[str, float]) -> float:
        """The largest |log2| of what the factors multiply a tensor or a layer's result by: how far exponents move."""
        logs = self.logs(factors)
        inside = [form.at(logs) for layer in self.layers for form in layer.after]
        return max(map(abs, (*logs.values(), *inside)), default=0.0)

    def output_factor(self, factors: Mapping[str, float], output: str | None = None) -> float:
        """What the factors multiply the output by; with several outputs name one of `outputs`."""
        if output is None and len(self.outputs) != 1:
            raise OptionError(f"the network has {len(self.outputs)} outputs, name one: {', '.join(self.outputs)}")
        name = next(iter(self.outputs)) if output is None else output
        if name not in self.outputs:
            raise UnknownNameError("output", name, self.outputs)
        return float(2.0 ** self.outputs[name].at(self.logs(factors)))

    def eta_factors(self, factors: Mapping[str, float]) -> Factors:
        """What eta has to be multiplied by in every normalisation, by module, to make the symmetry exact with eta > 0.

        The square of what the factors multiply the normalisation's input by (Tao et al. 2024, Eq. 18). Raises
        SymmetryError for a module that would need several.
        """
        logs = self.logs(factors)
        found: Factors = {}
        for one in self.normalisations:
            scales = {scale.at(logs) for scale in one.scales}
            wanted = {2.0 ** (2 * scale) for scale in scales} | ({found[one.module]} if one.module in found else set())
            if len(wanted) > 1:
                raise SymmetryError(f"parts of what `{one.module}` normalises scale apart, one eta cannot follow them")
            found[one.module] = wanted.pop()
        return found

    # Names

    @cached_property
    def _names(self) -> frozenset[str]:
        return frozenset(self.tensors)

    @cached_property
    def weights(self) -> tuple[str, ...]:
        """The tensors that multiply: weights of layers and of normalisations, in the order in which they are used."""
        return tuple(dict.fromkeys(layer.weight for layer in self.layers if layer.weight in self._names))

    @cached_property
    def _order(self) -> list[str]:
        """What adapts first: biases and the like, then the weights from the last one back to the first."""
        return [*(name for name in self.tensors if name not in self.weights), *reversed(self.weights)]

    def check(self, state: State) -> None:
        """Raise StateMismatchError, listing all differences, for a state that is not of this network."""
        scaled = [name for name in self.shapes if self.aliases.get(name, name) in self._names]
        lines = [f"`{name}` is missing" for name in scaled if name not in state]
        for name, tensor in state.items():
            if name not in self.shapes:
                lines.append(f"`{name}` is not of this network")
            elif tuple(tensor.shape) != self.shapes[name]:
                lines.append(f"`{name}` has shape {tuple(tensor.shape)}, expected {self.shapes[name]}")
        if lines:
            listed = "\n  ".join(lines)
            raise StateMismatchError(
                f"the state does not fit the network whose symmetries these are:\n  {listed}\n"
                "Pass a state of the same architecture, in the mode (train or eval) that was traced."
            )

    def __str__(self) -> str:
        return (
            f"{self.dimension} scale symmetries of {len(self.tensors)} tensors, {len(self.equations)} equations, "
            f"output {self.output}"
        )


def scale_symmetries(model: nn.Module, example: Example, *, output: Literal["fixed", "free"] = "fixed") -> Symmetries:
    """All per-tensor scale symmetries of a network, in its present train or eval mode.

    `example` is an input: a tensor, a tuple of arguments, or a dict of them; only its shapes and dtypes matter, and a
    batch of at least two examples is wanted. The model is not changed. Raises TraceError where the model cannot be
    traced, UnknownOperationError for an operation without a rule (see `register_rule`), OptionError for a model without
    floating-point parameters.
    """
    if output not in ("fixed", "free"):
        raise UnknownNameError("output", str(output), ("fixed", "free"))
    program = trace(model, example)
    found, outputs = walk(program)
    read = _read_statistics(found, outputs, program)
    return Symmetries(
        tensors=(*program.parameters, *read),
        constraints=_distinct(found.equations),
        outputs={name: value.pieces[0][1] or Form() for name, value in outputs.items()},
        removed=_distinct(found.removed),
        aliases=program.aliases,
        shapes=program.shapes,
        layers=tuple(found.layers),
        normalisations=tuple(found.normalisations),
        roots=tuple(dict.fromkeys(found.roots)),
        last=frozenset().union(*(value.sources for value in outputs.values())),
        notes=tuple(found.notes),
        output=output,
    )


def _left_range(tensor: Tensor, scaled: Tensor) -> bool:
    """Whether numbers have become infinite or zero that were neither."""
    over = torch.isfinite(tensor).all() and not torch.isfinite(scaled).all()
    return bool(over or ((scaled == 0) & (tensor != 0)).any())


def _read_statistics(found: Walk, outputs: Mapping[str, Value], program: Program) -> list[str]:
    """The running statistics among the variables, in the state's order."""
    named = {name for equation in (*found.equations, *found.removed) for name in equation.form.terms}
    return [name for name in program.shapes if name in named and name not in program.parameters]


def _distinct(equations: Sequence[Equation]) -> tuple[Equation, ...]:
    """Each equation once; of several that say the same the first one met."""
    kept: dict[Form, Equation] = {}
    for equation in equations:
        if equation.form and equation.form * -1 not in kept:
            kept.setdefault(equation.form, equation)
    return tuple(kept.values())
