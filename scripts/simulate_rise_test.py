"""Error rates and power of the rise test, by simulation: the tables of docs/verdicts.md.

The model. A curve has 51 points and a true class-balanced error p(alpha) that goes from 0.9, chance for ten classes, to
about 0.05. Class k has its own error p_k(alpha); the p_k average to p exactly, in one of two ways:

- `mixed`: p_k = p + p (1 - p) s_k, with s_k spread evenly over [-1, 1];
- `one class`: on the plateau the network names one class whatever it sees, so that p_k is 0 there for that class and 1
  for the others; from there each p_k goes in proportion to its end.

Each example has a latent Gaussian process over alpha of mean 0 and variance 1, with correlation exp(-d^2 / (2 l^2)) at
distance d, and is misclassified where the process lies below the standard normal quantile of p_k(alpha). So the
marginal errors are exact, and one example's outcomes at neighbouring points agree: where the curve is flat they differ
for at most 6.3% of the examples at l = 0.1 and 2.1% at l = 0.3. At alpha = 0 all logits tie, so there every error is
0.9 exactly. Class sizes are in the proportions of scikit-learn's digits (174 to 183 of 1797). All curves and tables
share their random draws, so that their differences are surer than their rates.

`--repeats` counts the simulations behind each rate of the first table; the other tables take a quarter of that, and
samples of more than 1,000 examples a fifth of what their table takes.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy
from scipy import stats

from mli_check.statistics import Z_975, rise_test, wilson

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from numpy.typing import NDArray

    Floats = NDArray[np.floating]
    Labels = NDArray[np.int64]

POINTS, CLASSES, CHANCE, END = 51, 10, 0.9, 0.05
DIGITS = np.array([178, 182, 177, 183, 181, 182, 181, 179, 174, 180])
MARGIN = 0.05
SMALL, LARGE = 797, 20_000
LENGTHS = (0.1, 0.3)
RISES = (0.0, 0.01, 0.025, 0.04, 0.05, 0.075, 0.1, 0.15, 0.2)  # shares of the drop; the margin is the fifth


@dataclass(frozen=True)
class Scenario:
    """A true curve: its name, knots (point, error), its rise in units of error, how its classes differ."""

    name: str
    knots: tuple[tuple[int, float], ...]
    rise: float = 0.0
    classes: str = "mixed"

    @property
    def drop(self) -> float:
        return self.knots[0][1] - self.knots[-1][1]

    def errors(self) -> Floats:
        """The true error of each class at each point, shape (classes, points)."""
        points, values = zip(*self.knots, strict=True)
        curve = np.interp(np.arange(POINTS), points, values)[None, :]
        plateau = np.where(np.arange(CLASSES) == 0, 0.0, 1.0)[:, None]
        one_class: Floats = END + (plateau - END) * (curve - END) / (CHANCE - END)
        mixed: Floats = curve + curve * (1 - curve) * np.linspace(-1, 1, CLASSES)[:, None]
        return mixed if self.classes == "mixed" else one_class


def on_plateau(share: float) -> Scenario:
    rise = share * (CHANCE - END)
    knots = ((0, CHANCE), (6, CHANCE), (10, CHANCE - rise), (14, CHANCE), (36, END), (50, END))
    return Scenario("bump on the plateau", knots, rise)


def in_descent(share: float) -> Scenario:
    rise = share * (CHANCE - END)
    knots = ((0, CHANCE), (10, CHANCE), (18, 0.5), (20, 0.5 + rise), (34, END), (50, END))
    return Scenario("bump in the descent", knots, rise)


def on_last_step(share: float) -> Scenario:
    rise = share * (CHANCE - END) / (1 + share)  # the rise is itself a part of the end's error
    knots = ((0, CHANCE), (10, CHANCE), (30, 0.15), (49, END), (50, END + rise))
    return Scenario("rise on the last step", knots, rise)


def two_bumps(share: float) -> Scenario:
    rise = share * (CHANCE - END)
    first, second = on_plateau(share).knots[:4], ((22, 0.5), (24, 0.5 + rise), (36, END), (50, END))
    return Scenario("two bumps", first + second, rise)


def flat() -> list[Scenario]:
    """Curves that never rise: steps with long plateaus at chance, at the end's error, or both."""
    knots = {
        "step in the middle": ((0, CHANCE), (20, CHANCE), (30, END), (50, END)),
        "early step, long end": ((0, CHANCE), (2, CHANCE), (8, END), (50, END)),
        "late step, long plateau": ((0, CHANCE), (42, CHANCE), (48, END), (50, END)),
    }
    return [Scenario(name, points, classes=kind) for kind in ("mixed", "one class") for name, points in knots.items()]


def class_sizes(count: int) -> Labels:
    """`count` examples in the proportions of the digits, what is over going to the largest remainders."""
    shares = DIGITS * count / DIGITS.sum()
    sizes: Labels = shares.astype(np.int64)
    sizes[np.argsort(sizes - shares)[: count - sizes.sum()]] += 1
    return sizes


