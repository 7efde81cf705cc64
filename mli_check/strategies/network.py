"""Network: a module together with the plain PyTorch code that it was built from."""

from __future__ import annotations

import linecache
import weakref
from hashlib import sha256
from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from hypothesis.vendor.pretty import RepresentationPrinter


class Network:
    """A drawn network. Its repr is its source, which makes the very same `model` wherever it is run.

    model: in training mode, as torch's constructors leave it, its statistics untouched by any forward pass
    shape: one input's, without the batch: (channels, height, width) or (features,)
    dtype: of the parameters and of the inputs
    traits: some of image, vector; skip, projection, concatenation, tied; batch, layer, group (norms); bias (of a linear
        layer or convolution), shift (of a norm); depthwise, grouped, padding, stride, pooling; the activations' names
    source: imports, `class Model(nn.Module)`, and `model = fill(Model(), seed=...).to(...)`
    """

    def __init__(
        self, model: nn.Module, *, shape: tuple[int, ...], dtype: torch.dtype, traits: frozenset[str], source: str
    ) -> None:
        self.model, self.shape, self.dtype, self.traits, self.source = model, shape, dtype, traits, source

    def __repr__(self) -> str:
        return self.source

    def _repr_pretty_(self, printer: RepresentationPrinter, cycle: bool) -> None:
        """How hypothesis prints it: on lines of its own, or the comma after an argument would join the last one."""
        printer.text(f"\n\n{self.source}\n")


def run(source: str) -> nn.Module:
    """The `model` that the source makes. Torch's global generator is left as it was; tracebacks show the lines."""
    filename = f"<network {sha256(source.encode()).hexdigest()[:12]}>"
    code = compile(source, filename, "exec")
    namespace: dict[str, object] = {"__name__": "drawn_network"}
    with torch.random.fork_rng(devices=[]):
        exec(code, namespace)
    model = namespace["model"]
    assert isinstance(model, nn.Module)
    _show_in_tracebacks(model, filename, source)
    return model


def _show_in_tracebacks(model: nn.Module, filename: str, source: str) -> None:
    """Gives linecache the lines for as long as the model lives. The name follows from the source: hypothesis tells
    failures apart by file and line, and a network that it draws again must fail in the same place.
    """
    entry = (len(source), None, source.splitlines(keepends=True), filename)
    linecache.cache[filename] = entry
    weakref.finalize(model, _forget, filename, entry)


def _forget(filename: str, entry: object) -> None:
    if linecache.cache.get(filename) is entry:
        del linecache.cache[filename]
