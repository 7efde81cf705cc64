"""The report's own libraries, loaded on first use: a machine that only runs claims need not have them."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from mli_check.errors import ReportError

_PACKAGES = {"altair": "altair", "jinja2": "jinja2", "markupsafe": "markupsafe", "vl_convert": "vl-convert-python"}


def load(module: str) -> Any:
    """The module, or a ReportError that names the package to install."""
    try:
        return import_module(module)
    except ImportError as error:
        package = _PACKAGES[module]
        raise ReportError(
            f"the report needs `{module}`, which cannot be imported ({error}). Install it: pip install {package}"
        ) from error
