"""Units as code: a linear layer or convolution with its norm and its activation, fitted to where it stands."""

from __future__ import annotations

from dataclasses import dataclass

from mli_check.strategies.layouts import FORMS, Unit
from mli_check.strategies.sketch import Shape, Sketch

_ACTIVATIONS = {  # in the order of FORMS
    "relu": ("F.relu({y})", "nn.ReLU()", "nn.ReLU(inplace=True)"),
    "leaky_relu": ("F.leaky_relu({y}, 0.2)", "nn.LeakyReLU(0.2)", "nn.LeakyReLU(0.2, inplace=True)"),
    "abs": ("torch.abs({y})", "", ""),
}


@dataclass(frozen=True)
class Written:
    """A unit whose layers are in a sketch: templates of its steps, its linear maps' names, and its output's shape.

    The first step reads `{x}`; all others read what the step before has set, `{y}`. `last` holds the steps of an
    activation that ends the unit and keeps the shape, so that it can come later than the unit.
    """

    steps: tuple[str, ...]
    last: tuple[str, ...]
    maps: tuple[str, ...]
    shape: Shape


def write_unit(sketch: Sketch, unit: Unit, shape: Shape, stem: str = "") -> Written:
    """Adds the unit's layers for inputs of `shape`. `stem` names its linear map, if not `conv` or `fc`."""
    if unit.activation == "maxout":
        return _write_maxout(sketch, unit, shape, stem)
    # without a norm, an activation in place would overwrite the unit's input; few channels leave it little to vary
    if unit.first and unit.norm is not None and shape[0] >= 4:
        norm = _norm(sketch, unit, shape)
        activation = _activation(sketch, unit, shape[0])
        name, shape = _map(sketch, unit, shape, unit.width, stem)
        return Written((f"{{y}} = {norm}({{x}})", *activation, f"{{y}} = {name}({{y}})"), (), (name,), shape)
    name, shape = _map(sketch, unit, shape, unit.width, stem)
    norm = _norm(sketch, unit, shape)
    normalise = (f"{{y}} = {norm}({{y}})",) if norm else ()
    return Written((f"{{y}} = {name}({{x}})", *normalise), _activation(sketch, unit, shape[0]), (name,), shape)


def _write_maxout(sketch: Sketch, unit: Unit, shape: Shape, stem: str) -> Written:
    """The larger of two numbers, which two maps give or the halves of one map's channels."""
    sketch.traits.add("maxout")
    if unit.form == "function":
        maps, values = [], []
        for _ in range(2):
            name, after = _map(sketch, unit, shape, unit.width, stem)
            norm = _norm(sketch, unit, after)
            maps.append(name)
            values.append(f"{norm}({name}({{x}}))" if norm else f"{name}({{x}})")
        return Written((f"{{y}} = torch.maximum({', '.join(values)})",), (), tuple(maps), after)
    name, double = _map(sketch, unit, shape, 2 * unit.width, stem)
    norm = _norm(sketch, unit, double)
    halve = "{y} = torch.maximum(*{y}.chunk(2, dim=1))"
    if unit.form == "module":
        halve = f"{{y}} = {{y}}.unflatten(1, (2, {unit.width})).max(dim=1).values"
    normalise = (f"{{y}} = {norm}({{y}})",) if norm else ()
    return Written((f"{{y}} = {name}({{x}})", *normalise, halve), (), (name,), (unit.width, *double[1:]))


def _map(sketch: Sketch, unit: Unit, shape: Shape, width: int, stem: str) -> tuple[str, Shape]:
    """The linear layer or convolution to so many channels, and its output's shape: at least 2 x 2 pixels."""
    sketch.traits |= {"bias"} if unit.biased else set()
    bias = "" if unit.biased else ", bias=False"
    channels, sides = shape[0], shape[1:]
    if not sides:
        return sketch.layer(stem or "fc", f"nn.Linear({channels}, {width}{bias})"), (width,)
    groups = 1
    if unit.groups == "all" and width % channels == 0:
        groups = channels
    elif unit.groups != "one" and channels % 2 == width % 2 == 0:
        groups = 2
    kernel = 3 if 1 < groups == channels else unit.kernel  # depthwise, 1 x 1 would keep every channel's sign
    padding = 1 if kernel == 3 and (unit.padded or min(sides) < 4) else 0
    sides = tuple(side + 2 * padding - kernel + 1 for side in sides)
    stride = 2 if unit.strided and min(sides) > 2 else 1
    options = {"stride": (stride, 1), "padding": (padding, 0), "groups": (groups, 1)}
    words = "".join(f", {option}={value}" for option, (value, default) in options.items() if value != default)
    sketch.traits |= {option for option in ("stride", "padding") if f"{option}=" in words}
    sketch.traits |= {"depthwise" if groups == channels else "grouped"} if groups > 1 else set()
    convolution = f"nn.Conv2d({channels}, {width}, {kernel}{words}{bias})"
    return sketch.layer(stem or "conv", convolution), (width, *((side - 1) // stride + 1 for side in sides))


def _norm(sketch: Sketch, unit: Unit, shape: Shape) -> str:
    """The norm over values of `shape`, or an empty word for none."""
    if unit.norm is None:
        return ""
    channels, sides = shape[0], shape[1:]
    shifted = unit.shifted and unit.weighted
    sketch.traits |= {unit.norm} | ({"shift"} if shifted else set())
    if unit.norm == "layer":
        bias = ", elementwise_affine=False" if not unit.weighted else "" if shifted else ", bias=False"
        return sketch.layer("norm", f"nn.LayerNorm({list(shape)}{bias})")
    affine = "" if unit.weighted else ", affine=False"
    if unit.norm == "batch":
        name = sketch.layer("norm", f"nn.BatchNorm{2 if sides else 1}d({channels}{affine})")
    else:  # never fewer than 4 numbers in a group, nor one channel, whose mean over pixels would be constant
        halves = channels % 2 == 0 and channels >= (4 if sides else 8)
        name = sketch.layer("norm", f"nn.GroupNorm({2 if halves else 1}, {channels}{affine})")
    if unit.weighted and not shifted:
        sketch.layers.append(f"{name}.bias = None")
    return name


def _activation(sketch: Sketch, unit: Unit, channels: int) -> tuple[str, ...]:
    """Its step, if the unit has an activation other than maxout."""
    if unit.activation is None:
        return ()
    sketch.traits.add(unit.activation)
    if unit.activation == "prelu":
        module = "nn.PReLU()" if unit.form == "function" else f"nn.PReLU({channels})"
    else:
        module = _ACTIVATIONS[unit.activation][FORMS.index(unit.form)]
    if not module.startswith("nn."):
        return (f"{{y}} = {module or _ACTIVATIONS[unit.activation][0]}",)
    return (f"{{y}} = {sketch.layer(unit.activation, module)}({{y}})",)
