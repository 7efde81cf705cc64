"""The competitors: what people write, or install, to evaluate a network along a line."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from PIL import Image
from torch import Tensor
from torch.nn import functional
from torch.optim.swa_utils import update_bn
from torch.utils.data import DataLoader, Dataset, TensorDataset
from torchvision import transforms

from benchmarks.work import Pictures, Work
from mli_check.precision import arithmetic, full_float32

NO_LANDSCAPES = (
    "loss-landscapes is not installed, so nothing was held against it: pip install -e '.[bench]', or "
    "pip install --no-deps loss-landscapes==3.0.6"
)


class OneByOne(Dataset[tuple[Tensor, int]]):
    """Pictures that are turned into normalised tensors when asked for, as torchvision's CIFAR10 does it."""

    def __init__(self, pictures: Pictures) -> None:
        self._pictures, self._transform = pictures, _transform(pictures)

    def __len__(self) -> int:
        return len(self._pictures.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self._transform(Image.fromarray(self._pictures.pixels[index])), int(self._pictures.labels[index])


def mnist(pictures: Pictures, root: Path) -> Dataset[Any]:
    """The pictures read from MNIST's raw files by torchvision's class."""
    pictures.write_idx(root)
    return torchvision.datasets.MNIST(str(root), train=False, transform=_transform(pictures))


def tensors(pictures: Pictures) -> TensorDataset:
    """The pictures normalised once."""
    return TensorDataset(*pictures.tensors)


def hand_written(
    work: Work, data: Dataset[Any], alphas: Sequence[float], batch: int, calibration: Dataset[Any] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Loss and error along the line, by load_state_dict and a DataLoader at every point, without workers.

    With `calibration`, update_bn averages the statistics of batches of 500 of them at every point. Sums stay on the
    device until a point is done.
    """
    model = copy.deepcopy(work.model).eval()
    loader = DataLoader(data, batch_size=batch)
    calibrating = None if calibration is None else DataLoader(calibration, batch_size=500)
    losses, errors = [], []
    with torch.no_grad(), full_float32():
        for alpha in alphas:
            moved = {name: (1 - alpha) * start + alpha * work.final[name] for name, start in work.init.items()}
            model.load_state_dict(moved)
            if calibrating is not None:
                update_bn(calibrating, model, device=work.device)
            loss, wrong = _sums(model, loader, work.device)
            losses.append(loss / len(work.test.labels))
            errors.append(wrong / len(work.test.labels))
    return np.array(losses), np.array(errors)


def _sums(model: torch.nn.Module, loader: Iterable[Any], device: str) -> tuple[float, float]:
    loss, wrong = torch.zeros((), device=device), torch.zeros((), device=device)
    for images, labels in loader:
        there = labels.to(device)
        outputs = model(images.to(device))
        loss += functional.cross_entropy(outputs, there, reduction="sum")
        wrong += (outputs.argmax(1) != there).sum()
    return loss.item(), wrong.item()


def landscapes(work: Work) -> Callable[[int], np.ndarray] | None:
    """loss-landscapes' linear_interpolation, the losses at 1/steps, 2/steps, ..., 1; None if it is not installed.

    It takes all examples in one batch, on the device before its clock starts, and computes no errors.
    """
    try:
        import loss_landscapes
        from loss_landscapes.metrics import Loss
    except ImportError:
        return None
    images, labels = (tensor.to(work.device) for tensor in work.test.tensors)
    metric = Loss(functional.cross_entropy, images, labels)
    ends = []
    for state in (work.init, work.final):
        ends.append(copy.deepcopy(work.model))
        ends[-1].load_state_dict(state)

    def run(steps: int) -> np.ndarray:
        with full_float32():
            return loss_landscapes.linear_interpolation(*ends, metric, steps, deepcopy_model=True)

    return run


def products(rows: int, inner: int, columns: int, repeats: int, device: str, precision: str) -> Callable[[], None]:
    """As many matrix products as `repeats` into memory that is kept: the rate that a machine can reach."""
    left, right = torch.rand(rows, inner, device=device), torch.rand(inner, columns, device=device)
    out = torch.empty(rows, columns, device=device)

    def run() -> None:
        with arithmetic(precision, torch.device(device)):
            for _ in range(repeats):
                torch.mm(left, right, out=out)

    return run


def _transform(pictures: Pictures) -> transforms.Compose:
    chosen = pictures.normalisation
    return transforms.Compose([transforms.ToTensor(), transforms.Normalize(chosen.mean, chosen.std)])