def process_factor(length: float) -> Floats:
    """Shape (rank, points): standard normal vectors times this are draws of the process, exact in their variance."""
    grid = np.linspace(0, 1, POINTS)
    kernel = np.exp(-((grid[:, None] - grid[None, :]) ** 2) / (2 * length**2))
    values, vectors = np.linalg.eigh(kernel)
    keep = values > 1e-8
    factor = (vectors[:, keep] * np.sqrt(values[keep])).T
    exact: Floats = (factor / np.linalg.norm(factor, axis=0)).astype(np.float32)
    return exact


def outcomes(latent: Floats, labels: Labels, thresholds: Floats) -> Floats:
    """Errors per example, shape (examples, points), from the latent process and each class's quantiles."""
    errors: Floats = (latent < thresholds[labels]).astype(np.float64)
    errors[:, 0] = CHANCE
    return errors


def mcnemar_finds_a_rise(errors: Floats, level: float = 0.05) -> bool:
    """Whether exact one-sided McNemar tests of all pairs i < j find a rise, at level / pairs (Bonferroni)."""
    plain = errors[:, 1:]  # the tie at alpha = 0 is no yes or no
    rises = ((1 - plain).T @ plain)[np.triu_indices(POINTS - 1, k=1)]
    falls = (plain.T @ (1 - plain))[np.triu_indices(POINTS - 1, k=1)]
    p_values = stats.binom.sf(rises - 1, rises + falls, 0.5)
    return bool(p_values.min() <= level / len(p_values))


@dataclass(frozen=True)
class Cell:
    """What the tests said of one true curve at one sample size and correlation length."""

    scenario: Scenario
    examples: int
    length: float
    repeats: int
    counts: Counter[str]
    critical: float

    def rate(self, outcome: str) -> str:
        share = wilson(self.counts[outcome], self.repeats)
        return f"{share.estimate:.1%} ({100 * share.low:.1f}-{100 * share.high:.1f})"

    def record(self) -> dict[str, Any]:
        """For the JSON file: plain numbers."""
        truth = {"curve": self.scenario.name, "classes": self.scenario.classes, "rise": self.scenario.rise}
        sample = {"drop": self.scenario.drop, "examples": self.examples, "length": self.length}
        return truth | sample | {"repeats": self.repeats, "critical": self.critical, "counts": dict(self.counts)}


def simulate(
    scenarios: Sequence[Scenario], examples: int, length: float, repeats: int, seed: int, *, reference: bool = False
) -> list[Cell]:
    """One cell a scenario; `reference` adds McNemar's test. Repeats draw from (seed, examples, length, repeat)."""
    labels = np.repeat(np.arange(CLASSES), class_sizes(examples))
    factor = process_factor(length)
    thresholds = [stats.norm.ppf(scenario.errors()).astype(np.float32) for scenario in scenarios]
    counts: list[Counter[str]] = [Counter() for _ in scenarios]
    critical: list[list[float]] = [[] for _ in scenarios]
    for repeat in range(repeats):
        rng = np.random.default_rng((seed, examples, round(1000 * length), repeat))
        latent = rng.standard_normal((examples, len(factor)), dtype=np.float32) @ factor
        for index, threshold in enumerate(thresholds):
            errors = outcomes(latent, labels, threshold)
            test = rise_test(errors, labels, margin=MARGIN)
            counts[index][test.decision.value] += 1
            counts[index]["certain rise"] += test.certain_rise
            critical[index].append(test.critical)
            if reference:
                counts[index]["McNemar"] += mcnemar_finds_a_rise(errors)
    cells = zip(scenarios, counts, critical, strict=True)
    return [Cell(scenario, examples, length, repeats, count, median(c)) for scenario, count, c in cells]


def exact_worst_rate(examples: int, margin: float) -> float:
    """False `reproduced` at a true rise of `margin` that no example runs against: the binomial distribution's own."""
    rises = np.arange(examples + 1)
    spread = np.sqrt(rises * (1 - rises / examples) + 2)
    missed = (rises + Z_975 * spread) / examples <= margin
    return float(stats.binom.pmf(rises, examples, margin)[missed].sum())


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def show(title: str, cells: Sequence[Cell], columns: dict[str, Callable[[Cell], str]]) -> None:
    where: dict[str, Callable[[Cell], str]] = {
        "true curve": lambda cell: cell.scenario.name,
        "examples": lambda cell: f"{cell.examples:,}",
        "l": lambda cell: str(cell.length),
    }
    every = where | columns | {"simulations": lambda cell: f"{cell.repeats:,}"}
    print(f"\n### {title}\n")
    print(markdown(list(every), ([column(cell) for column in every.values()] for cell in cells)), flush=True)


