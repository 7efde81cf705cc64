"""Hypothesis strategies for random small networks, built to test what should hold for every network.

`networks()` draws the network, `inputs_for(network)` draws inputs for it, and a failure prints the network as code.
"""

from __future__ import annotations

from mli_check.strategies.drawing import inputs_for, networks, normal
from mli_check.strategies.factors import scale_factors
from mli_check.strategies.filling import fill
from mli_check.strategies.layouts import HOMOGENEOUS
from mli_check.strategies.network import Network

__all__ = ["HOMOGENEOUS", "Network", "fill", "inputs_for", "networks", "normal", "scale_factors"]
