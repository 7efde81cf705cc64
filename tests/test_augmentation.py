"""Tests of random crops and mirror images, against a loop over single images."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mli_check.data.augmentation import PADDING, Draws, augment, draw
from mli_check.errors import OptionError

if TYPE_CHECKING:
    from torch import Tensor

DTYPES = {"uint8": torch.uint8, "float32": torch.float32, "float64": torch.float64}
KINDS = ("crop", "crop-flip")
LAST = 2 * PADDING


def pictures(count: int, channels: int, height: int, width: int, dtype: torch.dtype) -> Tensor:
    """Random images without a zero, so that padding shows."""
    generator = torch.Generator().manual_seed(count + channels + height + width)
    drawn = torch.randint(1, 256, (count, channels, height, width), generator=generator)
    return drawn.to(dtype) if dtype == torch.uint8 else drawn.to(dtype) / 255


def one_by_one(images: Tensor, draws: Draws) -> Tensor:
    """Each image by itself: padded by zeros, cropped at its corner, mirrored if drawn so."""
    done = []
    for image, (top, left), mirrored in zip(images, draws.corners.tolist(), draws.mirrored.tolist(), strict=True):
        channels, height, width = image.shape
        padded = torch.zeros(channels, height + LAST, width + LAST, dtype=image.dtype)
        padded[:, PADDING : PADDING + height, PADDING : PADDING + width] = image
        crop = padded[:, top : top + height, left : left + width]
        done.append(torch.stack([crop[:, :, width - 1 - column] for column in range(width)], 2) if mirrored else crop)
    return torch.stack(done)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@st.composite
def drawn_batches(drawing: st.DrawFn) -> tuple[Tensor, Draws]:
    """Images of any shape with any crops and mirror images."""
    count, height, width = (drawing(st.integers(1, most)) for most in (5, 12, 12))
    images = pictures(
        count, drawing(st.sampled_from([1, 3])), height, width, drawing(st.sampled_from(list(DTYPES.values())))
    )
    corners = drawing(st.lists(st.tuples(*[st.integers(0, LAST)] * 2), min_size=count, max_size=count))
    mirrored = drawing(st.lists(st.booleans(), min_size=count, max_size=count))
    return images, Draws(torch.tensor(corners), torch.tensor(mirrored))


# What is done to images


@settings(deadline=None, max_examples=100)
@given(drawn_batches())
def test_a_batch_is_augmented_as_its_images_one_by_one_are(batch: tuple[Tensor, Draws]) -> None:
    images, draws = batch
    before = images.clone()
    augmented = augment(images, draws)
    assert augmented.dtype == images.dtype
    assert torch.equal(augmented, one_by_one(images, draws))
    assert torch.equal(images, before)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES.keys())
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (3, 6, 40), (1, 40, 5)], ids=str)
def test_drawn_batches_are_augmented_as_their_images_one_by_one_are(
    kind: str, dtype: torch.dtype, shape: tuple[int, int, int]
) -> None:
    images, draws = pictures(60, *shape, dtype), draw(kind, 60, generator())
    assert torch.equal(augment(images, draws), one_by_one(images, draws))


@pytest.mark.parametrize("layout", ["channels last", "a slice of larger images", "every second image"])
def test_the_layout_in_memory_does_not_matter(layout: str) -> None:
    large = pictures(20, 3, 9, 9, torch.float32)
    images = {
        "channels last": large.contiguous(memory_format=torch.channels_last),
        "a slice of larger images": large[:, 1:, 2:8, 1:],
        "every second image": large[::2],
    }[layout]
    draws = draw("crop-flip", len(images), generator())
    assert torch.equal(augment(images, draws), one_by_one(images.contiguous(), draws))


def test_the_middle_corner_leaves_an_image_as_it_is() -> None:
    images = pictures(3, 3, 8, 10, torch.uint8)
    middle = torch.full((3, 2), PADDING)
    assert torch.equal(augment(images, Draws(middle, torch.zeros(3, dtype=torch.bool))), images)
    assert torch.equal(augment(images, Draws(middle, torch.ones(3, dtype=torch.bool))), images.flip(3))


@pytest.mark.parametrize(
    ("corner", "kept", "moved_to"),
    [
        ((0, 0), (slice(0, 4), slice(0, 6)), (slice(4, 8), slice(4, 10))),
        ((LAST, LAST), (slice(4, 8), slice(4, 10)), (slice(0, 4), slice(0, 6))),
        ((0, LAST), (slice(0, 4), slice(4, 10)), (slice(4, 8), slice(0, 6))),
    ],
    ids=["first corner", "last corner", "upper right"],
)
def test_the_outermost_crops_see_four_rows_and_columns_of_black(
    corner: tuple[int, int], kept: tuple[slice, slice], moved_to: tuple[slice, slice]
) -> None:
    image = pictures(1, 1, 8, 10, torch.uint8)
    (seen,) = augment(image, Draws(torch.tensor([corner]), torch.tensor([False])))
    assert torch.equal(seen[0][moved_to], image[0, 0][kept])
    assert int((seen == 0).sum()) == 8 * 10 - 4 * 6


@pytest.mark.parametrize("shape", [(5, 64), (5,), (5, 8, 8), (5, 1, 2, 8, 8)], ids=str)
def test_inputs_that_are_no_images_are_refused_with_their_shape_and_the_field(shape: tuple[int, ...]) -> None:
    with pytest.raises(OptionError, match=r"needs images \(n, channels, height, width\)") as raised:
        augment(torch.zeros(shape), draw("crop", 5, generator()))
    assert str(shape) in str(raised.value)
    assert "recipe.augmentation" in str(raised.value)


# What is drawn


@pytest.mark.parametrize("kind", KINDS)
def test_corners_are_uniform_from_zero_to_twice_the_padding(kind: str) -> None:
    corners = draw(kind, 9000, generator()).corners
    assert corners.shape == (9000, 2)
    for axis in (0, 1):
        counts = torch.bincount(corners[:, axis], minlength=LAST + 1)
        assert len(counts) == LAST + 1
        assert counts.min() > 850  # of 1000 expected: five standard deviations
        assert counts.max() < 1150
    assert abs(float(torch.corrcoef(corners.T.double())[0, 1])) < 0.05  # rows and columns are independent


def test_crops_never_mirror_and_crop_flips_mirror_half() -> None:
    assert not draw("crop", 4000, generator()).mirrored.any()
    mirrored = draw("crop-flip", 4000, generator()).mirrored
    assert mirrored.dtype == torch.bool
    assert 1850 < int(mirrored.sum()) < 2150


def test_mirroring_does_not_change_the_crops() -> None:
    assert torch.equal(draw("crop", 50, generator()).corners, draw("crop-flip", 50, generator()).corners)


def test_the_same_generator_gives_the_same_draws_and_a_second_call_others() -> None:
    one, other = generator(3), generator(3)
    first, again, second = draw("crop-flip", 50, one), draw("crop-flip", 50, other), draw("crop-flip", 50, one)
    assert torch.equal(first.corners, again.corners)
    assert torch.equal(first.mirrored, again.mirrored)
    assert not torch.equal(first.corners, second.corners)
    assert not torch.equal(first.mirrored, second.mirrored)
    assert not torch.equal(first.corners, draw("crop-flip", 50, generator(4)).corners)


def test_the_global_generator_is_left_alone() -> None:
    before = torch.get_rng_state()
    draw("crop-flip", 50, generator())
    assert torch.equal(torch.get_rng_state(), before)


def test_a_part_of_the_draws_is_of_those_examples() -> None:
    images, draws = pictures(10, 1, 8, 8, torch.uint8), draw("crop-flip", 10, generator())
    rows = slice(3, 7)
    assert torch.equal(augment(images[rows], draws[rows]), augment(images, draws)[rows])
    assert draws.to(torch.device("cpu")).corners.equal(draws.corners)
