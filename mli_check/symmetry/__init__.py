"""Scale symmetries of any network: found by linear algebra on its graph, sampled, applied and verified.

    sym = scale_symmetries(model, example)
    state = sym.apply(model.state_dict(), sym.sample(seed=0))
"""

from __future__ import annotations

from mli_check.symmetry.constraints import Call, register_rule
from mli_check.symmetry.forms import Equation, Form, Violation
from mli_check.symmetry.group import Symmetries, scale_symmetries
from mli_check.symmetry.values import Value

__all__ = ["Call", "Equation", "Form", "Symmetries", "Value", "Violation", "register_rule", "scale_symmetries"]
