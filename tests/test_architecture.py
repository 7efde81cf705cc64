"""Tests of the house itself: which module may import which, how long files are, and what importing costs."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import mli_check

if TYPE_CHECKING:
    from collections.abc import Iterator

# Data flows down this list: a module or package imports only from lines above its own, and from its own package.
HOUSE = (
    "errors",
    "progress",
    "precision",
    "statistics",
    "states",
    "losses",
    "settings",
    "subjects",
    "catalogue",
    "locations",
    "durable",
    "data",
    "models",
    "training",
    "run_files",
    "runs",
    "recordings",
    "recordable",
    "recorder",
    "callbacks",
    "many",
    "noises",
    "symmetry",
    "strategies",
    "paths",
    "curves",
    "evaluation",
    "measured",
    "verdicts",
    "trials",
    "charts",
    "results",
    "comparison",
    "theory",
    "workbench",
    "report",
    "launch",
    "pytest_plugin",
    "cli_output",
    "factories",
    "cli_data",
    "cli_symmetries",
    "cli",
)
# What these import inside functions may be anything: they start quickly so.
AT_LOAD_ONLY = ("pytest_plugin", "cli_output", "cli_data", "cli_symmetries", "cli")
LONGEST_FILE = 320
HEAVY = ("torch", "numpy", "scipy", "sklearn", "altair")

ROOT = Path(mli_check.__file__).parent
FILES = sorted(file for file in ROOT.rglob("*.py") if "_claims" not in file.relative_to(ROOT).parts)
every_file = pytest.mark.parametrize("file", FILES, ids=lambda file: file.relative_to(ROOT).as_posix())


def room(file: Path) -> str:
    """The line of HOUSE that a file belongs to; empty for the front door, mli_check/__init__.py."""
    parts = file.relative_to(ROOT).with_suffix("").parts
    return "" if parts == ("__init__",) else parts[0]


def own_imports(node: ast.AST, *, in_functions: bool) -> Iterator[tuple[int, str]]:
    """The line and room of every import from mli_check that runs, so those for type checkers aside."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            for other in child.orelse:
                yield from own_imports(ast.Module([other], []), in_functions=in_functions)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, f"line {child.lineno} imports relatively; name the package"
            names = [f"{child.module}.{alias.name}" for alias in child.names]
            yield from ((child.lineno, name.split(".")[1]) for name in names if name.startswith("mli_check."))
        elif isinstance(child, ast.Import):
            names = [f"{alias.name}." for alias in child.names]
            yield from ((child.lineno, name.split(".")[1]) for name in names if name.startswith("mli_check."))
        elif in_functions or not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from own_imports(child, in_functions=in_functions)


def trespasses(source: str, home: str) -> list[str]:
    """What a module of the room `home` imports against the order of the house, one line each."""
    found = []
    for line, wanted in own_imports(ast.parse(source), in_functions=home not in AT_LOAD_ONLY):
        if wanted in (home, "__version__"):
            continue
        if wanted not in HOUSE:
            found.append(f"line {line}: `{wanted}` is not in HOUSE; name the module that defines it, or give it a line")
        elif HOUSE.index(wanted) > HOUSE.index(home):
            found.append(f"line {line}: `{home}` imports `{wanted}`, which stands below it")
    return found


# The order of the house


def test_every_module_has_its_place() -> None:
    rooms = {room(file) for file in FILES} - {""}
    assert rooms - set(HOUSE) == set(), "give these a line in HOUSE, above what imports them"
    assert set(HOUSE) - rooms == set(), "these are gone; take their lines out of HOUSE"
    assert len(set(HOUSE)) == len(HOUSE)


@every_file
def test_a_module_imports_only_from_above(file: Path) -> None:
    if room(file):
        assert trespasses(file.read_text(), room(file)) == []


