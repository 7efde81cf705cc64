"""Synthetic results with the kinds of figures that the papers have: log axes, dashes, points, surfaces, captions."""

from __future__ import annotations

import math
import random
from typing import Any

from report_examples import GRID, HOSTILE, curve, document, error_curves


def figures() -> dict[str, Any]:
    """A document with the kinds of figures that the papers have, one a record; all but the first have a caption."""
    made = document(curves=3)
    kinds = (error_curves("T1", 3, random.Random(0)), checkpoints(), intervals(), prediction(), losses(), surface())
    claims = ("T1", "T28", "T25", "T36", "T33", "T35")
    for record, claim, kind in zip(made["records"], claims, kinds, strict=False):
        record |= {"claim": claim, "subject": "vgg-bn-digits", "charts": [kind]}
    made["records"] = made["records"][: len(kinds)]
    return made


def checkpoints() -> dict[str, Any]:
    """Curves from checkpoints whose iterations lie on a log scale, with a caption that tries to break out."""
    iterations = [1, 3, 10, 32, 100, 316, 1000, 3162, 10000]
    ends = (("interpolated statistics", 0.35), ("recalculated statistics", 0.0))
    heights = {top: [top * math.exp(-((math.log10(i) - 2) ** 2)) for i in iterations] for _, top in ends}
    return {
        "title": "Barrier from a checkpoint to the end of training",
        "x_label": "iteration of the checkpoint",
        "y_label": "largest rise of test error",
        "x": iterations,
        "series": [
            {"group": name, "label": f"seed {seed}", "y": [height / seed for height in heights[top]]}
            for name, top in ends
            for seed in (1, 2)
        ],
        "caption": f"The paper shows a barrier from early checkpoints. We see it too. {HOSTILE}",
        "x_scale": "log",
    }


def intervals() -> dict[str, Any]:
    """The ends of the rapid descent against the scale of the init: points of the networks, and a line, their mean."""
    deltas = [0.01 * 10 ** (step / 10) for step in range(21)]
    rng = random.Random(3)
    starts = [0.1 + 0.35 * step / 20 for step in range(21)]
    series = []
    for group, width in (("alpha_S", 0.0), ("alpha_E", 0.25)):
        clouds = [[start + width + rng.gauss(0, 0.03) for start in starts] for _ in range(3)]
        series += [{"group": group, "label": f"seed {n}", "y": y, "style": "points"} for n, y in enumerate(clouds)]
        series += [{"group": f"{group}, mean", "label": "mean", "y": [start + width for start in starts]}]
    return {
        "title": "Ends of the rapid descent against the scale of the init",
        "x_label": "delta",
        "y_label": "alpha",
        "x": deltas,
        "series": series,
        "caption": "The paper's Figure 3 shows both ends move right as delta grows, at about the same distance. "
        "We see the same, with a spread of 0.03 between networks.",
        "x_scale": "log",
    }


def prediction() -> dict[str, Any]:
    """A measured curve with two predictions beside it, dashed."""
    parts = (("measured", "line"), ("noise alone", "dashed"), ("both together", "dashed"))
    return {
        "title": "What predicts the curve",
        "x_label": "alpha",
        "y_label": "test error",
        "x": GRID,
        "series": [
            {"group": name, "label": "mean of 10", "y": curve(number, random.Random(number), gap=False)}
            | ({} if style == "line" else {"style": style})
            for number, (name, style) in enumerate(parts)
        ],
        "caption": "Neither part alone predicts the curve, both together do.",
    }


def losses() -> dict[str, Any]:
    """Training losses on a log scale, one of which reaches zero, so that it cannot be drawn there."""
    return {
        "title": "Training loss",
        "x_label": "alpha",
        "y_label": "training loss (nats)",
        "x": GRID,
        "series": [
            {"group": name, "label": "seed 0", "y": [max(0.0, 10 ** (1 - fall * a) - 1e-4) for a in GRID]}
            for name, fall in (("SGD", 3), ("Adam", 6))
        ],
        "y_scale": "log",
        "caption": "The paper shows rises for Adam; we see none.",
    }


def surface() -> dict[str, Any]:
    """A surface over alpha and beta with the diagonal and two axes, and one value missing."""
    alphas, betas = [step / 20 for step in range(21)], [step / 20 - 1 for step in range(41)]
    values: list[list[float | None]] = [
        [float(f"{0.9 - 0.85 / (1 + math.exp(4 * abs(b) * (1.2 if b < 0 else 1) - 6 * a)):.6g}") for a in alphas]
        for b in betas
    ]
    values[3][4] = None
    return {
        "kind": "surface",
        "title": "Test error of alpha * theta_F + beta * theta_0",
        "x_label": "alpha",
        "y_label": "beta",
        "value_label": "test error",
        "x": alphas,
        "y": betas,
        "values": values,
        "lines": [
            {"label": "alpha + beta = 1", "x": [0, 1], "y": [1, 0]},
            {"label": "beta = 0", "x": [0, 1], "y": [0, 0]},
            {"label": "alpha = 1", "x": [1, 1], "y": [-1, 1]},
        ],
        "caption": "The paper's Figure 9 shows low error around beta = 0 at large alpha, less so for negative beta. "
        "We see the same: the error at beta = −1 is 0.1 above that at beta = 1.",
    }
