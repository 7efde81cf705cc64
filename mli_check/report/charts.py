"""Charts: a chart of the results becomes a Vega-Lite specification that carries its own data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mli_check.charts import SURFACE
from mli_check.errors import ReportError
from mli_check.report import curves, surfaces

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import ModuleType

_KINDS = {None: curves, SURFACE: surfaces}


def spec(chart: Mapping[str, Any]) -> dict[str, Any]:
    """The specification of one chart of a results document; ReportError for a kind that this version does not know."""
    drawn: dict[str, Any] = _kind(chart).spec(chart)
    return drawn


def size(chart: Mapping[str, Any]) -> str:
    """How much a chart shows, such as `1 curve`, `30 curves` or `a surface of 21 × 41 values`."""
    words: str = _kind(chart).size(chart)
    return words


def _kind(chart: Mapping[str, Any]) -> ModuleType:
    """The module that draws a chart; one without a `kind` shows curves."""
    kind = chart.get("kind")
    if kind not in _KINDS:
        raise ReportError(
            f"chart {chart.get('title')!r} is of the kind {kind!r}; this version draws curves and surfaces. "
            f"Make the report with the version of mli-check that wrote the results"
        )
    return _KINDS[kind]
