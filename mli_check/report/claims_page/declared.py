"""What the tests under claims/ say of themselves: their criterion, and the subjects that they judge at each scale."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from mli_check.errors import ReportError
from mli_check.subjects import SCALES, SUBJECTS

Place = tuple[str, str]  # subject and scale
UNDECIDING = "smoke"  # the scale at which no verdict is one


@dataclass(frozen=True)
class ClaimTest:
    """The test of a claim: its criterion in words, and the places it judges; None where only a run can tell them."""

    claim: str
    criterion: str
    places: tuple[Place, ...] | None

    def judges(self, subject: str, scale: str) -> bool:
        """Whether this test can give a verdict on a subject at a scale."""
        return self.places is None or (subject, scale) in self.places


def claim_tests(folder: Path) -> tuple[ClaimTest, ...]:
    """The tests of a folder of claims, in the order of files and lines. Raises ReportError if a file does not load."""
    return tuple(
        ClaimTest(mark.kwargs["id"], one_line(inspect.getdoc(function) or ""), _places(function))
        for file in sorted(folder.glob("test_*.py"))
        for function in _functions(_load(file))
        for mark in function.pytestmark
        if mark.name == "claim"
    )


def one_line(text: str) -> str:
    """Text without its line breaks, so that wrapping it anew changes nothing."""
    return " ".join(text.split())


def _load(file: Path) -> ModuleType:
    """A file of claims as a module, which lies in no package."""
    name = f"mli_check_claims_page_{file.stem}"
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up while it loads
    try:
        spec.loader.exec_module(module)
    except (Exception, pytest.skip.Exception) as error:  # pytest's is no Exception, and would skip who asked for this
        raise ReportError(
            f"cannot load the claims in {file.name}: {type(error).__name__}: {error}; the page needs them all"
        ) from error
    finally:
        del sys.modules[name]
    return module


def _functions(module: ModuleType) -> Iterator[Any]:
    """The tests that a module defines itself and that bear marks."""
    for name, found in vars(module).items():
        if name.startswith("test_") and hasattr(found, "pytestmark") and found.__module__ == module.__name__:
            yield found


def _places(function: Any) -> tuple[Place, ...] | None:
    names: Sequence[str] | None = next(
        (mark.args[1] for mark in function.pytestmark if mark.name == "parametrize" and mark.args[0] == "subject"), None
    )
    names = _recorded(function) if names is None else names
    if names is None:
        return None
    return tuple((name, scale) for scale in SCALES for name in names if scale in scales_of(name))


def scales_of(subject: str) -> tuple[str, ...]:
    """The scales at which a subject gets verdicts; a word that is no subject of the registry stands at quick scale."""
    registered = tuple(entry.scale for entry in SUBJECTS if entry.name == subject)
    return tuple(scale for scale in registered if scale != UNDECIDING) or ("quick",)


def _recorded(function: Callable[..., Any]) -> list[str] | None:
    """The words under which a test that brings its own networks records; None if its source alone does not tell."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    calls = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "record"
    ]
    unnamed = ast.Constant("all")  # what `mli.record` takes where no subject is given
    given = [next((word.value for word in call.keywords if word.arg == "subject"), unnamed) for call in calls]
    words = [value.value for value in given if isinstance(value, ast.Constant) and isinstance(value.value, str)]
    return words if calls and len(words) == len(calls) else None
