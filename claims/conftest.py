"""The options --device and --scale, and the fixtures `subject` and `bench` that claims are built on.

Under pytest-xdist the controlling process loads this file too, and runs no claim: so torch is imported in the fixtures.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import pytest

from mli_check import subjects
from mli_check.errors import MissingDataError, MliCheckError
from mli_check.settings import PRETRAINED
from mli_check.subjects import Subject

if TYPE_CHECKING:
    from mli_check.workbench import Workbench


def pytest_addoption(parser: pytest.Parser) -> None:
    scales = ", ".join(subjects.SCALES)
    for name, text in (
        ("--device", "where to train and evaluate: cpu, cuda (quick subjects: cpu; the others: cuda)"),
        ("--scale", f"size of the subjects: {scales} ({' and '.join(subjects.DEFAULT_SCALES)})"),
    ):
        try:
            parser.addoption(name, default=None, help=text)
        except (ValueError, argparse.ArgumentError):  # another plugin has this option: its value is read instead
            continue


def scales_of(config: pytest.Config) -> Sequence[str]:
    """The scale that was asked for, else the default ones."""
    chosen = config.getoption("--scale")
    return (chosen,) if chosen else subjects.DEFAULT_SCALES


def pytest_configure(config: pytest.Config) -> None:
    for scale in scales_of(config):
        if scale not in subjects.SCALES:
            raise pytest.UsageError(f"unknown --scale {scale!r}; known: {', '.join(subjects.SCALES)}")
    try:
        for name in config.getoption("--mli-subject") or ():
            subjects.find(name)
    except MliCheckError as error:
        raise pytest.UsageError(str(error)) from error


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep the claims on subjects of the chosen scale and of --mli-subject, in the order of SUBJECTS.

    Subjects that want a GPU give their claims the mark `gpu`. Claims on subjects of one group share their curves, so
    pytest-xdist is asked to keep them in one process. First, because pytest and pytest-xdist read marks in this hook.
    """
    wanted, scales = config.getoption("--mli-subject"), scales_of(config)
    grouping = any(map(config.pluginmanager.hasplugin, ("xdist", "xdist.plugin")))
    rank = {subject: index for index, subject in enumerate(subjects.SUBJECTS)}
    kept: dict[pytest.Item, int] = {}
    dropped = []
    for item in items:
        name = _subject_name(item)
        subject = None if name is None else subjects.find(name, scales)
        if subject is not None and subject.scale in subjects.GPU_SCALES:
            item.add_marker(pytest.mark.gpu)
        if subject is not None and grouping:
            item.add_marker(pytest.mark.xdist_group(subject.group))
        elif subject is None and grouping and item.get_closest_marker("claim") is not None:
            item.add_marker(pytest.mark.xdist_group(item.path.stem))  # which draws its random networks once
        elsewhere = subject is None and item.get_closest_marker("claim") is not None
        at_other_scale = elsewhere and (name is not None or "quick" not in scales)
        if at_other_scale or (wanted and name not in wanted):
            dropped.append(item)
        else:
            kept[item] = len(rank) if subject is None else rank[subject]
    if dropped:
        config.hook.pytest_deselected(items=dropped)
    items[:] = sorted(kept, key=kept.__getitem__)


def _subject_name(item: pytest.Item) -> str | None:
    """The subject that a claim is parametrised with; None for other tests, which this hook sees too."""
    callspec = getattr(item, "callspec", None)
    if callspec is None or item.get_closest_marker("claim") is None:
        return None
    return callspec.params.get("subject")


@pytest.fixture
def subject(request: pytest.FixtureRequest) -> Subject:
    """The subject that the claim is parametrised with, by name: `parametrize("subject", [...], indirect=True)`."""
    found = subjects.find(request.param, scales_of(request.config))
    assert found is not None  # others were deselected
    return found


@pytest.fixture(scope="session")
def device_for(request: pytest.FixtureRequest) -> Callable[[Subject], str]:
    """A function: the device of --device, checked once, else that of the subject's scale, skipping where it lacks."""
    import torch

    from mli_check.workbench import check_device

    asked = request.config.getoption("--device")
    if asked:
        try:
            check_device(asked)
        except MliCheckError as error:
            pytest.exit(str(error), returncode=2)

    def of(subject: Subject) -> str:
        if asked:
            return asked
        if subject.scale not in subjects.GPU_SCALES:
            return "cpu"
        if not torch.cuda.is_available():
            pytest.skip(f"{subject.name} at {subject.scale} scale wants a GPU; none is here, --device=cpu forces it")
        return "cuda"

    return of


@pytest.fixture(scope="session")
def bench(
    request: pytest.FixtureRequest, device_for: Callable[[Subject], str]
) -> Callable[[Subject | str], Workbench]:
    """A function: the workbench of a subject, the same one at every call; it skips where data are missing."""
    from mli_check.runs import Store
    from mli_check.workbench import Workbench

    store = Store(request.config.getoption("--mli-store"))
    offset = request.config.getoption("--mli-seed-offset")
    benches: dict[tuple[str, str], Workbench] = {}

    def of(subject: Subject | str) -> Workbench:
        chosen = subjects.find(subject, scales_of(request.config)) if isinstance(subject, str) else subject
        assert chosen is not None
        key = (chosen.name, chosen.scale)
        if key not in benches:
            found = Workbench(chosen, store, offset=offset, device=device_for(chosen))
            try:
                _ = found.train, found.test
                if found.subject.setting.model.init == PRETRAINED:  # whose weights are data too
                    _ = found.model
            except MissingDataError as error:
                pytest.skip(str(error))
            benches[key] = found
        return benches[key]

    return of
