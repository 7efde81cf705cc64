"""The options --device and --scale, and the fixtures `subject` and `bench` that claims are built on.

Under pytest-xdist the controlling process loads this file too, and runs no claim: so torch is imported in the fixtures.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from mli_check import subjects
from mli_check.errors import MliCheckError
from mli_check.subjects import Subject

if TYPE_CHECKING:
    from mli_check.workbench import Workbench


def pytest_addoption(parser: pytest.Parser) -> None:
    for name, default, text in (
        ("--device", "cpu", "where to train and evaluate: cpu, cuda (cpu)"),
        ("--scale", "quick", "size of the subjects (quick)"),
    ):
        try:
            parser.addoption(name, default=default, help=text)
        except (ValueError, argparse.ArgumentError):  # another plugin has this option: its value is read instead
            continue


def pytest_configure(config: pytest.Config) -> None:
    scale = config.getoption("--scale") or "quick"
    if scale not in subjects.SCALES:
        raise pytest.UsageError(f"unknown --scale {scale!r}; known: {', '.join(subjects.SCALES)}")
    try:
        for name in config.getoption("--mli-subject") or ():
            subjects.get(name)
    except MliCheckError as error:
        raise pytest.UsageError(str(error)) from error


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep the claims on the subjects of --mli-subject, if any are named, and put them in the order of SUBJECTS.

    Claims on subjects of one group share their curves, so pytest-xdist is asked to keep them in one process.

    First, because pytest-xdist reads the marks in the same hook.
    """
    wanted = config.getoption("--mli-subject")
    grouping = any(map(config.pluginmanager.hasplugin, ("xdist", "xdist.plugin")))
    rank = {subject.name: index for index, subject in enumerate(subjects.SUBJECTS)}
    names = {item: _subject_name(item) for item in items}
    for item, name in names.items():
        if name is not None and grouping:
            item.add_marker(pytest.mark.xdist_group(subjects.get(name).group))
    dropped = [item for item in items if wanted and names[item] not in wanted]
    if dropped:
        config.hook.pytest_deselected(items=dropped)
    kept = [item for item in items if item not in dropped]
    items[:] = sorted(kept, key=lambda item: rank.get(names[item], len(rank)))


def _subject_name(item: pytest.Item) -> str | None:
    """The subject that a claim is parametrised with; None for other tests, which this hook sees too."""
    callspec = getattr(item, "callspec", None)
    if callspec is None or item.get_closest_marker("claim") is None:
        return None
    return callspec.params.get("subject")


@pytest.fixture
def subject(request: pytest.FixtureRequest) -> Subject:
    """The subject that the claim is parametrised with, by name: `parametrize("subject", [...], indirect=True)`."""
    return subjects.get(request.param)


@pytest.fixture(scope="session")
def device(request: pytest.FixtureRequest) -> str:
    """The device of --device, checked once."""
    from mli_check.workbench import check_device

    chosen = request.config.getoption("--device") or "cpu"
    try:
        check_device(chosen)
    except MliCheckError as error:
        pytest.exit(str(error), returncode=2)
    return chosen


@pytest.fixture(scope="session")
def bench(request: pytest.FixtureRequest, device: str) -> Callable[[Subject | str], Workbench]:
    """A function: the workbench of a subject, the same one at every call."""
    from mli_check.runs import Store
    from mli_check.workbench import Workbench

    store = Store(request.config.getoption("--mli-store"))
    offset = request.config.getoption("--mli-seed-offset")
    benches: dict[str, Workbench] = {}

    def of(subject: Subject | str) -> Workbench:
        chosen = subjects.get(subject) if isinstance(subject, str) else subject
        if chosen.name not in benches:
            benches[chosen.name] = Workbench(chosen, store, offset=offset, device=device)
        return benches[chosen.name]

    return of
