"""The exceptions. All derive from MliCheckError; the command line turns each into exit code 2."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class MliCheckError(Exception):
    """Base class: something the caller can mend. The message says what was got, what was expected, what to do."""


class OptionError(MliCheckError, ValueError):
    """An argument or option has a value that cannot be used."""


class UnknownNameError(OptionError):
    """A name that is not in the list it should come from."""

    def __init__(self, what: str, got: str, known: Iterable[str]) -> None:
        names = sorted(known)
        close = get_close_matches(got, names, n=1)
        hint = f" Did you mean `{close[0]}`?" if close else ""
        super().__init__(f"unknown {what} {got!r}.{hint} Known: {', '.join(names) or 'none'}.")


class DataError(MliCheckError):
    """A dataset is empty, inconsistent, missing or damaged."""


class MissingDataError(DataError):
    """A dataset has not been brought yet; the message says which command brings it."""


class StateMismatchError(MliCheckError):
    """Two states, or a state and a model, do not have the same tensors. Lists every difference."""


class DivergedError(MliCheckError):
    """The network's loss is not finite where the path should end in a trained network."""


class StoreError(MliCheckError):
    """The store of trained runs cannot be read or written."""


class ResultsError(MliCheckError):
    """A results file is damaged, truncated or of another version."""


class ReportError(MliCheckError):
    """The report cannot be written, or a library it needs is not installed."""


class DamagedRunWarning(UserWarning):
    """A stored run did not match its checksums, was set aside and is trained again."""


class TraceError(MliCheckError):
    """A network cannot be traced into a graph of operations."""


class UnknownOperationError(TraceError):
    """The graph holds an operation whose behaviour under scaling is not known."""


class SymmetryError(MliCheckError):
    """The network has no such scale symmetry; `equations` are those that stand in its way."""

    def __init__(self, message: str, equations: Iterable[object] = ()) -> None:
        super().__init__(message)
        self.equations = tuple(equations)
