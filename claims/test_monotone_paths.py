"""T1, T2, T4, T38: test error falls monotonically towards the trained network, whatever the path starts from."""

from __future__ import annotations

import pytest

from mli_check.verdicts import Ruling, all_of, all_positive, never_rises
from mli_check.workbench import LEFT_ENDS, error_chart

FIRST = ["fcn4-digits", "fcn4-gaussian", "vgg-digits", "vgg-bn-digits"]
LARGE = [
    "fcn4-mnist", "fcn4-fashion", "vgg8-cifar10", "vgg8-bn-cifar10", "vgg8-svhn", "vgg16-bn-cifar10", "resnet8-cifar10",
    "resnet20-cifar10", "resnet20-cifar100", "fcn-fashion", "fcn-s7-mnist", "fcn-s7-cifar10",
]  # fmt: skip
QUICK = [*FIRST, "lenet-digits", "resnet8-digits", "fcn4-bn-digits", "fcn4-ln-digits"]
SUBJECTS = [*QUICK, *LARGE]
WITHOUT_RESNET8 = [*FIRST, "lenet-digits", *LARGE]  # which takes too long for more than T1 and T4 at quick scale
SIGNS = {"plus": "theta_F + theta_0", "minus": "theta_F - theta_0"}

criterion = never_rises


def judge(mli, bench, subject, left: str) -> None:
    """Measure the path from `left` in every network of the subject, and record the verdict."""
    table = bench(subject)
    curves = table.curves(left)
    ruling: Ruling = criterion(table.rise_tests(curves))
    if left == "unrelated":  # Figure 2 has all three left ends in one chart
        groups = {f"from {name}": table.curves(end) for end, name in LEFT_ENDS.items()}
        chart = error_chart(f"Test error on three paths to the trained network: {subject.title}", groups)
    else:
        chart = error_chart(f"Test error from {LEFT_ENDS[left]} to the trained network", {subject.title: curves})
    mli.record(ruling, subject=subject, charts=[chart], settings=table.settings, device=table.device)


@pytest.mark.claim(
    id="T1",
    expected=dict.fromkeys(QUICK, "reproduced") | {"vgg-digits": "inconclusive"},
    reason="VGG without BN: 1 or 2 of 20 networks rise by some 5 points near chance level, which 797 images cannot "
    "decide",
)
@pytest.mark.parametrize("subject", SUBJECTS, indirect=True)
def test_error_falls_from_the_own_initialisation(mli, bench, subject):
    """From theta_0 to theta_F (Eq. 1), 51 points: in none of at least 10 networks does the class-balanced, tie-aware
    test error rise anywhere by more than 5% of its total drop. Reproduced if the rise test bounds the rise of every
    network below that margin; not reproduced if the rise of any network surely exceeds it, at level 0.05 over all
    networks; else inconclusive. BN statistics are recalculated at every point.
    """
    judge(mli, bench, subject, "own")


@pytest.mark.claim(
    id="T2",
    expected=dict.fromkeys([*FIRST, "lenet-digits"], "inconclusive"),
    reason="in 3 to 13 of 20 networks (LeNet: of 10) the error may rise by more than the margin near chance level; "
    "with other seeds it surely does in 1 to 3 networks of four subjects, which refutes it there",
)
@pytest.mark.parametrize("subject", WITHOUT_RESNET8, indirect=True)
def test_error_falls_from_an_unrelated_initialisation(mli, bench, subject):
    """From theta_0', a fresh draw of the initialisation for each network, to theta_F (Eq. 2), 51 points: in none of at
    least 10 networks does the class-balanced, tie-aware test error rise anywhere by more than 5% of its total drop.
    Reproduced if the rise test bounds every network's rise below that margin; every draw must hold, so not reproduced
    if the rise of one surely exceeds it (level 0.05 over all networks); else inconclusive.
    """
    judge(mli, bench, subject, "unrelated")


@pytest.mark.claim(
    id="T4",
    expected=dict.fromkeys(QUICK, "reproduced") | dict.fromkeys(["fcn4-gaussian", "vgg-digits"], "inconclusive"),
    reason="VGG without BN: with other seeds 1 of 20 networks stays undecided on 797 images; on the Gaussians all 20 "
    "hold, but on another processor the error of one rose by 4 to 6 points, surely beyond the margin",
)
@pytest.mark.parametrize("subject", SUBJECTS, indirect=True)
def test_error_falls_from_zero(mli, bench, subject):
    """Along alpha * theta_F (Eq. 3), 51 points: in none of at least 10 networks does the class-balanced, tie-aware test
    error rise anywhere by more than 5% of its total drop. Reproduced if the rise test bounds every network's rise below
    that margin; not reproduced if the rise of any surely exceeds it (level 0.05 over all networks); else inconclusive.
    At alpha = 0 all logits tie, which counts as chance error.
    """
    judge(mli, bench, subject, "zero")


def noise_criterion(tests, increases):
    """Rise tests by sign, on the way to theta_F; and what the whole noise adds to the error, by sign and network."""
    parts = {f"monotone from {SIGNS[sign]}": criterion(found) for sign, found in tests.items()}
    named = {SIGNS[sign]: values for sign, values in increases.items()}
    label = "error at |beta| = 1 minus error at 0 (least of two signs)"
    return all_of(parts | {"noise hurts": all_positive(named, label)})


@pytest.mark.claim(
    id="T38",
    expected={"fcn4-digits": "not reproduced", "fcn4-gaussian": "not reproduced", "vgg-bn-digits": "inconclusive"},
    reason="FCN4: adding theta_0 surely raises the error, but by 0.2 to 1.5 points, less than the 2 of interest; "
    "taking it away raises it by 1 to 7; VGG with BN: 1 of 20 networks rises by 4 points from theta_F - theta_0, which "
    "797 images cannot decide",
)
@pytest.mark.parametrize("subject", ["fcn4-digits", "fcn4-gaussian", "vgg-bn-digits", *LARGE], indirect=True)
def test_error_rises_with_the_size_of_added_noise(mli, bench, subject):
    """Along theta_F + beta * theta_0 (Fig. 9 at alpha = 1) with beta from 1 to 0 and from -1 to 0, 51 points each. On
    the way to theta_F the class-balanced, tie-aware test error rises nowhere, in none of at least 10 networks, by more
    than 5% of the way from theta_F's error to chance; and at both ends it lies above theta_F's: the 95% intervals of
    the mean differences over networks lie above 0. Not reproduced if the rise of any network surely exceeds that margin
    (level 0.05 over networks and signs), or either difference is surely below 0.02. BN statistics are recalculated.
    """
    table = bench(subject)
    curves = {sign: table.curves(sign) for sign in SIGNS}
    chance = 1 - 1 / table.test.classes
    margins = {
        sign: [0.05 * max(chance - float(curve.balanced_error[-1]), 0.0) for curve in found]
        for sign, found in curves.items()
    }
    tests = {sign: table.rise_tests(found, len(SIGNS), margins[sign]) for sign, found in curves.items()}
    increases = {
        sign: [curve.balanced_error[0] - curve.balanced_error[-1] for curve in found] for sign, found in curves.items()
    }
    chart = error_chart(
        "Test error on the way to theta_F (alpha = 1 - |beta|)",
        {f"from {SIGNS[sign]}": found for sign, found in curves.items()},
    )
    ruling = noise_criterion(tests, increases)
    mli.record(ruling, subject=subject, charts=[chart], settings=table.settings, device=table.device)
