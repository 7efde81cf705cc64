"""What the ratios must reach, and which bars are known to lie near a limit."""

from __future__ import annotations

TORCHVISION = "DataLoader of torchvision's dataset"
TENSORS = "DataLoader of tensors"
LANDSCAPES = "loss-landscapes 3.0.6"
LOOP = 'engine="loop"'
PRODUCTS = "matrix products, square"
PRODUCTS_ALIKE = "matrix products, shaped as the work"

SHALLOW = "784-1024-10"
DEEP = "784-512-512-512-10"
WIDE = "784-1024-1024-1024-10"
PLANE = "784-1024-10, plane"
NOISES = "784-1024-10, noises"

ONE_BY_ONE = "one network at a time"
TRAINED_SMALL = "training 64-64-10"
TRAINED_DEEP = "training 64-64-64-64-64-10"
TRAINED_WIDE = "training 784-256-10"
TRAINED_WIDE_CUDA = "training 256 of 784-256-10"
NARROW = "training a narrow VGG"
NARROW_BN = "training a narrow VGG with BN"

Key = tuple[str, str, str]  # device, workload, what we are held against

BARS: dict[Key, float] = {
    ("cpu", SHALLOW, TORCHVISION): 35,
    ("cpu", SHALLOW, TENSORS): 9,
    ("cpu", SHALLOW, LANDSCAPES): 6,
    ("cpu", SHALLOW, LOOP): 5,
    ("cpu", DEEP, TORCHVISION): 10,
    ("cpu", DEEP, TENSORS): 3,
    ("cpu", DEEP, LANDSCAPES): 1.6,
    ("cpu", DEEP, LOOP): 1.6,
    ("cpu", DEEP, PRODUCTS): 0.8,
    ("cpu", DEEP, PRODUCTS_ALIKE): 0.8,
    ("cpu", PLANE, LOOP): 5,
    ("cpu", NOISES, LOOP): 5,
    ("cpu", TRAINED_SMALL, ONE_BY_ONE): 4,
    ("cpu", TRAINED_DEEP, ONE_BY_ONE): 3,
    ("cpu", TRAINED_WIDE, ONE_BY_ONE): 1.2,
    ("cpu", NARROW, ONE_BY_ONE): 1,
    ("cpu", NARROW_BN, ONE_BY_ONE): 1,
    ("cuda", TRAINED_WIDE_CUDA, ONE_BY_ONE): 50,
    ("cuda", WIDE, TORCHVISION): 100,
    ("cuda", WIDE, PRODUCTS): 0.5,
    ("cuda", "resnet 20", TORCHVISION): 20,
}

_PASSES = (
    "what is left beside products (biases, ReLU, softmax, ties, combining first layers) are passes over memory that do "
    "no products"
)
_LEFT = (
    "sharing the first layer leaves 1 / 1.71 of a loop's products, which both make at about one rate, and combining "
    "its outputs takes a part of that"
)
# Missed bars that do not fail, each with the reason why it is about as far as this can go.
KNOWN_LIMITS: dict[Key, str] = {
    ("cpu", DEEP, TENSORS): _LEFT,
    ("cpu", DEEP, LANDSCAPES): _LEFT,
    ("cpu", DEEP, LOOP): _LEFT,
    ("cpu", DEEP, PRODUCTS): _PASSES,
    ("cpu", DEEP, PRODUCTS_ALIKE): _PASSES,
}
