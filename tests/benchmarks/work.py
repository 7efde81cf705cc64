"""The work that is timed: networks, images, and as much of them as a run measures."""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mli_check.data import Dataset
from mli_check.data.dataset import Normalisation
from mli_check.models import build
from mli_check.paths import LinearPath
from mli_check.settings import ModelSetting

MNIST = Normalisation((0.1307,), (0.3081,))
CIFAR = Normalisation((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))
CLASSES = 10
State = dict[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much work a run does."""

    points: int
    examples: int
    batch: int  # of the loops that the competitors are
    rounds: int
    side: int  # cells along either axis of a plane
    sampled: tuple[int, int]  # cells along either axis of the two random subgrids on which the loop is timed
    noises: int
    residual: dict[str, tuple[int, int, int]]  # a variant's points, test images, calibration images
    growing_points: tuple[int, ...]
    growing_examples: tuple[int, ...]
    growing_noises: tuple[int, ...]
    many: tuple[int, int]  # points and examples of the growth with noises
    product: dict[str, int]  # a device's side of square products
    rows: int  # of products shaped as the work


FULL = Size(
    points=51,
    examples=10_000,
    batch=1000,
    rounds=int(os.environ.get("MLI_CHECK_BENCH_ROUNDS", "3")),
    side=51,
    sampled=(3, 7),
    noises=100,
    residual={"8": (7, 2000, 2000), "20": (21, 10_000, 10_000)},
    growing_points=(11, 21, 51, 101, 201),
    growing_examples=(1000, 2000, 5000, 10_000, 20_000),
    growing_noises=(1, 2, 4, 8, 16, 32),
    many=(21, 2000),
    product={"cpu": 2048, "cuda": 8192},
    rows=2048,
)
TINY = Size(
    points=4,
    examples=30,
    batch=20,
    rounds=1,
    side=5,
    sampled=(2, 3),
    noises=4,
    residual={"8": (2, 6, 6), "20": (2, 6, 6)},
    growing_points=(3, 5),
    growing_examples=(20, 40),
    growing_noises=(1, 2),
    many=(4, 20),
    product={"cpu": 32, "cuda": 32},
    rows=32,
)


@dataclass(frozen=True)
class Pictures:
    """Random pixels (n, height, width, channels) and labels (n,), with how a network wants them normalised."""

    pixels: np.ndarray
    labels: np.ndarray
    normalisation: Normalisation

    @classmethod
    def drawn(cls, count: int, side: int, normalisation: Normalisation, seed: int = 0) -> Pictures:
        """So many square pictures."""
        generator = np.random.default_rng(seed)
        pixels = generator.integers(256, size=(count, side, side, len(normalisation.mean)), dtype=np.uint8)
        return cls(pixels, generator.integers(CLASSES, size=count, dtype=np.uint8), normalisation)

    @property
    def data(self) -> Dataset:
        """As mli_check takes them: pixels and labels."""
        pixels = torch.from_numpy(self.pixels).permute(0, 3, 1, 2).contiguous()
        return Dataset(pixels, torch.from_numpy(self.labels), "pictures", CLASSES, self.normalisation)

    @property
    def tensors(self) -> tuple[Tensor, Tensor]:
        """As a network sees them: normalised float32 (n, channels, height, width), and int64 labels."""
        return self.data.rows(slice(None)), torch.from_numpy(self.labels).long()

    def write_idx(self, root: Path) -> None:
        """Write them as MNIST's test set, with one of them as its training set, where torchvision looks for it."""
        folder = root / "MNIST" / "raw"
        folder.mkdir(parents=True)
        for prefix, count in (("train", 1), ("t10k", len(self.labels))):
            shape = (count, *self.pixels.shape[1:3])
            images = struct.pack(">4I", 0x803, *shape) + self.pixels[:count].tobytes()
            (folder / f"{prefix}-images-idx3-ubyte").write_bytes(images)
            labels = struct.pack(">2I", 0x801, count) + self.labels[:count].tobytes()
            (folder / f"{prefix}-labels-idx1-ubyte").write_bytes(labels)


@dataclass(frozen=True)
class Work:
    """A network with the two ends of a path, on a device, and the pictures that it is evaluated on."""

    model: nn.Module
    init: State
    final: State
    device: str
    test: Pictures
    calibration: Pictures | None = None

    @property
    def path(self) -> LinearPath:
        """The line between both ends."""
        return LinearPath(self.init, self.final)


def connected(widths: str) -> ModelSetting:
    """The fully connected network of widths such as 784-1024-10."""
    return ModelSetting(name="fcn", hidden=tuple(map(int, widths.split("-")[1:-1])), init="kaiming")


def residual(variant: str) -> ModelSetting:
    """A ResNet with batch normalisation."""
    return ModelSetting(name="resnet", variant=variant, batch_norm=True, init="kaiming")


def draw(setting: ModelSetting, test: Pictures, device: str, calibration: Pictures | None = None) -> Work:
    """A path between two random networks: what it takes to evaluate one does not depend on the weights."""
    shape = (test.pixels.shape[3], *test.pixels.shape[1:3])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model, other = (build(setting, shape, CLASSES).to(device).eval() for _ in range(2))
    return Work(model, model.state_dict(), other.state_dict(), device, test, calibration)


def noise(state: State, seed: int) -> State:
    """Normal numbers of a tenth for every floating tensor of `state`."""
    generator = torch.Generator().manual_seed(seed)
    drawn = {name: torch.randn(tensor.shape, generator=generator) / 10 for name, tensor in state.items()}
    return {name: drawn[name].to(tensor) if tensor.is_floating_point() else tensor for name, tensor in state.items()}


def remaining_flop(widths: str, points: int, examples: int) -> int:
    """The operations of all products that are left when the first layer is computed once for each end of the path."""
    sizes = list(map(int, widths.split("-")))
    products = [a * b for a, b in pairwise(sizes)]
    return 2 * examples * (points * sum(products[1:]) + 2 * products[0])


def on_cuda(*values: str) -> Any:
    """Parameters of a benchmark that wants a GPU, after the device's."""
    mark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU: torch sees no CUDA device")
    return pytest.param("cuda", *values, marks=mark)
