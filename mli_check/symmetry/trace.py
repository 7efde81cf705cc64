"""From a network to its graph of operations: torch.export's raw graph, with names that its author would know.

The raw graph keeps batch_norm, layer_norm and attention whole. It is taken as it is: nothing is decomposed or run.
"""

from __future__ import annotations

import copy
import io
import logging
import random
import sysconfig
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn
from torch.export.graph_signature import InputKind
from torch.fx import Node

from mli_check.errors import OptionError, TraceError

Example: TypeAlias = Tensor | Sequence[Any] | Mapping[str, Any]


@dataclass(frozen=True)
class Program:
    """A traced network: its operations in order, and what each placeholder of the graph stands for."""

    nodes: tuple[Node, ...]
    tensors: Mapping[str, str]  # placeholder -> the parameter's or buffer's name, one name for tied ones
    parameters: tuple[str, ...]  # in the order of the state, tied ones once
    aliases: Mapping[str, str]  # every other name of a tied tensor -> its first name
    shapes: Mapping[str, tuple[int, ...]]
    outputs: tuple[tuple[str, Node], ...]


def trace(model: nn.Module, example: Example) -> Program:
    """Trace `model` in its own train or eval mode on an example input: a tensor, a tuple of arguments or a dict.

    The model, its buffers and the random number generators are left as they are. Raises OptionError for a model without
    parameters, with parameters that are not floating-point or not yet initialised, TraceError where the forward pass
    cannot be traced; the message quotes the line.
    """
    aliases, shapes = _tensors(model)
    args, kwargs = _arguments(example)
    with _quietly_and_whole(), _generators_kept(), torch.no_grad():
        try:
            exported = torch.export.export(_private(model), args, kwargs, strict=False)
        except Exception as error:
            raise TraceError(_explained(error)) from error
    _check_shapes(exported.graph.nodes)
    signature = exported.graph_signature
    names = {
        spec.arg.name: aliases.get(str(spec.target), str(spec.target))
        for spec in signature.input_specs
        if spec.kind in (InputKind.PARAMETER, InputKind.BUFFER)
    }
    graph = exported.graph
    return Program(
        nodes=tuple(graph.nodes),
        tensors=names,
        parameters=tuple(name for name, _ in model.named_parameters() if name not in aliases),
        aliases=aliases,
        shapes=shapes,
        outputs=_outputs(exported),
    )


def _private(model: nn.Module) -> nn.Module:
    """A copy around the same tensors: what a forward pass keeps in the modules it keeps there."""
    tensors = [*model.parameters(), *model.buffers()]
    try:
        return copy.deepcopy(model, {id(tensor): tensor for tensor in tensors})
    except Exception:  # a module may hold what cannot be copied, such as a lock or a generator
        return model


@contextmanager
def _generators_kept() -> Iterator[None]:
    """Python's, numpy's and torch's random numbers go on afterwards as if nothing had been drawn."""
    before, numbers = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        try:
            yield
        finally:
            random.setstate(before)
            np.random.set_state(numbers)


def _check_shapes(nodes: Iterable[Node]) -> None:
    """Raise TraceError where a shape depends on the data, quoting the line."""
    for node in nodes:
        made = node.meta.get("val")
        sizes = made.shape if isinstance(made, Tensor) else [made]
        if any(isinstance(size, torch.SymInt | torch.SymBool | torch.SymFloat) for size in sizes):
            raise TraceError(
                f"the network cannot be traced at {source_of(node)}\n"
                f"  `{node.target}` makes something whose size depends on the data\n{_BRANCHES}"
            )


def _tensors(model: nn.Module) -> tuple[dict[str, str], dict[str, tuple[int, ...]]]:
    """Names of tied tensors, and the shapes of all. Two parameters that start at the same memory are tied."""
    if not isinstance(model, nn.Module):
        raise OptionError(f"`model` must be a torch.nn.Module, got {type(model).__name__}")
    first: dict[object, str] = {}
    aliases: dict[str, str] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    saved = model.state_dict(keep_vars=True).keys()
    for name, tensor in [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]:
        if nn.parameter.is_lazy(tensor):
            raise OptionError(f"`{name}` is not initialised yet; call the model once before asking for its symmetries")
        if name in saved:
            shapes[name] = tuple(tensor.shape)
        memory = tensor.data_ptr() if tensor.numel() and tensor.device.type != "meta" else (id(tensor),)
        if memory in first:
            aliases[name] = first[memory]
        else:
            first[memory] = name
    found = dict(model.named_parameters())
    if not found:
        raise OptionError("the model has no parameters, so there is nothing to scale; pass a network with weights")
    for name, tensor in found.items():
        if not tensor.is_floating_point():
            raise OptionError(
                f"`{name}` has dtype {tensor.dtype}; scales are defined for floating-point parameters, so pass the "
                "network before it was quantised or made complex"
            )
    return aliases, shapes


