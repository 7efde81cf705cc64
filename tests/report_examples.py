"""Synthetic results documents for the report's tests: made-up verdicts over made-up curves, the same on every call."""

from __future__ import annotations

import hashlib
import math
import random
from typing import Any

GRID = [step / 50 for step in range(51)]
GROUPS = ("own initialisation", "unrelated initialisation", "zero")
HOSTILE = "</script><script>window.broken = 1</script><!-- & \u2028 'quoted' \"twice\""

# claim, subject, verdict, expected
_VERDICTS = (
    ("T1", "fcn4-digits", "reproduced", "reproduced"),
    ("T1", "lenet-digits", "inconclusive", "inconclusive"),
    ("T1", "vgg-bn-digits", "reproduced", "reproduced"),
    ("T2", "fcn4-digits", "reproduced", "reproduced"),
    ("T2", "vgg-bn-digits", "inconclusive", "reproduced"),
    ("T4", "fcn4-digits", "reproduced", "reproduced"),
    ("T6", "all", "reproduced", "reproduced"),
    ("T9", "softmax-digits", "reproduced", None),
    ("T10", "fcn4-digits", "reproduced", "reproduced"),
    ("T21", "fcn4-digits", "not reproduced", "not reproduced"),
    ("T22", "fcn4-digits-gaussian", "not reproduced", "reproduced"),
    ("T27", "vgg-bn-digits", "reproduced", "reproduced"),
    ("T27", "resnet8-digits", "reproduced", "reproduced"),
    ("L1", "fcn-1000-digits", "inconclusive", None),
    ("L6", "all", "reproduced", "reproduced"),
    ("L11", "curves", "reproduced", "reproduced"),
    ("U2", "random-paths", "reproduced", "reproduced"),
    ("W2", "deep-fcn-digits", "reproduced", "reproduced"),
    ("W6", "deep-fcn-digits", "inconclusive", "inconclusive"),
    ("X1", "fcn4-digits", "reproduced", "reproduced"),
)
_STANDARD = (
    ("T1", "fcn4-mnist", "reproduced", "reproduced"),
    ("T1", "vgg16-bn-cifar10", "inconclusive", "reproduced"),
    ("T2", "fcn4-mnist", "reproduced", "reproduced"),
    ("T6", "all", "not reproduced", "not reproduced"),
    ("T27", "resnet20-cifar10", "reproduced", "reproduced"),
    ("L1", "fcn-1000-mnist", "reproduced", None),
    ("L6", "all", "reproduced", "reproduced"),
)
_PAPER = (
    ("T1", "vgg16-bn-cifar10", "not reproduced", "reproduced"),
    ("T1", "resnet20-cifar10", "reproduced", "reproduced"),
    ("L6", "all", "inconclusive", "reproduced"),
)


def document(scale: str = "quick", curves: int = 30) -> dict[str, Any]:
    """A results document with 20 records of `curves` curves over 51 points each."""
    rng = random.Random(f"{scale} {curves}")
    return {
        "schema": 1,
        "created": "2026-02-03T08:30:00+00:00",
        "finished": "2026-02-03T09:12:41+00:00",
        "command": f"mli-check run --scale {scale}",
        "scale": scale,
        "environment": {
            "mli_check": "0.1.0",
            "python": "3.11.7",
            "torch": "2.15.0",
            "torchvision": "0.30.0",
            "numpy": "2.4.1",
            "platform": "Linux-6.8-x86_64",
            "device": "cpu",
            "threads": 1,
            "processor": "an example processor",
        },
        "records": [record(*line, scale=scale, curves=curves, rng=rng) for line in _VERDICTS],
        "tests": {
            "passed": 20,
            "failed": 1,
            "skipped": [
                {"test": "test_t1_monotone[vgg8-cifar10]", "reason": "needs CUDA"},
                {"test": "test_t27_running_statistics[resnet20-cifar100]", "reason": "needs CUDA"},
            ],
        },
    }


def three_runs(curves: int = 3) -> list[dict[str, Any]]:
    """Quick on the cpu; later quick again, in part, and standard on a GPU; paper on the GPU, later still.

    The second run's verdict on T2 and fcn4-digits is another one than the first's, that on T1 and fcn4-digits the same.
    """
    quick, mixed, paper = document("quick", curves), document("standard", curves), document("paper", curves)
    rng = random.Random(curves)
    again = (("T1", "fcn4-digits", "reproduced", "reproduced"), ("T2", "fcn4-digits", "inconclusive", "reproduced"))
    mixed["records"] = [record(*line, scale="quick", curves=curves, rng=rng) for line in again]
    mixed["records"] += [on_gpu(record(*line, scale="standard", curves=curves, rng=rng)) for line in _STANDARD]
    paper["records"] = [on_gpu(record(*line, scale="paper", curves=curves, rng=rng)) for line in _PAPER]
    mixed["command"] = "pytest claims"
    mixed["environment"]["torch"] = paper["environment"]["torch"] = "2.16.1"
    return [quick, dated(mixed, "2026-06-20"), dated(paper, "2026-11-24")]


