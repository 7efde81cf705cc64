"""Arithmetic in full float32: TensorFloat-32 and bfloat16 products are switched off while it lasts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def full_float32() -> Iterator[None]:
    """Products and convolutions of float32 tensors keep all 24 bits inside; the caller's flags come back after.

    On CUDA, convolutions would otherwise run in TensorFloat-32 by default, with 11 bits.
    """
    changed: list[tuple[Any, str]] = []
    try:
        # torch's general flag comes first: what merely follows it must not be set, or it would not follow it again
        for flag in flags():
            before = flag.fp32_precision
            if before != "ieee":
                flag.fp32_precision = "ieee"
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