def _arguments(example: Example) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if isinstance(example, Tensor):
        return (example,), {}
    if isinstance(example, Mapping):
        return (), dict(example)
    if isinstance(example, Sequence) and not isinstance(example, str):
        return tuple(example), {}
    raise OptionError(
        f"the example input must be a tensor, a tuple of arguments or a dict of them, got {type(example).__name__}"
    )


@contextmanager
def _quietly_and_whole() -> Iterator[None]:
    """torch fuses an attention layer into one operation where it can; here its parts have to be seen.

    What is logged and printed while torch traces is held back: a user has the error, and under pytest, which listens
    to everything, the thousands of lines would take longer than the tracing.
    """
    fused, level = torch.backends.mha.get_fastpath_enabled(), logging.root.manager.disable
    torch.backends.mha.set_fastpath_enabled(False)
    logging.disable(logging.CRITICAL)
    try:
        with redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(level)
        torch.backends.mha.set_fastpath_enabled(fused)


_BRANCHES = (
    "What depends on the values of tensors, a branch or a size, has no single graph: take it out, or pass the part of "
    "the network behind it."
)
_STANDARD = sysconfig.get_path("stdlib")


def _of_a_library(file: str) -> bool:
    """Whether a file is ours, torch's or Python's own: no line in it is the user's."""
    ours = (str(Path(__file__).parent), str(Path(torch.__file__).parent), "<")
    return file.startswith(ours) or (file.startswith(_STANDARD) and "site-packages" not in file)


def _explained(error: Exception) -> str:
    """What went wrong in the user's own lines: the last frame of the traceback that is neither torch's nor ours."""
    outside = [frame for frame in traceback.extract_tb(error.__traceback__) if not _of_a_library(frame.filename)]
    line = f" at {Path(outside[-1].filename).name}, line {outside[-1].lineno}: `{outside[-1].line}`" if outside else ""
    reason = next((text for text in str(error).splitlines() if text.strip()), type(error).__name__)
    branches = "data-dependent" in str(error) or "Dynamic control flow" in str(error)
    advice = _BRANCHES if branches else "Check that the example input fits the model, as in model(input)."
    return f"the network cannot be traced{line}\n  {reason}\n{advice}"


def _outputs(exported: Any) -> tuple[tuple[str, Node], ...]:
    """The tensors that the model returns, by their place in what it returns."""
    flat = next(node for node in exported.graph.nodes if node.op == "output").args[0]
    kept = list(flat)[-len(exported.graph_signature.user_outputs) :]  # buffers that were written come first
    tree = torch.utils._pytree.tree_unflatten(list(range(len(kept))), exported.call_spec.out_spec)
    paths = torch.utils._pytree.tree_flatten_with_path(tree)[0]
    names = {index: f"the output{torch.utils._pytree.keystr(path)}" for path, index in paths}
    return tuple((names[index], node) for index, node in enumerate(kept) if isinstance(node, Node))


def module_of(node: Node) -> tuple[str, str]:
    """The module that an operation stands in: its dotted name and its class's name."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    if not stack:
        return "", ""
    name, kind = stack[-1]
    return name.removeprefix("L['self']").lstrip("."), (kind if isinstance(kind, str) else kind.__name__)


def place_of(node: Node) -> str:
    """Where an operation stands, for a message: `layer1.0` (BasicBlock)."""
    name, kind = module_of(node)
    kind = kind.rpartition(".")[2]
    return f"`{name}` ({kind})" if name else f"the model's own forward ({kind})" if kind else "the model's own forward"


def source_of(node: Node) -> str:
    """The line of source that an operation comes from, without folders."""
    lines = (node.meta.get("stack_trace") or "").strip().splitlines()
    found = [index for index, line in enumerate(lines) if line.strip().startswith("File ")]
    if not found:
        return ""
    head, code = lines[found[-1]].strip(), " ".join(line.strip() for line in lines[found[-1] + 1 :])
    file, _, rest = head.removeprefix('File "').partition('"')
    return f"{Path(file).name}{rest.partition(', in')[0]}: `{code}`"
