"""T27, T28: what becomes of BN's running statistics along the path, from theta_0 and from checkpoints."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mli_check.paths import LinearPath
from mli_check.verdicts import all_of, all_positive, never_rises
from mli_check.workbench import error_chart

RESNETS = ["resnet8-cifar10", "resnet20-cifar10", "resnet20-cifar100"]
SUBJECTS = ["vgg-bn-digits", "vgg8-bn-cifar10", "vgg16-bn-cifar10", *RESNETS]
FROM_CHECKPOINTS = ["vgg-bn-digits", "vgg16-bn-cifar10", "resnet8-cifar10", "resnet20-cifar100"]
POLICIES = {
    "recalibrate": "recalculated at every point",
    "freeze": "frozen at the final network's",
    "interpolate": "interpolated with the weights",
}
NETWORKS = 10  # from checkpoints, of a subject that has more
POINTS = 21  # from checkpoints: the curves are many
BARRIER = (0.1, 0.5)  # alphas over which its height is averaged, fixed so that no maximum of noise is taken
TRAINED = 0.5  # of chance: a checkpoint with a larger error cannot show a barrier
MARGIN = 0.05  # of the way from theta_F's error to chance, as in T38: the drop from a late checkpoint is tiny


# T27


def criterion(tests, plateaus):
    """Rise tests and plateau lengths by policy, networks in the same order."""
    parts = {f"monotone, {policy}": never_rises(found) for policy, found in tests.items()}
    differences = {
        policy: [a - b for a, b in zip(plateaus[policy], plateaus["recalibrate"], strict=True)]
        for policy in ("freeze", "interpolate")
    }
    parts["longer plateaus"] = all_positive(differences, "plateau minus plateau with recalculated statistics")
    return all_of(parts)


@pytest.mark.claim(
    id="T27",
    expected={"vgg-bn-digits": "inconclusive"},
    reason="one of 20 networks with interpolated statistics rises by 4 points, which 797 images cannot decide; the "
    "rest holds, and with other seeds this too",
)
@pytest.mark.parametrize("subject", SUBJECTS, indirect=True)
def test_error_falls_under_every_policy_and_recalculation_shortens_the_plateau(mli, bench, subject):
    """From theta_0 to theta_F with the running statistics frozen, interpolated or recalculated: under each policy the
    test error never rises in any of at least 10 networks (judged like T1, level 0.05 over all networks and policies);
    and the plateau is longer when frozen and when interpolated than when recalculated: the 95% interval of the mean
    difference over networks lies above 0 for both (refuted if either is surely below 0.02).
    """
    table = bench(subject)
    curves = {policy: table.curves("own", None if policy == "recalibrate" else policy) for policy in POLICIES}
    tests = {policy: table.rise_tests(found, parts=len(POLICIES)) for policy, found in curves.items()}
    plateaus = {policy: [curve.plateau("balanced_error") for curve in found] for policy, found in curves.items()}
    chart = error_chart(
        "Test error from own initialisation to the trained network",
        {f"statistics {POLICIES[policy]}": found for policy, found in curves.items()},
    )
    ruling = criterion(tests, plateaus)
    mli.record(ruling, subject=subject, charts=[chart], settings=table.settings, device=table.device)


# T28


def barrier(curve):
    """The mean class-balanced error over alpha from 0.1 to 0.5, minus that at alpha = 0."""
    alphas = np.round(curve.alphas, 6)
    within = (alphas >= BARRIER[0]) & (alphas <= BARRIER[1])
    return float(curve.balanced_error[within].mean() - curve.balanced_error[0])


def can_show_a_barrier(curves, chance):
    """Whether the checkpoints of all networks are good enough."""
    return all(curve.balanced_error[0] < TRAINED * chance for curve in curves)


def checkpoint_criterion(barriers, tests):
    """Barriers with interpolated, and rise tests with recalculated statistics, by checkpoint, a value a network."""
    label = "mean error over alpha 0.1 to 0.5 minus that of the checkpoint (least of the checkpoints)"
    parts = {"barriers when interpolated": all_positive(barriers, label)}
    return all_of(parts | {f"monotone when recalculated, from {name}": never_rises(t) for name, t in tests.items()})


@pytest.mark.claim(
    id="T28",
    expected={"vgg-bn-digits": "not reproduced"},
    reason="monotone from every checkpoint after recalculation; but with interpolated statistics the error falls too, "
    "by 0.09 to 0.11 from iteration 30 and by 0.01 from 100: no barrier at this scale",
)
@pytest.mark.parametrize("subject", FROM_CHECKPOINTS, indirect=True)
def test_interpolated_statistics_make_a_barrier_from_checkpoints_and_recalculated_ones_none(mli, bench, subject):
    """From the states after 3, 10, 30, 100, ... iterations to theta_F, 21 points, 10 networks. Interpolated running
    statistics: the barrier is the mean over alpha from 0.1 to 0.5 of the class-balanced test error minus the
    checkpoint's own, J(0); its 95% interval of the mean over networks lies above 0 from every checkpoint whose J(0) is
    below half of chance in all networks (earlier ones cannot show any). Reset and recalculated over the training set
    (large ones: a sample) at every point: from every checkpoint the error rises nowhere, in any network, by more than
    5% of the way from theta_F's error to chance. Reproduced if both hold; not reproduced if a barrier is surely below
    0.02 or a rise surely exceeds that margin (level 0.05 over networks and checkpoints); else inconclusive.
    """
    table, warmed = bench(subject), bench(calibrated_on_all(subject))
    settings, chance = table.settings[:NETWORKS], 1 - 1 / table.test.classes
    interpolated = from_checkpoints(table, settings, "interpolate")
    recalculated = from_checkpoints(warmed, settings, "recalibrate")
    shown = {name: found for name, found in interpolated.items() if can_show_a_barrier(found, chance)}
    tests = {}
    for name, found in recalculated.items():
        margins = [MARGIN * max(chance - float(curve.balanced_error[-1]), 0.0) for curve in found]
        tests[name] = table.rise_tests(found, len(recalculated), margins)
    ruling = checkpoint_criterion({name: [barrier(c) for c in found] for name, found in shown.items()}, tests)
    left_out = ", ".join(name for name in interpolated if name not in shown)
    details = {**ruling.details, "left out of the barriers for their error": left_out or "none"}
    details |= means_by_checkpoint(interpolated, recalculated)
    charts = [checkpoint_chart("interpolated", interpolated), checkpoint_chart("recalculated", recalculated)]
    mli.record(replace(ruling, details=details), subject=subject, charts=charts, settings=settings, device=table.device)


def calibrated_on_all(subject):
    """The subject with all training examples for calibration, where these are few; the networks are the same."""
    if subject.scale != "quick":
        return subject
    return replace(subject, name=f"{subject.name}, calibrated on all", calibration_examples=0)


def from_checkpoints(table, settings, norm_stats):
    """By checkpoint: the curves of all networks from there to theta_F."""
    runs = table.runs(settings)
    starts = [(step, run) for step in settings[0].recipe.checkpoints for run in runs]
    paths = [LinearPath(table.here(run.checkpoints[step]), table.here(run.final)) for step, run in starts]
    curves = table.measure(paths, points=min(POINTS, table.subject.points), norm_stats=norm_stats)
    found = {}
    for (step, _), curve in zip(starts, curves, strict=True):
        found.setdefault(f"iteration {step}", []).append(curve)
    return found


def means_by_checkpoint(interpolated, recalculated):
    """The checkpoints' own errors and barriers under both policies, averaged over networks; the largest rises too."""
    found = {}
    for name, curves in interpolated.items():
        found[f"error of the checkpoint, {name}"] = float(np.mean([curve.balanced_error[0] for curve in curves]))
        found[f"barrier when interpolated, {name}"] = mean_barrier(curves)
        found[f"the same when recalculated, {name}"] = mean_barrier(recalculated[name])
        found[f"largest rise when interpolated, {name}"] = max(curve.delta("balanced_error") for curve in curves)
    return found


def mean_barrier(curves):
    """The mean over networks."""
    return float(np.mean([barrier(curve) for curve in curves]))


SEEN = {  # in the two columns of Figure 5, and how to read ours
    "interpolated": "error barriers between checkpoint and end",
    "recalculated": "monotone curves from every checkpoint",
}


def checkpoint_chart(how, curves):
    """One column of Figure 5."""
    heights = ", ".join(f"{mean_barrier(found):+.3f} from {name}" for name, found in curves.items())
    caption = (
        f"Figure 5: {SEEN[how]}. Here the mean error over alpha from 0.1 to 0.5, less the checkpoint's own, is "
        f"{heights}."
    )
    chart = error_chart(f"Test error from checkpoints to the trained network, statistics {how}", curves)
    return replace(chart, caption=caption)
