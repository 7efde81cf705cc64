"""Scale symmetries of any network: found by linear algebra on its graph, sampled, applied and verified.

sym = scale_symmetries(model, example)
state = sym.apply(model.state_dict(), sym.sample(seed=0))
"""

from __future__ import annotations

from mli_check.symmetry.call import Call, register_rule
from mli_check.symmetry.forms import Equation, Form, Violation
from mli_check.symmetry.group import Symmetries, scale_symmetries
from mli_check.symmetry.rescale import gsi, nsi, rectified, rsi, temperature, vsi, with_eta
from mli_check.symmetry.values import Value

__all__ = [
    "Call",
    "Equation",
    "Form",
    "Symmetries",
    "Value",
    "Violation",
    "gsi",
    "nsi",
    "rectified",
    "register_rule",
    "rsi",
    "scale_symmetries",
    "temperature",
    "vsi",
    "with_eta",
]
