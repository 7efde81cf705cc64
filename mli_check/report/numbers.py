"""Numbers as the report prints them: few digits, a true minus sign, one number of decimals per interval."""

from __future__ import annotations

import math

ABSENT = "—"
_DIGITS = 3
_MINUS = "\N{MINUS SIGN}"


def _decimals(values: list[float]) -> int | None:
    """Decimals that show the largest value with three digits; None where only the scientific notation will do."""
    if all(value == int(value) and abs(value) < 1e6 for value in values):
        return 0
    magnitude = math.floor(math.log10(max(abs(value) for value in values)))
    if not -5 <= magnitude < 6:
        return None
    return max(0, _DIGITS - 1 - magnitude)


def _print(value: float, decimals: int | None) -> str:
    text = f"{value:.{_DIGITS - 1}e}" if decimals is None else f"{value:.{decimals}f}"
    if float(text) == 0:
        text = text.removeprefix("-")
    return text.replace("-", _MINUS)


def number(value: float | None, unit: str = "") -> str:
    """One number with its unit, a dash where there is none."""
    return interval(value, None, None, unit)[0]


def interval(
    value: float | None, low: float | None, high: float | None, unit: str = ""
) -> tuple[str, str]:
    """A value and its interval as two texts, such as `0.012` and `[0.003, 0.021]`; an open end is infinite."""
    finite = [item for item in (value, low, high) if item is not None and math.isfinite(item)]
    decimals = _decimals(finite) if finite else 0
    shown = ABSENT if value is None else _print(value, decimals) + _with_space(unit)
    if low is None and high is None:
        return shown, ""
    left = f"{_MINUS}∞" if low is None else _print(low, decimals)
    right = "∞" if high is None else _print(high, decimals)
    return shown, f"[{left}, {right}]"


def duration(seconds: float) -> str:
    """A time such as `1.2 s`, `4 min` or `2.5 h`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    if seconds < 3600:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def _with_space(unit: str) -> str:
    return unit if unit in ("", "%") else f"\N{NO-BREAK SPACE}{unit}"
