"""`mli-check symmetries`: the scale symmetries of a network, and what alpha*theta violates."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mli_check.errors import UnknownNameError

if TYPE_CHECKING:
    from fractions import Fraction

    from mli_check.symmetry import Symmetries


def symmetries(
    model: Annotated[str, typer.Option("--model", metavar="MODULE:FACTORY", help="What makes the network.")],
    inputs: Annotated[
        list[str], typer.Option("--input", metavar="SHAPE", help="An input's shape, 2,3,64,64 or 2,16:int; repeatable.")
    ],
    mode: Annotated[str, typer.Option(help="train or eval (default: as the network comes).")] = "",
    output: Annotated[str, typer.Option(help="fixed, or free: up to a positive factor.")] = "fixed",
    basis: Annotated[bool, typer.Option("--basis/--no-basis", help="Print the basis.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Find all per-tensor scale symmetries of a network, and what alpha*theta violates."""
    from mli_check.factories import example_inputs, load_model
    from mli_check.symmetry import scale_symmetries

    for option, given, known in (("--mode", mode, ("train", "eval", "")), ("--output", output, ("fixed", "free"))):
        if given not in known:
            raise UnknownNameError(option, given, filter(None, known))
    network = load_model(model)
    if mode:
        network.train(mode == "train")
    found = scale_symmetries(network, example_inputs(inputs), output=output)  # type: ignore[arg-type]
    about = {"model": model, "mode": "train" if network.training else "eval", "input": inputs}
    if as_json:
        print(json.dumps(about | _record(found), indent=1))
    else:
        _print(about, found, basis=basis)


def _record(found: Symmetries) -> dict[str, Any]:
    half = dict.fromkeys(found.tensors, 0.5)
    return {
        "output": found.output,
        "dimension": found.dimension,
        "dimension_free": found.free.dimension,
        "tensors": list(found.tensors),
        "tied": dict(found.aliases),
        "equations": [str(equation) for equation in found.equations],
        "removed": [str(equation) for equation in found.removed],
        "basis": [{name: str(k) for name, k in vector.items()} for vector in found.basis],
        "alpha_theta_violates": [
            {"text": str(one), "what": one.equation.what, "wanted": one.wanted, "got": one.got}
            for one in found.violations(half)
        ],
        "notes": list(found.notes),
    }


def _print(about: Mapping[str, Any], found: Symmetries, *, basis: bool) -> None:
    print(f"{about['model']}, {about['mode']} mode, input {' and '.join(about['input'])}")
    print(f"tensors     {len(found.tensors)}" + (f" (and {len(found.aliases)} tied to them)" if found.aliases else ""))
    print(f"equations   {len(found.equations)}, {len(found.independent)} of them independent")
    print(f"dimension   {found.dimension} with the output {found.output}, {found.free.dimension} with the output free")
    for note in found.notes:
        print(f"note        {note}")
    if basis:
        print("\nbasis: every line is a symmetry, for any a > 0")
        for vector in found.basis:
            print("  " + "  ".join(f"{name}*{_power(k)}" for name, k in vector.items()))
    broken = found.violations(dict.fromkeys(found.tensors, 0.5))
    print(f"\nalpha*theta violates {len(broken)} equation{'' if len(broken) == 1 else 's'} (at alpha = 1/2)")
    for one in broken:
        print(f"  {one}")


def _power(exponent: Fraction) -> str:
    return "a" if exponent == 1 else f"a^{exponent}"
