"""The named settings that claims are judged on, at four scales; importing them does not import torch."""

from __future__ import annotations

from collections.abc import Collection

from mli_check.errors import UnknownNameError
from mli_check.subjects.fine_tuned import FINE_TUNED, FINE_TUNED_PAPER, FINE_TUNED_SMOKE
from mli_check.subjects.paper import PAPER, s7_settings
from mli_check.subjects.quick import QUICK
from mli_check.subjects.standard import SMOKE, STANDARD
from mli_check.subjects.subject import GPU_SCALES, SCALES, Subject

SUBJECTS: tuple[Subject, ...] = (
    *QUICK, *SMOKE, *FINE_TUNED_SMOKE, *STANDARD, *FINE_TUNED, *PAPER, *FINE_TUNED_PAPER
)  # fmt: skip
DEFAULT_SCALES = ("quick", "standard")  # where none is asked for

_BY_KEY = {(subject.name, subject.scale): subject for subject in SUBJECTS}


def names() -> tuple[str, ...]:
    """Every name that a subject has at some scale, in the order in which claims run."""
    return tuple(dict.fromkeys(subject.name for subject in SUBJECTS))


def find(name: str, scales: Collection[str] = DEFAULT_SCALES) -> Subject | None:
    """The subject of that name at one of the scales, None where it has none. UnknownNameError for other names.

    No name is at both of the default scales, so that it says which subject is meant.
    """
    if name not in names():
        raise UnknownNameError("subject", name, names())
    return next((_BY_KEY[name, scale] for scale in scales if (name, scale) in _BY_KEY), None)


def get(name: str, scale: str | None = None) -> Subject:
    """The subject of that name, at one of the default scales if none is given. UnknownNameError if there is none."""
    found = find(name, DEFAULT_SCALES if scale is None else (scale,))
    if found is None:
        there = [subject.name for subject in SUBJECTS if subject.scale == (scale or "standard")]
        raise UnknownNameError(f"subject at scale {scale or 'standard'}", name, there)
    return found


__all__ = [
    "DEFAULT_SCALES", "GPU_SCALES", "SCALES", "SUBJECTS", "Subject", "find", "get", "names", "s7_settings",
]  # fmt: skip