def dated(made: dict[str, Any], day: str) -> dict[str, Any]:
    """The document, with every date in it moved to a day."""
    made |= {key: day + made[key][10:] for key in ("created", "finished")}
    for item in made["records"]:
        item["date"] = day + item["date"][10:]
    return made


def on_gpu(made: dict[str, Any]) -> dict[str, Any]:
    """The record, as a GPU would have made it."""
    return made | {"device": "cuda", "threads": None}


def record(
    claim: str, subject: str, verdict: str, expected: str | None, *, scale: str, curves: int, rng: random.Random
) -> dict[str, Any]:
    """One record; the reason of T22 and a label of L11 try to break out of the page."""
    rise = round(rng.uniform(0.0005, 0.06), 5)
    hostile = f" {HOSTILE}" if claim == "T22" else ""
    return {
        "claim": claim,
        "subject": subject,
        "scale": scale,
        "verdict": verdict,
        "expected": expected,
        "expected_reason": "seen in the prototype at this scale" if expected else "",
        "figure": {
            "label": "largest rise of test error",
            "value": None if claim == "L1" else rise,
            "low": None if claim in ("L1", "X1") else rise - 0.012,
            "high": None if claim in ("L1", "X1") else rise + 0.0173,
            "unit": "",
        },
        "reason": f"The largest rise over all pairs of points was {rise}, against a margin of 0.0443.{hostile}",
        "criterion": "The upper 95% bound of every rise lies below 5% of the total drop of the curve.",
        "needed": 2400 if verdict == "inconclusive" else None,
        "networks": 10,
        "details": {
            "strictly monotone": "8 of 10",
            "total drop": 0.8862,
            "largest difference": 5.563e-07,
            "test examples": 797,
            "norm of the barrier": None,
        },
        "settings": [_setting(seed) for seed in range(4)],
        "charts": [error_curves(claim, curves, rng)] + ([_few_points(rng)] if claim in ("L6", "T1") else []),
        "device": "cpu",
        "threads": 1,
        "date": "2026-02-03T09:01:07+00:00",
        "seconds": 1.2,
        "reproduce": f"mli-check run {claim} --scale {scale}",
    }


def _setting(seed: int) -> dict[str, str]:
    summary = f"fcn 64-64-64-64-10, digits, SGD lr 0.1, momentum 0.9, 60 epochs, seed {seed}"
    return {"digest": hashlib.sha256(summary.encode()).hexdigest(), "summary": summary}


def error_curves(claim: str, curves: int, rng: random.Random) -> dict[str, Any]:
    """A chart of curves in three groups; with two values missing for T4, a hostile label for L11."""
    return {
        "title": "Test error along the three paths",
        "x_label": "alpha",
        "y_label": "test error",
        "x": GRID,
        "series": [
            {
                "group": GROUPS[number % len(GROUPS)],
                "label": f"seed {number // len(GROUPS)}{HOSTILE if claim == 'L11' else ''}",
                "y": curve(number % len(GROUPS), rng, gap=claim == "T4" and number == 0),
            }
            for number in range(curves)
        ],
    }


def curve(group: int, rng: random.Random, gap: bool) -> list[float | None]:
    """A curve like those of the papers: a plateau at chance, then a fall; with two missing values if `gap`."""
    middle, width = 0.62 - 0.14 * group + rng.gauss(0, 0.035), 0.055 + 0.01 * group
    values: list[float | None] = [
        0.02 + 0.88 / (1 + math.exp((alpha - middle) / width)) + rng.gauss(0, 0.003) for alpha in GRID
    ]
    if gap:
        values[20] = values[21] = None
    return values


def _few_points(rng: random.Random) -> dict[str, Any]:
    rates = [0.01, 0.03, 0.1, 0.3]
    return {
        "title": "Share of monotone networks by learning rate",
        "x_label": "learning rate",
        "y_label": "share monotone",
        "x": rates,
        "series": [
            {"group": name, "label": "64 networks", "y": [1 - loss * rate - rng.uniform(0, 0.02) for rate in rates]}
            for name, loss in (("SGD", 0.1), ("Adam", 2.6))
        ],
    }
