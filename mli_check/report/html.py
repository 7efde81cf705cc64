"""The page: one HTML file that carries its styles, scripts and data, and asks the network for nothing."""

from __future__ import annotations

import contextlib
import json
import os
import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mli_check.errors import ReportError
from mli_check.report import charts, data
from mli_check.report.libraries import load

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_SYMBOLS = {
    "reproduced": "✓",
    "not reproduced": "✕",
    "inconclusive": "?",
    "planned": "○",
    "not run": "–",
    "failed": "✕",
    "skipped": "–",
}
_INDEX = re.compile(r"(?<=(?<![A-Za-z_])[A-Za-z]|[^\x00-\x7f])([_^])(\{[^{}]*\}|\([^()]*\)|[A-Za-z0-9](?![A-Za-z_]))")
_SCRIPTS = ("charts.js", "filter.js", "page.js")


def write_report(documents: Sequence[Mapping[str, Any]], destination: Path) -> Path:
    """Writes the page about these results documents to `destination`, whole or not at all.

    ReportError if the place cannot be written, if a library is missing, or if there is no document.
    """
    destination = Path(destination)
    if not destination.parent.is_dir():
        raise ReportError(
            f"cannot write the report to '{destination}': the folder '{destination.parent}' does not exist. "
            f"Create it, or name another file."
        )
    page = render(documents)
    draft = destination.with_name(f".{destination.name}.{os.getpid()}.part")
    try:
        draft.write_text(page, encoding="utf-8", newline="\n")
        os.replace(draft, destination)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise ReportError(
            f"cannot write the report to '{destination}': {error.strerror}. Name a file in a folder you can write to."
        ) from error
    return destination


def render(documents: Sequence[Mapping[str, Any]]) -> str:
    """The page about these results documents, as text."""
    jinja2 = load("jinja2")
    content = data.build(documents)
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("mli_check.report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.globals["symbols"] = _SYMBOLS
    environment.filters["typeset"] = typeset
    environment.filters["chart_size"] = charts.size

    def source(name: str) -> str:
        text: str = environment.loader.get_source(environment, name)[0]
        return text

    specs = {chart.id: charts.spec(chart.record) for chart in content.charts}
    page: str = environment.get_template("page.html").render(
        content=content,
        style=source("page.css"),
        stacked_style=source("stacked.css"),
        payload=json_for_script(specs),
        library=drawing_library(),
        scripts=[source(name) for name in _SCRIPTS],
    )
    return page


def json_for_script(value: Any) -> str:
    """JSON that cannot end the script element it stands in: `<`, `>`, `&` and the line separators are escaped."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def typeset(text: str) -> Any:
    """Text as markup in which `θ_F`, `b_{l+1}` and `n^(−1/2)` have real indices and exponents."""
    markupsafe = load("markupsafe")
    tags = {"_": "sub", "^": "sup"}
    parts = _INDEX.split(text)
    marked = markupsafe.escape(parts[0])
    for mark, index, rest in zip(parts[1::3], parts[2::3], parts[3::3], strict=True):
        inner = index[1:-1] if len(index) > 1 else index
        marked += markupsafe.Markup("<{0}>{1}</{0}>{2}").format(markupsafe.Markup(tags[mark]), inner, rest)
    return marked


def prepare() -> None:
    """Load the libraries that a report needs, ahead of time; a missing one is reported by `write_report`."""
    with contextlib.suppress(ReportError):
        load("altair")
        drawing_library()


@cache
def drawing_library() -> str:
    """Vega, Vega-Lite and vega-embed as one script."""
    bundle: str = load("vl_convert").javascript_bundle("window.vegaEmbed = vegaEmbed;")
    return bundle.replace("</script", "<\\/script").replace("<!--", "<\\!--")
