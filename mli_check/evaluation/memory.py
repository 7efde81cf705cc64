"""How many examples a batch may hold under a memory limit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from mli_check.data.dataset import Dataset
from mli_check.errors import OptionError
from mli_check.evaluation.norm_stats import NormStats, call

MOST_EXAMPLES = {"cpu": 4096, "cuda": 10_000}
CACHED = 8 * 2**20  # bytes of the largest activation on a CPU: larger ones leave its cache (docs/performance.md)
DEFAULT_LIMIT = {"cpu": 256 * 2**20, "cuda": 4 * 2**30}
_LIVE = 3  # an operation's input, its output and one skip connection, each as large as the largest tensor


class _LargestOutput(TorchFunctionMode):
    """Records the bytes of the largest tensor that any torch function returns.

    A TorchDispatchMode would see more, but its first use imports torch._dynamo, which takes a second or two.
    """

    bytes = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in result if isinstance(result, tuple | list) else (result,):
            if isinstance(leaf, Tensor):
                self.bytes = max(self.bytes, leaf.nelement() * leaf.element_size())
        return result


def bytes_per_example(model: nn.Module, data: Dataset) -> int:
    """An upper estimate of what one example's forward pass keeps alive, from two examples run through `model`."""
    with _LargestOutput() as largest:
        call(model, data, slice(0, 2))
    return _LIVE * int(largest.bytes) // min(2, len(data)) + 1


def products_per_example(model: nn.Module, data: Dataset) -> int:
    """The multiplications of linear layers and convolutions in one example's forward pass, from two examples."""
    total = 0

    def count(layer: Any, _: object, outputs: Tensor) -> None:
        nonlocal total
        total += outputs.nelement() * layer.weight[0].numel()

    kinds = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
    hooks = [layer.register_forward_hook(count) for layer in model.modules() if isinstance(layer, kinds)]
    try:
        call(model, data, slice(0, 2))
    finally:
        for hook in hooks:
            hook.remove()
    return total // min(2, len(data))


@dataclass(frozen=True)
class Room:
    """The memory that an evaluation may take beside the states, the data and one copy of the model, in bytes.

    `each` is what one example's forward pass takes, `most` the examples of a batch at most.
    """

    total: int
    each: int
    most: int

    @property
    def waiting(self) -> int:
        """For outputs that wait to be settled."""
        return self.total // 8

    def holds(self, examples: int, extra: int = 0) -> bool:
        """Whether a batch of so many examples fits, where each takes `extra` bytes more."""
        return examples * (self.each + extra) <= self._for_batches

    def batch(self, examples: int, extra: int = 0) -> int:
        """How many examples a batch may have, at least one."""
        return max(1, min(examples, self.most, self._for_batches // (self.each + extra)))

    def chunk(self, count: int, size: int) -> int:
        """How many of `count` things of `size` bytes may be kept beside a batch, at least one."""
        return max(1, min(count, self.total // 4 // max(size, 1)))

    @property
    def _for_batches(self) -> int:
        return self.total - self.waiting - self.total // 4


def room(model: nn.Module, data: Dataset, limit: int | None, norm_stats: NormStats) -> Room:
    """What `limit` leaves; without a limit, what a device has at least.

    Raises OptionError if the limit does not hold a copy of the model with one example, or with one calibration batch,
    whose size no limit may change.
    """
    kind = data.targets.device.type
    copy = sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
    each = bytes_per_example(model, data)
    least, what = each, "one example"
    if norm_stats.batch is not None:
        least, what = each * norm_stats.batch, f"one calibration batch of {norm_stats.batch}"
    if limit is not None and limit < copy + least:
        raise OptionError(
            f"memory_limit={limit} bytes is below the {copy + least} that a copy of the model ({copy}) and {what} "
            f"({least}) take; raise the limit"
        )
    total = DEFAULT_LIMIT.get(kind, DEFAULT_LIMIT["cpu"]) if limit is None else limit - copy
    most = MOST_EXAMPLES.get(kind, MOST_EXAMPLES["cpu"])
    return Room(total, each, min(most, max(1, _LIVE * CACHED // each)) if kind == "cpu" else most)
