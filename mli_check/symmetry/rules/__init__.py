"""How each operation behaves under scaling. Importing the package fills the table of rules."""

from __future__ import annotations

from mli_check.symmetry.rules import attention, elementwise, layers, normalisation, reductions, shapes

__all__ = ["attention", "elementwise", "layers", "normalisation", "reductions", "shapes"]
