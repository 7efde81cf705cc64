"""T7, T8: networks that are fine-tuned from pre-trained weights, and layer against batch normalisation."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mli_check.verdicts import all_of, all_positive, never_rises
from mli_check.workbench import LEFT_ENDS, error_chart

FINE_TUNED = ["efficientnet-cifar10", "minilm-mail", "resnet50-cub200", "roberta-ag-news"]
PAIRS = {  # with layer normalisation: its partner with BN
    "fcn4-ln-digits": "fcn4-bn-digits",
    "minilm-mail": "efficientnet-cifar10",
    "roberta-ag-news": "resnet50-cub200",
}
TITLES = LEFT_ENDS | {"own": "the pre-trained weights"}


# T7


def monotone_criterion(tests):
    """Rise tests by left end, networks in the same order: see `never_rises`, for each left end."""
    return all_of({f"from {TITLES[left]}": never_rises(found) for left, found in tests.items()})


@pytest.mark.claim(
    id="T7",
    expected={"efficientnet-cifar10": "inconclusive", "minilm-mail": "not reproduced"},
    reason="EfficientNet-Lite0 is monotone from the pre-trained weights and from zero; from an unrelated init 1,000 "
    "images leave 8 of 10 networks undecided. MiniLM: from an unrelated init and from zero the error of 1 and of 2 "
    "networks surely rises, by up to 20 points",
)
@pytest.mark.parametrize("subject", FINE_TUNED, indirect=True)
def test_error_of_fine_tuned_networks_falls_from_any_left_end(mli, bench, subject):
    """From the pre-trained weights below a fresh head, from an unrelated draw of the whole network, and from zero, to
    the fine-tuned network (Eq. 1 to 3): in none of at least 10 networks, which differ in the head's draw and the order
    of the examples, does the class-balanced, tie-aware test error rise anywhere by more than 5% of its total drop.
    Reproduced if the rise test bounds every network's rise below that margin on all three paths; not reproduced if the
    rise of any surely exceeds it (level 0.05 over networks and paths); else inconclusive. BN statistics are
    recalculated. That this holds with BN and with layer normalisation is told by the subjects.
    """
    table = bench(subject)
    curves = {left: table.curves(left) for left in LEFT_ENDS}
    tests = {left: table.rise_tests(found, parts=len(curves)) for left, found in curves.items()}
    ruling = monotone_criterion(tests)
    details = {**ruling.details}
    for left, found in curves.items():
        details[f"mean error at the left end, {TITLES[left]}"] = mean([c.balanced_error[0] for c in found])
    details["mean error of the fine-tuned networks"] = mean([c.balanced_error[-1] for c in curves["own"]])
    groups = {f"from {TITLES[left]}": found for left, found in curves.items()}
    chart = error_chart(f"Test error on three paths to the fine-tuned network: {subject.title}", groups)
    caption = "Figure 10: the error of ResNet50 (CUB200) and RoBERTa (AG News) falls on all three paths. "
    chart = replace(chart, caption=caption + f"Here: {ruling.reason}.")
    ruling = replace(ruling, details=details)
    mli.record(ruling, subject=subject, charts=[chart], settings=table.settings, device=table.device)


def mean(values):
    """The mean as a plain number."""
    return float(np.mean(values))


# T8


def departure(curve):
    """The mean over alpha in (0, 1] of error(alpha theta_F) - error(theta_F), as a share of the total drop.

    Class-balanced errors; trapezoids from the first alpha above 0. NaN where the error does not drop.
    """
    alphas, errors = curve.alphas[1:], curve.balanced_error[1:]
    drop = curve.balanced_error[0] - errors[-1]
    gap = np.trapezoid(errors - errors[-1], alphas) / (alphas[-1] - alphas[0])
    return float(gap / drop) if drop > 0 else float("nan")


def departure_criterion(with_ln, with_bn):
    """Departures by network, in the same order: see `all_positive`."""
    differences = [a - b for a, b in zip(with_ln, with_bn, strict=True)]
    return all_positive({"LN minus BN": differences}, "departure of alpha * theta_F: with LN minus with BN")


@pytest.mark.claim(id="T8", expected={"fcn4-ln-digits": "reproduced", "minilm-mail": "reproduced"})
@pytest.mark.parametrize("subject", list(PAIRS), indirect=True)
def test_layer_normalisation_leaves_networks_less_scale_invariant_than_batch_normalisation(mli, bench, subject):
    """The departure of a network is the mean over alpha in (0, 1] of the class-balanced test error of alpha theta_F
    minus that of theta_F, as a share of the error's total drop from alpha = 0. Reproduced if over at least 10 pairs of
    networks the 95% interval of the mean difference, with layer normalisation minus with BN (statistics recalculated),
    lies above 0; not reproduced if it is surely below 0.02; else inconclusive. At quick scale the pairs have the same
    seeds, recipe and layers but for the normalisation. The fine-tuned pairs are only numbered alike: MiniLM and
    EfficientNet, RoBERTa and ResNet50 differ in data, recipe, depth, activation and attention too, so that their
    difference is not the normalisation's alone. What layer normalisation and attention break, equation by equation, X7
    takes apart by leaving out the softmax, GELU, the additions and the weights of LN.
    """
    tables = {"LN": bench(subject), "BN": bench(PAIRS[subject.name])}
    curves = {kind: table.curves("zero") for kind, table in tables.items()}
    departures = {kind: [departure(curve) for curve in found] for kind, found in curves.items()}
    ruling = departure_criterion(departures["LN"], departures["BN"])
    details = {**ruling.details}
    for kind, found in curves.items():
        details[f"mean departure with {kind}"] = mean(departures[kind])
        details[f"mean plateau with {kind}"] = mean([curve.plateau("balanced_error") for curve in found])
        details[f"mean error of theta_F with {kind}"] = mean([curve.balanced_error[-1] for curve in found])
    groups = {tables[kind].subject.title: found for kind, found in curves.items()}
    caption = "Figure 10: RoBERTa's error is high for longer along alpha * theta_F than ResNet50's. "
    chart = replace(error_chart("Test error of alpha * theta_F", groups), caption=caption + f"Here: {ruling.reason}.")
    settings = [setting for table in tables.values() for setting in table.settings]
    ruling = replace(ruling, details=details)
    mli.record(ruling, subject=subject, charts=[chart], settings=settings, device=tables["LN"].device)
