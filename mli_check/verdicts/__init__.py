"""From evidence to a verdict: pure functions, each fixed before the data that it judges.

A criterion takes what was measured and gives a Ruling. What it needs to be sure is written in its docstring.
"""

from __future__ import annotations

from mli_check.verdicts.amounts import at_least, at_most, larger_within, usually
from mli_check.verdicts.comparisons import LEAST_EXCESS, LEAST_SHIFT, all_positive, more_often
from mli_check.verdicts.constancy import Constancy, compare, unchanged
from mli_check.verdicts.curves import never_rises
from mli_check.verdicts.equivalence import stays
from mli_check.verdicts.joint import agrees, all_of
from mli_check.verdicts.ruling import FEWEST_NETWORKS, LEVEL, Detail, Figure, Ruling, level_for, undecided

__all__ = [
    "FEWEST_NETWORKS", "LEAST_EXCESS", "LEAST_SHIFT", "LEVEL", "Constancy", "Detail", "Figure", "Ruling", "agrees",
    "all_of", "all_positive", "at_least", "at_most", "compare", "larger_within", "level_for", "more_often",
    "never_rises", "stays", "unchanged", "undecided", "usually",
]  # fmt: skip
