"""The command line: what it prints, its exit statuses, and that bad input leaves nothing behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mli_check import results
from mli_check.statistics import Verdict
from mli_check.verdicts import Figure, Ruling

ROOT = Path(__file__).parent.parent


def mli_check(*arguments: str | Path, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own, as a user would, in `folder`."""
    code = "from mli_check.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-P", "-c", code, *map(str, arguments)],
        cwd=folder,
        env=os.environ | {"NO_COLOR": "1", "COLUMNS": "140"} | variables,
        capture_output=True,
        text=True,
        timeout=240,
    )


def document(verdict: str = "reproduced", claim: str = "T1") -> results.Document:
    made = results.new_document("mli-check run", "quick", "cpu")
    ruling = Ruling(verdict=Verdict(verdict), reason="made by hand", figure=Figure(label="rise", value=0.01))
    made["records"].append(
        results.record(claim=claim, subject="fcn4-digits", scale="quick", ruling=ruling, criterion="by hand")
    )
    return made


@pytest.fixture
def written(tmp_path: Path) -> Path:
    results.write(tmp_path / "results.json", document())
    return tmp_path / "results.json"


def test_help_imports_neither_torch_nor_the_other_heavy_parts(tmp_path: Path) -> None:
    code = """
import sys
from typer.testing import CliRunner
from mli_check.cli import app
for arguments in (["--help"], ["run", "--help"], ["runs", "--help"], ["--version"]):
    assert CliRunner().invoke(app, arguments).exit_code == 0, arguments
heavy = {"torch", "numpy", "scipy", "sklearn", "altair", "pytest", "jinja2"} & set(sys.modules)
assert not heavy, heavy
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_claims_lists_every_claim_as_json_and_as_a_table(tmp_path: Path) -> None:
    from mli_check import catalogue

    listed = json.loads(mli_check("claims", "--json", folder=tmp_path).stdout)
    assert [entry["id"] for entry in listed] == list(catalogue.ids())
    assert all({"id", "status", "paper", "where", "statement"} <= entry.keys() for entry in listed)
    table = mli_check("claims", folder=tmp_path).stdout
    assert all(f" {name} " in table for name in catalogue.ids())


def test_run_judges_a_claim_and_writes_results_and_report(tmp_path: Path) -> None:
    done = mli_check("run", "T24", "--store", tmp_path / "store", "-n", "1", folder=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "reproduced" in done.stdout
    assert "report: mli-check-results/report.html" in done.stdout
    found = results.read(tmp_path / "mli-check-results" / "results.json")
    assert [(entry["claim"], entry["subject"]) for entry in found["records"]] == [("T24", "fcn4-digits")]
    assert found["command"].startswith("mli-check run T24")
    assert sorted(path.name for path in (tmp_path / "mli-check-results").iterdir()) == ["report.html", "results.json"]
    flipped = document("not reproduced", "T24")
    results.write(tmp_path / "base.json", flipped)
    again = mli_check(
        "run", "T24", "--store", tmp_path / "store", "-n", "1", "--baseline", tmp_path / "base.json", folder=tmp_path
    )
    assert again.returncode == 1
    assert "flipped" in again.stdout


def test_run_is_shielded_from_a_hostile_project(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text('[tool.pytest.ini_options]\naddopts = "--no-such-option"\n')
    (tmp_path / "conftest.py").write_text("raise RuntimeError('a foreign conftest was loaded')\n")
    (tmp_path / "torch.py").write_text("raise RuntimeError('a foreign module was imported')\n")
    done = mli_check(
        "run", "T24", "--store", tmp_path / "store", "-n", "2", folder=tmp_path,
        PYTEST_ADDOPTS="--nonsense", PYTEST_PLUGINS="nonsense",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


BAD = {
    "unknown claim": (["run", "T99"], "unknown claim 'T99'"),
    "planned claim": (["run", "U7"], "planned"),
    "unknown subject": (["run", "--subject", "fcn5-digits"], "Did you mean `fcn4-digits`"),
    "unknown scale": (["run", "--scale", "huge"], "unknown scale 'huge'"),
    "unknown device": (["run", "--device", "quantum"], "--device quantum"),
    "unknown option": (["run", "--no-such-option"], "--no-such-option"),
    "negative workers": (["run", "-n", "-1"], "-n"),
    "missing baseline": (["run", "--baseline", "nowhere.json"], "nowhere.json"),
    "report into a missing folder": (["run", "--report", "nowhere/report.html"], "folder does not exist"),
    "report is a folder": (["run", "--report", "."], "cannot write the report"),
    "results under a file": (["run", "--results", "file/results.json"], "cannot write results"),
    "report without results": (["report", "nowhere.json"], "cannot read results"),
    "report of a truncated file": (["report", "truncated.json"], "truncated"),
    "report of another version": (["report", "other.json"], "schema 99"),
    "report of something else": (["report", "else.json"], "not a results file"),
    "unwritable report": (["report", "good.json", "-o", "nowhere/report.html"], "nowhere"),
    "compare with a missing file": (["compare", "good.json", "nowhere.json"], "nowhere.json"),
    "compare with a truncated file": (["compare", "truncated.json", "good.json"], "truncated"),
    "no such command": (["sing"], "sing"),
}


@pytest.mark.parametrize(("arguments", "message"), BAD.values(), ids=BAD.keys())
def test_bad_input_is_a_clear_error_with_status_2_and_leaves_nothing(
    tmp_path: Path, arguments: list[str], message: str
) -> None:
    results.write(tmp_path / "good.json", document())
    whole = (tmp_path / "good.json").read_text()
    (tmp_path / "truncated.json").write_text(whole[: len(whole) // 2])
    (tmp_path / "other.json").write_text(whole.replace('"schema": 1', '"schema": 99'))
    (tmp_path / "else.json").write_text('{"name": "package"}')
    (tmp_path / "file").write_text("")
    before = sorted(tmp_path.rglob("*"))
    done = mli_check(*arguments, folder=tmp_path, MLI_CHECK_STORE=str(tmp_path / "store"))
    assert done.returncode == 2, done.stdout + done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert sorted(tmp_path.rglob("*")) == before


def test_a_store_that_cannot_be_written_is_an_error_with_status_2(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("a file where the store's folder should be")
    done = mli_check("run", "T24", "--store", tmp_path / "store", "-n", "1", folder=tmp_path)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "cannot write to the store" in done.stderr
    assert "--store" in done.stderr


def test_report_draws_results(tmp_path: Path, written: Path) -> None:
    done = mli_check("report", written, "-o", tmp_path / "page.html", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "page.html").read_text(encoding="utf-8").lower().startswith("<!doctype html>")


def test_compare_fails_for_a_flip_and_passes_for_a_wavering_verdict(tmp_path: Path, written: Path) -> None:
    results.write(tmp_path / "flipped.json", document("not reproduced"))
    results.write(tmp_path / "wavered.json", document("inconclusive"))
    same = mli_check("compare", written, written, folder=tmp_path)
    assert (same.returncode, "no verdict changed" in same.stdout) == (0, True)
    junit, markdown = tmp_path / "junit.xml", tmp_path / "summary.md"
    flipped = mli_check(
        "compare", written, tmp_path / "flipped.json", "--junit", junit, "--markdown", markdown, folder=tmp_path
    )
    assert flipped.returncode == 1
    assert 'failures="1"' in junit.read_text()
    assert "flipped" in markdown.read_text()
    wavered = mli_check("compare", written, tmp_path / "wavered.json", "--json", folder=tmp_path)
    assert wavered.returncode == 0
    assert json.loads(wavered.stdout)["changes"][0]["kind"] == "wavered"


def test_runs_list_and_prune_on_a_store(tmp_path: Path) -> None:
    from helpers import tiny_setting

    from mli_check import Store

    store = Store(tmp_path / "store")
    run = store.train(tiny_setting())
    listed = json.loads(mli_check("runs", "list", "--json", "--store", store.root, folder=tmp_path).stdout)
    assert [entry["digest"] for entry in listed] == [run.setting.digest]
    assert run.setting.digest[:12] in mli_check("runs", "list", "--store", store.root, folder=tmp_path).stdout
    dry = mli_check("runs", "prune", "--all", "--dry-run", "--store", store.root, folder=tmp_path)
    assert "1 folders would be deleted" in dry.stdout
    assert store.find(run.setting) is not None
    assert mli_check("runs", "prune", "--all", "--store", store.root, folder=tmp_path).returncode == 0
    assert store.find(run.setting) is None


def test_the_readme_has_the_two_commands_that_ci_runs() -> None:
    script = [sys.executable, ROOT / "scripts" / "readme_command.py"]
    printed = [subprocess.run([*script, number], capture_output=True, text=True).stdout for number in ("1", "2")]
    assert "mli-check run" in printed[0]
    assert "pytest" in printed[1]
    assert subprocess.run([*script, "9"], capture_output=True).returncode != 0


@pytest.mark.parametrize("scales", [["quick", "standard"], ["smoke"], ["paper"]], ids=" and ".join)
def test_claims_are_put_in_the_order_of_their_subjects(tmp_path: Path, scales: list[str]) -> None:
    """The group of claims that takes longest has to start first, or one worker is left with it at the end."""
    from mli_check import subjects

    command = [sys.executable, "-m", "pytest", ROOT / "claims", "-c", ROOT / "claims" / "pytest.ini", "--collect-only"]
    command += [f"--scale={scales[0]}"] if len(scales) == 1 else []
    done = subprocess.run([*command, "-q", "-p", "no:cacheprovider"], cwd=tmp_path, capture_output=True, text=True)
    listed = [line.rpartition("[")[2].rstrip("]") for line in done.stdout.splitlines() if line.endswith("]")]
    order = [subject.name for subject in subjects.SUBJECTS if subject.scale in scales]
    assert set(listed) == set(order)
    assert listed == sorted(listed, key=order.index)


# symmetries


def test_symmetries_prints_dimension_basis_and_what_alpha_theta_violates(tmp_path: Path) -> None:
    done = mli_check("symmetries", "--model", "torchvision.models:resnet18", "--input", "2,3,64,64", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "dimension   32 with the output fixed, 33 with the output free" in done.stdout
    assert "\n  conv1.weight*a\n" in done.stdout
    tail = done.stdout.split("alpha*theta violates ")[1].splitlines()
    assert tail[0] == "2 equations (at alpha = 1/2)"
    assert tail[1].startswith("  `fc.bias` must scale as 1/4 here, alpha*theta scales it as 1/2")
    assert tail[2].startswith("  the output must scale as 1 here, alpha*theta scales it as 1/4")


def test_symmetries_takes_a_model_of_the_current_folder_and_prints_json(tmp_path: Path) -> None:
    lines = (
        "from torch import nn",
        "def tokens(): return nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 2, bias=False))",
        "ready = nn.Linear(3, 2)",
    )
    (tmp_path / "mine.py").write_text("\n".join(lines))
    done = mli_check("symmetries", "--model", "mine:tokens", "--input", "2,7:int", "--json", folder=tmp_path)
    found = json.loads(done.stdout)
    assert found["basis"] == [{"0.weight": "1", "1.weight": "-1"}]
    assert (found["dimension"], found["dimension_free"], found["mode"]) == (1, 2, "train")
    assert [one["what"] for one in found["alpha_theta_violates"]] == ["the output"]
    done = mli_check("symmetries", "--model", "mine:ready", "--input", "2,3", "--mode", "eval", folder=tmp_path)
    assert "mine:ready, eval mode, input 2,3" in done.stdout
    assert "dimension   0 with the output fixed, 1 with the output free" in done.stdout


def test_symmetries_says_what_is_wrong_on_one_line_of_standard_error(tmp_path: Path) -> None:
    words = ("symmetries", "--model", "torchvision.models:resnet19", "--input", "2,3,64,64")
    done = mli_check(*words, folder=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: 'torchvision.models' has no 'resnet19'")
    assert "Traceback" not in done.stderr
