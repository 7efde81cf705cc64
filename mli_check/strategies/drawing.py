"""The strategies themselves: `networks` and `inputs_for`."""

from __future__ import annotations

from collections.abc import Collection
from typing import TypeVar

import torch
from hypothesis import reject
from hypothesis import strategies as st
from torch import Tensor

from mli_check.errors import OptionError, UnknownNameError
from mli_check.strategies.filling import fill
from mli_check.strategies.generic import is_generic
from mli_check.strategies.layouts import DTYPES, HOMOGENEOUS, NORMS, Options, layouts
from mli_check.strategies.network import Network, run
from mli_check.strategies.writing import write

Value = TypeVar("Value")

_FEWEST = 5  # examples: batch norm of two or three numbers is degenerate
_EXAMPLES = 8  # to look at
_TRIES = 8  # seeds for the weights of one layout


def networks(
    *,
    dtypes: Collection[torch.dtype] = (torch.float32,),
    norms: Collection[str | None] = ("batch", "layer", "group", None),
    biases: Collection[bool] = (True, False),
    skips: bool = True,
    concatenations: bool = True,
    tied: bool = True,
    activations: Collection[str | None] = HOMOGENEOUS,
    max_blocks: int = 5,
) -> st.SearchStrategy[Network]:
    """Random networks of up to `max_blocks` blocks, and mostly a linear layer that gives logits (batch, classes).

    They take images (batch, channels, height, width) or vectors (batch, features). A block is a linear layer or a
    convolution (plain, grouped or depthwise; padded, strided or not) with a norm, an activation and a pooling, or a
    skip, a concatenation, a layer called twice or two that share a weight, a flattening. `skips`, `concatenations` and
    `tied` switch those blocks off; `norms`, `activations` and `dtypes` say which may occur, None for a layer without.

    `biases` says whether layers have them, and goes for the shifts of norms as well: with `(False,)` a norm has
    weights alone (`bias=False` of LayerNorm, `norm.bias = None` otherwise) or no parameters, with `(True,)` weights
    and shifts always. With both, a third of the networks has none, a third has all, and a third mixes.

    Every drawn network is generic: all values vary between examples, no activation is linear on all of them, no
    norm divides by a deviation of fewer than 4 numbers. Values are of the order of 1 in training and eval mode. It
    shrinks to few, plain blocks. Raises OptionError for an option that cannot be used, UnknownNameError for a name.
    """
    options = Options(
        dtypes=_among("dtypes", dtypes, DTYPES),
        norms=_among("norms", norms, NORMS),
        biases=_among("biases", biases, (False, True)),
        activations=_among("activations", activations, HOMOGENEOUS),
        skips=_switch("skips", skips),
        concatenations=_switch("concatenations", concatenations),
        tied=_switch("tied", tied),
        max_blocks=_at_least("max_blocks", max_blocks, 1),
    )
    return generic_networks(options)


def inputs_for(network: Network, *, batch: int = 6) -> st.SearchStrategy[Tensor]:
    """Standard normal inputs (batch, *network.shape) of the network's dtype, printed as the call that makes them.

    Raises OptionError for fewer than 5 examples, which batch norm in training mode makes degenerate.
    """
    shape = (_at_least("batch", batch, _FEWEST), *network.shape)
    return st.builds(normal, st.just(shape), st.just(network.dtype), seed=st.integers(0, 2**16))


def normal(shape: tuple[int, ...], dtype: torch.dtype, seed: int) -> Tensor:
    """Standard normal numbers that follow from the seed."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float32).to(dtype)


@st.composite
def generic_networks(draw: st.DrawFn, options: Options) -> Network:
    """The networks of drawn layouts, each with the first weights from the layout's seed on that are generic."""
    layout = draw(layouts(options))
    definition, traits = write(layout)
    example = normal((_EXAMPLES, *layout.shape), layout.dtype, 0)
    for seed in range(layout.seed, layout.seed + _TRIES):
        source = f"{definition}\n\nmodel = fill(Model(), seed={seed}).to({layout.dtype})\n"
        model = run(source)
        if is_generic(model, example):
            break
    else:
        reject()
    fill(model, seed)  # once more, for the running statistics that have moved
    return Network(model, shape=layout.shape, dtype=layout.dtype, traits=traits, source=source)


def _among(option: str, got: Collection[Value], known: tuple[Value, ...]) -> tuple[Value, ...]:
    """What was got, in the order of `known`."""
    if isinstance(got, str) or not isinstance(got, Collection) or not got:
        raise OptionError(f"`{option}` must be a tuple of some of {known}, got {option}={got!r}")
    for value in got:
        if value not in known:
            raise UnknownNameError(f"value in `{option}`", str(value), map(str, known))
    return tuple(value for value in known if value in got)


def _switch(option: str, got: bool) -> bool:
    if not isinstance(got, bool):
        raise OptionError(f"`{option}` must be True or False, got {option}={got!r}")
    return got


def _at_least(option: str, got: int, least: int) -> int:
    if not isinstance(got, int) or isinstance(got, bool) or got < least:
        raise OptionError(f"`{option}` must be a whole number of at least {least}, got {option}={got!r}")
    return got
