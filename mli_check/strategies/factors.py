"""Elements of a network's group of scale symmetries."""

from __future__ import annotations

from hypothesis import strategies as st

from mli_check.errors import OptionError
from mli_check.symmetry import Symmetries


def scale_factors(
    symmetries: Symmetries, *, dyadic: bool = True, spread: int = 3, reach: float = 24.0
) -> st.SearchStrategy[dict[str, float]]:
    """Elements of the group: {tensor: positive factor}, powers of two with `dyadic`. They shrink to factors of 1.

    `spread` bounds the coordinates in `symmetries.basis`; where an element would move an exponent of a tensor or of a
    layer's result by more than `reach`, its last coordinates are set to 0 until it does not, so that nothing leaves the
    range of float32 (for float16 take about 4). Raises OptionError unless both are positive.
    """
    if not spread >= 1 or not reach > 0:
        raise OptionError(f"`spread` must be at least 1 and `reach` positive, got spread={spread!r}, reach={reach!r}")
    numbers = st.integers(-spread, spread) if dyadic else st.floats(-spread, spread, width=32)
    coordinates = st.lists(numbers, min_size=symmetries.dimension, max_size=symmetries.dimension)
    return coordinates.map(lambda drawn: _within(symmetries, [float(one) for one in drawn], reach))


def _within(symmetries: Symmetries, coordinates: list[float], reach: float) -> dict[str, float]:
    """The element, with as many coordinates set to 0, from the last one back, as `reach` asks for."""
    for kept in range(len(coordinates), -1, -1):
        found = symmetries.element([*coordinates[:kept], *[0.0] * (len(coordinates) - kept)])
        if symmetries.reach(found) <= reach:
            break
    return found