def show_power(outcome: str, shares: Sequence[float], cells: Sequence[Cell]) -> None:
    """One row a curve and rise, one column a sample size and correlation length."""
    columns = {(cell.examples, cell.length): cell.repeats for cell in cells}
    rows: dict[tuple[str, ...], list[str]] = {}
    for cell in cells:
        share = cell.scenario.rise / cell.scenario.drop
        if any(abs(share - wanted) < 1e-9 for wanted in shares):
            key = (cell.scenario.name, *(column(cell) for column in RISE_COLUMNS.values()))
            rows.setdefault(key, []).append(cell.rate(outcome))
    header = [f"n = {n:,}, l = {length} ({count:,})" for (n, length), count in columns.items()]
    print(f"\n### `{outcome}` against the size of the rise (in brackets: simulations)\n")
    print(markdown(["true curve", *RISE_COLUMNS, *header], ([*key, *row] for key, row in rows.items())), flush=True)


def rates(**columns: str) -> dict[str, Callable[[Cell], str]]:
    """Table columns: heading (underscores for spaces) and the outcome it counts."""
    return {title.replace("_", " "): lambda cell, key=key: cell.rate(key) for title, key in columns.items()}  # type: ignore[misc]


VERDICTS = rates(reproduced="reproduced", not_reproduced="not reproduced", inconclusive="inconclusive")
RISE_COLUMNS: dict[str, Callable[[Cell], str]] = {
    "rise, % of drop": lambda cell: f"{100 * cell.scenario.rise / cell.scenario.drop:.1f}",
    "points": lambda cell: f"{100 * cell.scenario.rise:.2f}",
}


def run(scenarios: Sequence[Scenario], sizes: Iterable[int], repeats: int, seed: int, **options: bool) -> list[Cell]:
    """The cells of one table, ordered by curve; large samples take a fifth of the repeats."""
    cells = []
    for examples in sizes:
        for length in LENGTHS:
            print(f"{examples} examples, l = {length}: {len(scenarios)} curves", file=sys.stderr, flush=True)
            count = repeats if examples <= 1000 else max(repeats // 5, 2)
            cells += simulate(scenarios, examples, length, count, seed, **options)
    return sorted(cells, key=lambda cell: (cell.examples, scenarios.index(cell.scenario)))


def tables(repeats: int, sizes: Sequence[int], seed: int) -> dict[str, list[Cell]]:
    """Simulate and print every table."""
    few = max(repeats // 4, 2)
    boundary = [shape(MARGIN) for shape in (on_plateau, in_descent, on_last_step, two_bumps)]
    found = {"boundary": run(boundary, sizes, repeats, seed)}
    show("A rise of exactly the margin", found["boundary"], RISE_COLUMNS | VERDICTS)
    found["flat"] = run(flat(), sizes, few, seed)
    kinds: dict[str, Callable[[Cell], str]] = {"classes": lambda cell: cell.scenario.classes}
    flat_columns = VERDICTS | rates(certain_rise="certain rise") | {"c": lambda cell: f"{cell.critical:.2f}"}
    show("No rise at all", found["flat"], kinds | flat_columns)
    power = [shape(share) for shape in (in_descent, on_last_step) for share in RISES]
    found["power"] = run(power, sizes, few, seed)
    show_power("reproduced", RISES[:5], found["power"])
    show_power("not reproduced", RISES[2:], found["power"])
    share = 0.054 / (CHANCE - END)
    reference = [in_descent(share), on_last_step(0.054 / (CHANCE - END - 0.054))]
    found["reference"] = run(reference, (450, SMALL), few, seed, reference=True)
    columns = rates(McNemar_finds_it="McNemar", certain_rise="certain rise") | VERDICTS
    show("A rise of 5.4 points, and McNemar's test with Bonferroni's correction", found["reference"], columns)
    return found


def show_exact() -> None:
    print("\n### False `reproduced` where every example that changes gets worse (exact, two points)\n")
    drops = (0.1, 0.2, 0.3, 0.5, 0.85)
    rows = [[f"{n:,}", *(f"{exact_worst_rate(n, MARGIN * drop):.1%}" for drop in drops)] for n in (450, SMALL, LARGE)]
    print(markdown(["examples", *(f"drop {drop}" for drop in drops)], rows))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=2000, help="simulations a rate in the first table")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the counts there too")
    parser.add_argument("--quick", action="store_true", help="a few simulations and no large sample: seconds")
    options = parser.parse_args()
    if options.repeats < 1:
        parser.error(f"--repeats must be at least 1, got {options.repeats}")
    repeats, sizes = (min(options.repeats, 20), (SMALL,)) if options.quick else (options.repeats, (SMALL, LARGE))
    started = time.process_time()
    found = tables(repeats, sizes, options.seed)
    show_exact()
    versions = {"python": platform.python_version(), "numpy": np.__version__, "scipy": scipy.__version__}
    seconds = round(time.process_time() - started)
    about = {"repeats": repeats, "seed": options.seed, "processor seconds": seconds} | versions
    print(", ".join(f"{name} {value}" for name, value in about.items()))
    if options.json:
        cells = {table: [cell.record() for cell in every] for table, every in found.items()}
        options.json.write_text(json.dumps(about | {"tables": cells}, indent=1) + "\n")


if __name__ == "__main__":
    main()
