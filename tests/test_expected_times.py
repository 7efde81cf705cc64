"""Tests of scripts/expected_times.py: what it counts is what training and curves do, whatever a step takes here."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
from helpers import module_at

from mli_check import subjects
from mli_check.training.fit import fit
from mli_check.training.sets import training_data

SCRIPT = Path(__file__).resolve().parents[1] / "scripts" / "expected_times.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return module_at(SCRIPT, "expected_times")


def test_a_network_takes_the_steps_that_training_takes(script: ModuleType) -> None:
    subject = subjects.get("vgg-bn-digits", "quick")
    setting = subject.setting.with_recipe(epochs=2, milestones=(), checkpoints=())
    trained = fit(setting, training_data(setting))
    times = script.expected(replace(subject, setting=setting), steps=3)
    assert times.steps == trained.history[-1]["iteration"]
    assert times.examples == 797 + 250  # test images, and training images for the statistics of BN
    assert times.step > 0
    assert times.curve > 0


@pytest.mark.parametrize("subject", subjects.SUBJECTS, ids=lambda subject: f"{subject.name}-{subject.scale}")
def test_every_subject_has_examples_to_count_and_to_draw(script: ModuleType, subject: subjects.Subject) -> None:
    train, test = script.sizes(subject)
    assert train > 0
    assert test > 0
    data = script.drawn(subject, 4, "cpu")
    assert len(data) == 4
    assert data.classes >= 2


def test_what_is_done_once_does_not_count(script: ModuleType) -> None:
    def job(count: int) -> None:
        time.sleep(0.3 + 0.02 * count)

    assert script.each(job, 2, 12, "cpu") == pytest.approx(0.02, rel=0.2)


def test_hours_are_those_of_all_networks(script: ModuleType) -> None:
    times = script.Times(step=0.01, curve=90.0, steps=3600, examples=1000)
    assert times.training(10) == pytest.approx(0.1)
    row = script.line(subjects.get("fcn4-mnist", "paper"), times)
    assert row == "| fcn4-mnist | 10 | 3,600 | 10 | 0.1 | 1,000 | 1.5 |"


def test_only_the_subjects_that_are_asked_for(script: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    script.main(["--scale", "quick", "--subject", "fcn4-digits", "--steps", "3", "--device", "cpu"])
    rows = [row for row in capsys.readouterr().out.splitlines() if row.startswith("| fcn4")]
    assert [row.split(" | ")[0] for row in rows] == ["| fcn4-digits"]