@pytest.mark.parametrize(
    ("source", "home", "lines"),
    [
        ("import torch, json\nfrom pathlib import Path", "errors", []),
        ("from mli_check.errors import OptionError", "states", []),
        ("from mli_check.states import clone", "errors", [1]),
        ("from mli_check import runs", "data", [1]),
        ("from mli_check import errors, runs, cli", "data", [1, 1]),
        ("import mli_check.runs", "data", [1]),
        ("import mli_check.errors as e, mli_check.cli", "data", [1]),
        ("from mli_check import __version__", "results", []),
        ("from mli_check import evaluate", "results", [1]),
        ("import mli_check", "results", [1]),
        ("from mli_check.data.dataset import Dataset", "data", []),
        ("from mli_check_other import runs", "data", []),
        ("def f():\n    from mli_check.runs import train", "data", [2]),
        ("class A:\n    def f(self):\n        if True:\n            import mli_check.cli", "data", [4]),
        ("def f():\n    from mli_check.cli import main", "pytest_plugin", []),
        ("from mli_check.cli import main", "pytest_plugin", [1]),
        ("class A:\n    from mli_check.cli import main", "pytest_plugin", [2]),
        ("if TYPE_CHECKING:\n    from mli_check.runs import Run", "data", []),
        ("if typing.TYPE_CHECKING:\n    pass\nelse:\n    from mli_check.runs import Run", "data", [4]),
        ("try:\n    pass\nexcept ImportError:\n    from mli_check.runs import Run", "data", [4]),
    ],
)
def test_a_planted_import_is_found(source: str, home: str, lines: list[int]) -> None:
    found = trespasses(source, home)
    assert [int(line.split(":")[0].removeprefix("line ")) for line in found] == lines


@every_file
def test_no_module_is_called_utils(file: Path) -> None:
    assert not {"util", "utils"} & set(file.relative_to(ROOT).with_suffix("").parts)


@every_file
def test_a_module_says_what_it_is_in_one_line(file: Path) -> None:
    docstring = ast.get_docstring(ast.parse(file.read_text()))
    assert docstring
    assert docstring.splitlines()[0].endswith((".", ":"))


@every_file
def test_a_file_stays_short(file: Path) -> None:
    lines = len(file.read_text().splitlines())
    assert lines <= LONGEST_FILE


# The front door


def test_the_front_door_tells_type_checkers_what_it_loads() -> None:
    """The lazy table and the block for type checkers name the same things from the same modules."""
    tree = ast.parse((ROOT / "__init__.py").read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If))
    told = {
        alias.asname: f"{statement.module}".removeprefix("mli_check.")
        for statement in block.body
        if isinstance(statement, ast.ImportFrom)
        for alias in statement.names
    }
    assert told == mli_check._HOME


@pytest.mark.parametrize("name", mli_check.__all__)
def test_every_public_name_loads(name: str) -> None:
    assert getattr(mli_check, name) is not None
    assert name in dir(mli_check)


def test_a_name_that_is_not_public_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'mli_check' has no attribute 'evalute'"):
        _ = mli_check.evalute


# What importing costs


def heavy_after(script: str, *words: str, folder: Path) -> tuple[int, list[str]]:
    """The exit code that `script` leaves in `code` in a fresh process, and the heavy libraries then loaded."""
    ending = f"\nimport sys; print('heavy:', *[name for name in {HEAVY!r} if name in sys.modules]); sys.exit(code)"
    done = subprocess.run(
        [sys.executable, "-c", script + ending, *words],
        env={name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")},
        cwd=folder,
        capture_output=True,
        text=True,
    )
    last = done.stdout.splitlines()[-1] if done.stdout else ""
    assert last.startswith("heavy:"), done.stderr
    return done.returncode, last.split()[1:]


@pytest.mark.parametrize(
    "script",
    [
        "import mli_check; code = len(dir(mli_check)) == 0",
        "import mli_check.catalogue; code = len(mli_check.catalogue.CLAIMS) == 0",
        "import mli_check.settings; code = 0",
        "import mli_check; code = mli_check.Recipe is None",
        "import mli_check.pytest_plugin; code = 0",
    ],
)
def test_importing_does_not_import_heavy_libraries(script: str, tmp_path: Path) -> None:
    assert heavy_after(script, folder=tmp_path) == (0, [])


def test_the_check_for_heavy_libraries_sees_them(tmp_path: Path) -> None:
    assert heavy_after("import numpy; code = 3", folder=tmp_path) == (3, ["numpy"])


BESIDE = ("-p", "mli_check.pytest_plugin")  # what `mli-check run` passes, where the entry point names it already


@pytest.mark.parametrize(
    ("words", "exit_code"),
    [(["--version", "--version"], 0), ([*BESIDE, "--version", "--version"], 0), ([], 5), ([*BESIDE], 5)],
    ids=["version, entry point", "version, -p beside it", "empty folder, entry point", "empty folder, -p beside it"],
)
def test_the_plugin_costs_pytest_nothing_heavy(words: list[str], exit_code: int, tmp_path: Path) -> None:
    """Asked twice for its version, pytest loads and lists the plugins; an empty folder exits with 5."""
    script = "import pytest, sys; code = pytest.main(sys.argv[1:]); assert 'mli_check.pytest_plugin' in sys.modules"
    assert heavy_after(script, *words, folder=tmp_path) == (exit_code, [])
