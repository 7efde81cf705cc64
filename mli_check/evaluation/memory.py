"""How many examples a batch may hold under a memory limit."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from mli_check.data.dataset import Dataset
from mli_check.errors import OptionError
from mli_check.evaluation.norm_stats import call

MOST_EXAMPLES = {"cpu": 1000, "cuda": 10_000}  # larger CPU batches fall out of the cache
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


def batch_size(model: nn.Module, data: Dataset, limit: int | None) -> int:
    """The examples of a batch, at most `limit` bytes of activations beside one copy of the model.

    Raises OptionError if the limit is not positive or does not hold the model's copy and one example.
    """
    kind = data.targets.device.type
    copy = sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
    each = bytes_per_example(model, data)
    if limit is not None and limit < copy + each:
        raise OptionError(
            f"memory_limit={limit} bytes is below the {copy + each} that a copy of the model ({copy}) and one example "
            f"({each}) take; raise the limit"
        )
    room = DEFAULT_LIMIT.get(kind, DEFAULT_LIMIT["cpu"]) if limit is None else limit - copy
    return max(1, min(len(data), MOST_EXAMPLES.get(kind, MOST_EXAMPLES["cpu"]), room // each))
