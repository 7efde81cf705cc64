"""`mli-check data`: what it prints, its exit statuses, and that bad input is one line on standard error."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from urllib.error import URLError

import pytest
from test_data_import import SMALL, below, folder_of, idx, inside, put_hosts, put_small_records, tar_of

from mli_check import cli
from mli_check.data import IMAGE_SETS, PREPARED_SETS, load_dataset
from mli_check.data.weights import PRETRAINED

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs the command line in this process with small records: exit status, standard output and error."""
    put_small_records(monkeypatch)
    monkeypatch.setenv("COLUMNS", "140")
    monkeypatch.setenv("NO_COLOR", "1")

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["mli-check", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return (int(ended.value.code or 0), *capsys.readouterr())

    return call


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "root"


def source(name: str, folder: Path) -> Path:
    return tar_of(inside("package/data", SMALL[name].files), folder / f"{name}-1.0.tgz")


def test_import_says_where_it_wrote_and_list_finds_it(run: Run, root: Path, tmp_path: Path) -> None:
    for name, small in SMALL.items():
        status, out, err = run("data", "import", name, source(name, tmp_path), "--data-root", root)
        folder = root / small.entry.folder
        assert (status, out, err) == (0, f"{name}: checked and written to {folder}\n", "")
    status, out, err = run("data", "list", "--json", "--data-root", root)
    assert (status, err) == (0, "")
    states = {entry["name"]: entry["state"] for entry in json.loads(out)}
    assert [states[name] for name in SMALL] == ["present"] * 5


def test_the_root_may_come_from_the_environment(
    run: Run, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLI_CHECK_DATA", str(root))
    assert run("data", "import", "mnist", source("mnist", tmp_path))[0] == 0
    assert (root / "MNIST" / "raw").is_dir()
    status, out, _ = run("data", "list")
    assert status == 0
    assert out.endswith(f"data root: {root}\n")
    assert f"`mli-check data fetch svhn --data-root {root}`" in out


@pytest.fixture
def mixed(run: Run, root: Path, tmp_path: Path) -> Path:
    """A root with one set, another damaged, and the rest missing."""
    for name in ("mnist", "fashion-mnist"):
        assert run("data", "import", name, source(name, tmp_path), "--data-root", root)[0] == 0
    with open(root / "FashionMNIST" / "raw" / "train-images-idx3-ubyte", "ab") as file:
        file.write(b"one byte more" * 100)
    return root


def test_list_as_json_says_what_is_there_and_how_to_bring_the_rest(run: Run, mixed: Path) -> None:
    status, out, err = run("data", "list", "--json", "--data-root", mixed)
    assert (status, err) == (0, "")
    entries = {entry["name"]: entry for entry in json.loads(out)}
    assert list(entries) == [*IMAGE_SETS, *PREPARED_SETS, *PRETRAINED]
    listed = {name: entries[name] for name in IMAGE_SETS}
    for name, entry in listed.items():
        assert entry.keys() == {"name", "title", "state", "remark", "train", "test"}
        assert (entry["title"], entry["train"], entry["test"]) == (IMAGE_SETS[name].title, 20, 6)
    states = {name: entry["state"] for name, entry in listed.items()}
    expected = dict.fromkeys(IMAGE_SETS, "missing") | {"mnist": "present", "fashion-mnist": "damaged"}
    assert states == expected
    assert listed["mnist"]["remark"] == ""
    for name, state in states.items():
        command = f"`mli-check data fetch {name} --data-root {mixed}`"
        assert (command in listed[name]["remark"]) == (state != "present")
    assert f"`mli-check data import cifar10 PATH --data-root {mixed}`" in listed["cifar10"]["remark"]
    assert "is too long" in listed["fashion-mnist"]["remark"]


def test_list_as_a_table_says_the_same(run: Run, mixed: Path) -> None:
    status, out, err = run("data", "list", "--data-root", mixed)
    assert (status, err) == (0, "")
    rows = [line.split()[:5] for line in out.splitlines()]
    assert ["mnist", "present", "20", "+", "6"] in rows
    assert ["fashion-mnist", "damaged", "20", "+", "6"] in rows
    assert ["svhn", "missing", "20", "+", "6"] in rows
    assert f"`mli-check data fetch svhn --data-root {mixed}`" in out
    assert out.endswith(f"data root: {mixed}\n")


def test_listing_changes_nothing(run: Run, mixed: Path, tmp_path: Path) -> None:
    before = below(mixed)
    run("data", "list", "--data-root", mixed)
    run("data", "list", "--data-root", tmp_path / "nowhere")
    assert below(mixed) == before
    assert not (tmp_path / "nowhere").exists()


def test_fetch_says_where_it_wrote(run: Run, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_hosts(tmp_path, monkeypatch)
    for name in ("mnist", "svhn", "cifar10"):
        status, out, err = run("data", "fetch", name, "--data-root", root)
        folder = root / IMAGE_SETS[name].folder
        assert (status, out, err) == (0, f"{name}: checked and written to {folder}\n", "")


def test_a_failed_fetch_is_one_line_with_the_way_around(
    run: Run, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_hosts(tmp_path, monkeypatch).failing["http"] = URLError("no route to host")
    status, out, err = run("data", "fetch", "mnist", "--data-root", root)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("error: cannot download `train-images-idx3-ubyte.gz` of mnist (http")
    assert f"mli-check data import mnist PATH --data-root {root}" in err
    assert below(root) == {}


BAD: dict[str, tuple[list[str], str]] = {
    "unknown set to import": (["import", "cifar-10", "."], "unknown image dataset 'cifar-10'. Did you mean `cifar10`?"),
    "unknown set to fetch": (["fetch", "mnits"], "unknown image dataset 'mnits'. Did you mean `mnist`?"),
    "embedded set": (["fetch", "digits"], "unknown image dataset 'digits'. Known: ag-news, cifar10, cifar100, cub200"),
    "no such source": (["import", "mnist", "nowhere"], "no such file or folder: 'nowhere'"),
    "folder of something else": (["import", "mnist", "empty"], "it has none of its files"),
    "damaged archive": (["import", "mnist", "damaged.tgz"], "'damaged.tgz' is damaged or cannot be read"),
    "not the set's files": (["import", "mnist", "other"], "has images of shape (1, 1, 2, 2)"),
    "file in the place of the root": (["import", "mnist", "good", "--data-root", "file"], "cannot write to"),
}


@pytest.mark.parametrize(("arguments", "message"), BAD.values(), ids=BAD.keys())
def test_bad_input_is_one_line_with_status_2_and_leaves_nothing(
    run: Run, arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "damaged.tgz").write_bytes(b"\x1f\x8bno archive")
    (tmp_path / "file").write_bytes(b"")
    folder_of(SMALL["mnist"].files, tmp_path / "good")
    two = SMALL["mnist"].labels["test"][:1].astype("uint8")
    parts = {"images-idx3": idx(two.repeat(4).reshape(1, 2, 2)), "labels-idx1": idx(two)}
    files = {f"{part}-{kind}-ubyte": content for part in ("train", "t10k") for kind, content in parts.items()}
    folder_of(files, tmp_path / "other")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLI_CHECK_DATA", "root")
    before = below(tmp_path)
    status, out, err = run("data", *arguments)
    assert (status, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert message in err
    assert below(tmp_path) == before


@pytest.mark.parametrize(
    ("name", "message"),
    [("svhn", "error: dataset 'svhn' is not in "), ("fashion-mnist", "error: dataset 'fashion-mnist' is damaged: ")],
)
def test_a_set_that_cannot_be_loaded_is_one_line_with_status_2(
    run: Run, mixed: Path, name: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in any command that needs the set, whose part here a call of the loader takes."""
    monkeypatch.setattr(cli, "app", lambda: load_dataset(name, "train", mixed))
    status, out, err = run()
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(message)
    assert f"`mli-check data fetch {name} --data-root {mixed}`" in err


def mli_check(*arguments: str | Path, folder: Path) -> subprocess.CompletedProcess[str]:
    code = "from mli_check.cli import main; main()"
    environment = os.environ | {"NO_COLOR": "1", "COLUMNS": "140", "MLI_CHECK_DATA": str(folder / "root")}
    command = [sys.executable, "-P", "-c", code, *map(str, arguments)]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=240)


def test_in_a_process_of_its_own_it_lists_the_real_sets_and_refuses_small_ones(tmp_path: Path) -> None:
    listed = json.loads(mli_check("data", "list", "--json", folder=tmp_path).stdout)
    assert {entry["name"]: entry["train"] for entry in listed if entry["train"] is not None} == {
        "mnist": 60_000, "fashion-mnist": 60_000, "svhn": 73_257, "cifar10": 50_000, "cifar100": 50_000,
        "mail": 3_991, "ag-news": 120_000, "cub200": 5_994,
    }  # fmt: skip
    assert {entry["state"] for entry in listed if entry["train"] is not None} == {"missing"}
    done = mli_check("data", "import", "mnist", source("mnist", tmp_path), folder=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.endswith("has images of shape (20, 1, 28, 28), expected (60000, 1, 28, 28)\n")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "root").exists()


def test_the_help_names_the_three_commands(run: Run) -> None:
    status, out, _ = run("data", "--help")
    assert status == 0
    assert all(f" {command} " in out for command in ("list", "fetch", "import"))
