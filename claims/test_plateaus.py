"""T6: networks with BN leave the plateau earlier."""

from __future__ import annotations

import pytest

from mli_check.verdicts import all_positive
from mli_check.workbench import LEFT_ENDS, error_chart

PAIRS = {"vgg-digits": ("vgg-digits", "vgg-bn-digits")}


def criterion(plateaus_without: dict[str, list[float]], plateaus_with: dict[str, list[float]]):
    """Plateau lengths by left end, networks in the same order: see `all_positive`."""
    differences = {
        left: [a - b for a, b in zip(values, plateaus_with[left], strict=True)]
        for left, values in plateaus_without.items()
    }
    return all_positive(differences, "plateau without BN minus plateau with BN (least of three paths)")


@pytest.mark.claim(
    id="T6",
    expected="inconclusive",
    reason="from zero the plateau is shorter by about 0.2, from an initialisation there is no clear difference: the "
    "small VGG has little plateau to shorten there",
)
@pytest.mark.parametrize("subject", list(PAIRS), indirect=True)
def test_plateau_is_shorter_with_batch_normalisation(mli, bench, subject):
    """The plateau is the smallest alpha at which the class-balanced test error has fallen by a tenth of its total drop.
    Over at least 10 pairs of networks, with and without BN, of the same seeds and recipe, the 95% interval of the mean
    difference lies above 0 on all three paths (own initialisation, unrelated initialisation, zero; BN statistics
    recalculated). Not reproduced if on any path the difference is surely below 0.02 (level 0.05 over the paths).
    """
    without, with_bn = (bench(name) for name in PAIRS[subject.name])
    measured = {left: (without.curves(left), with_bn.curves(left)) for left in LEFT_ENDS}
    lengths = [
        {left: [curve.plateau("balanced_error") for curve in pair[side]] for left, pair in measured.items()}
        for side in (0, 1)
    ]
    ruling = criterion(*lengths)
    charts = [
        error_chart(f"Test error from {title}", {"without BN": measured[left][0], "with BN": measured[left][1]})
        for left, title in LEFT_ENDS.items()
    ]
    settings = [*without.settings, *with_bn.settings]
    mli.record(ruling, subject=subject.name, charts=charts, settings=settings, device=without.device)
