"""What products of float32 tensors are computed in: full float32 unless something else is asked for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from mli_check.errors import OptionError, UnknownNameError

PRECISIONS = ("highest", "tf32", "bf16")


@contextmanager
def full_float32() -> Iterator[None]:
    """Products and convolutions of float32 tensors keep all 24 bits inside; the caller's flags come back after.

    On CUDA, convolutions would otherwise run in TensorFloat-32 by default, with 11 bits.
    """
    with _computing_in("ieee", flags()):
        yield


@contextmanager
def arithmetic(precision: str, device: torch.device) -> Iterator[None]:
    """Compute as `precision` says while it lasts.

    `highest` is full float32. `tf32` lets CUDA's products and convolutions round their factors to TensorFloat-32, with
    11 bits; `bf16` runs what torch's autocast chooses in bfloat16, with 8 bits. Raises UnknownNameError for another
    name and OptionError for tf32 on another device, where nothing would change.
    """
    if precision not in PRECISIONS:
        raise UnknownNameError("precision", str(precision), PRECISIONS)
    if precision == "tf32" and device.type != "cuda":
        raise OptionError(f"precision='tf32' is for CUDA, got device {device}; leave it out, or pass device='cuda'")
    with full_float32():
        if precision == "tf32":
            backends: Any = torch.backends
            with _computing_in("tf32", (backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn)):
                yield
        elif precision == "bf16":
            with torch.autocast(device.type, torch.bfloat16):
                yield
        else:
            yield


@contextmanager
def _computing_in(wanted: str, chosen: Sequence[Any]) -> Iterator[None]:
    changed: list[tuple[Any, str]] = []
    try:
        # torch's general flag comes first: what merely follows it must not be set, or it would not follow it again
        for flag in chosen:
            before = flag.fp32_precision
            if before != wanted:
                flag.fp32_precision = wanted
                changed.append((flag, before))
        yield
    finally:
        for flag, before in reversed(changed):
            flag.fp32_precision = before


def flags() -> tuple[Any, ...]:
    """Everything whose `fp32_precision` says how float32 is computed with, torch's general flag first."""
    backends: Any = torch.backends
    cudnn, mkldnn = backends.cudnn, backends.mkldnn
    return (backends, backends.cuda.matmul, cudnn.conv, cudnn.rnn, mkldnn.matmul, mkldnn.conv, mkldnn.rnn)
