"""The command line. Each command imports what it needs when it runs, so that --help is quick."""

from __future__ import annotations

import json
import os
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mli_check import __version__, cli_data, cli_symmetries
from mli_check.cli_output import print_table
from mli_check.errors import MliCheckError, OptionError, UnknownNameError
from mli_check.locations import RESULTS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mli_check.launch import Outcome, Request
    from mli_check.results import Document

app = typer.Typer(
    name="mli-check",
    help="Claims of four papers on monotonic linear interpolation, checked on trained networks.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
runs_app = typer.Typer(help="The store of trained networks.", no_args_is_help=True)
app.add_typer(runs_app, name="runs")
app.add_typer(cli_data.app, name="data")
app.command()(cli_symmetries.symmetries)

StoreOption = Annotated[
    Path | None, typer.Option("--store", help="Folder of trained networks ($MLI_CHECK_STORE, else the user's cache).")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def main() -> None:
    """Entry point: errors that the caller can mend are one line on standard error and exit code 2."""
    try:
        app()
    except MliCheckError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


@app.callback(invoke_without_command=True)
def _top(
    version: Annotated[bool, typer.Option("--version", help="Print the version.", is_eager=True)] = False,
) -> None:
    if version:
        print(__version__)
        raise typer.Exit


@app.command()
def run(
    claims: Annotated[list[str] | None, typer.Argument(metavar="[CLAIM]...", help="Ids such as T1; else all.")] = None,
    scale: Annotated[str, typer.Option(help="Size of the subjects: quick, smoke, standard or paper.")] = "quick",
    device: Annotated[
        str | None, typer.Option(help="Where to train and evaluate (quick: cpu; else cuda).", show_default=False)
    ] = None,
    subject: Annotated[list[str] | None, typer.Option(help="Only this subject (repeatable).")] = None,
    report: Annotated[
        Path | None, typer.Option(help="The HTML report (report.html beside the results).", show_default=False)
    ] = None,
    results: Annotated[Path, typer.Option(help="The verdicts as JSON.")] = RESULTS,
    baseline: Annotated[Path | None, typer.Option(help="Earlier results: exit 1 if a verdict changed.")] = None,
    workers: Annotated[
        int, typer.Option("-n", help="Processes; 0: one a core, at most 4, and one for a GPU.", min=0)
    ] = 0,
    seed_offset: Annotated[int, typer.Option(help="Added to every training seed.", min=0)] = 0,
    store: StoreOption = None,
    data_root: Annotated[Path | None, typer.Option(help="Folder of downloaded data ($MLI_CHECK_DATA).")] = None,
) -> None:
    """Train the networks that claims need, judge the claims, and write a report."""
    from mli_check import launch
    from mli_check.results import read

    chosen = _checked_claims(claims or [])
    _check_names(scale, device, subject or [])
    base = read(baseline) if baseline is not None else None
    destination = report or results.with_name("report.html")
    request = launch.Request(
        claims=chosen,
        subjects=subject or [],
        scale=scale,
        device=device,
        workers=workers or _workers(scale, device),
        seed_offset=seed_offset,
        store=store,
        data_root=data_root,
        results=results,
    )
    _check_destination(destination, results)
    outcome = _launched(request)
    status = _conclude(outcome, destination)
    if base is not None and outcome.document is not None:
        from mli_check.comparison import compare as compared

        changes = compared(base, outcome.document, chosen or None)
        print(changes.markdown())
        status = max(status, int(changes.failed))
    raise typer.Exit(status)


@app.command()
def report(
    results: Annotated[list[Path] | None, typer.Argument(metavar="[RESULTS]...", help="Results of runs.")] = None,
    output: Annotated[Path, typer.Option("-o", "--output", help="The HTML file.")] = Path("report.html"),
) -> None:
    """Draw results as one self-contained HTML page; several are merged, and the newest of like results counts."""
    from mli_check.report.html import write_report
    from mli_check.results import read

    documents = [read(path) for path in results or [RESULTS]]
    print(f"report: {write_report(documents, output)}")


@app.command()
def compare(
    base: Annotated[Path, typer.Argument(help="Earlier results.")],
    new: Annotated[Path, typer.Argument(help="Results to hold against them.")],
    markdown: Annotated[Path | None, typer.Option(help="Write the summary to this file too.")] = None,
    junit: Annotated[Path | None, typer.Option(help="Write JUnit XML.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Hold two results against each other: exit 1 if a verdict flipped or got lost, 0 if it only wavered."""
    from mli_check.comparison import compare as compared
    from mli_check.results import read

    changes = compared(read(base), read(new))
    summary = changes.markdown()
    for path, text in ((markdown, summary), (junit, changes.junit())):
        if path is not None:
            _write_text(path, text)
    print(json.dumps(changes.as_record(), indent=1) if as_json else summary)
    raise typer.Exit(int(changes.failed))


@app.command("claims")
def list_claims(as_json: JsonOption = False) -> None:
    """List every claim of the papers, and whether it is covered or planned."""
    from mli_check import catalogue

    if as_json:
        print(json.dumps([claim.as_record() for claim in catalogue.CLAIMS], indent=1, ensure_ascii=False))
        return
    rows = [
        (claim.id, claim.status, f"{catalogue.PAPERS[claim.paper].short}, {claim.where}", claim.statement)
        for claim in catalogue.CLAIMS
    ]
    print_table(("claim", "status", "where", "statement"), rows)


@runs_app.command("list")
def list_runs(store: StoreOption = None, as_json: JsonOption = False) -> None:
    """List the trained networks in the store, and the recordings of other training."""
    from mli_check import recordings
    from mli_check.runs import Store

    opened = Store(store)
    listed = opened.runs() + recordings.listed(opened)
    if as_json:
        print(json.dumps([vars(entry) for entry in listed], indent=1))
        return
    rows = [
        (
            entry.digest.partition("/")[0][:12],  # of a recording: "recorded"; its name is in the summary
            entry.summary,
            entry.created,
            f"{entry.seconds:.1f} s",
            f"{entry.size / 1e6:.2f} MB",
        )
        for entry in listed
    ]
    print_table(("digest", "network", "trained", "took", "size"), rows)
    print(f"{len(listed)} networks, {sum(entry.size for entry in listed) / 1e6:.1f} MB in {opened.root}")


@runs_app.command("prune")
def prune_runs(
    store: StoreOption = None,
    older_than: Annotated[float | None, typer.Option(help="Also runs older than so many days.", min=0)] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every run; no recording.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
) -> None:
    """Delete leftovers, damaged runs and runs of another training version from the store.

    Recordings of your own training are never deleted: they cannot be trained again.
    """
    from mli_check.runs import Store

    gone = Store(store).prune(older_than_days=older_than, everything=everything, dry=dry_run)
    for folder in gone:
        print(folder)
    print(f"{len(gone)} folders {'would be deleted' if dry_run else 'deleted'}")


def _workers(scale: str, device: str | None) -> int:
    """One process where claims share a GPU and its memory, else one a core, at most 4."""
    from mli_check import subjects

    on_gpu = device not in (None, "cpu") or (device is None and scale in subjects.GPU_SCALES)
    return 1 if on_gpu else min(os.cpu_count() or 1, 4)


def _checked_claims(given: Sequence[str]) -> list[str]:
    from mli_check import catalogue

    for claim in map(catalogue.get, given):
        if claim.planned:
            raise OptionError(f"claim {claim.id} is planned, not covered yet ({claim.planned}); see `mli-check claims`")
    return list(dict.fromkeys(given))


def _check_names(scale: str, device: str | None, names: Sequence[str]) -> None:
    from mli_check import subjects

    if scale not in subjects.SCALES:
        raise UnknownNameError("scale", scale, subjects.SCALES)
    for name in names:
        subjects.get(name, scale)
    if device not in (None, "cpu"):
        from mli_check.workbench import check_device

        check_device(device)


def _check_destination(destination: Path, results: Path) -> None:
    """Say before the work begins that the report cannot be written after it."""
    from mli_check.errors import ReportError

    folder = destination.absolute().parent
    if folder != results.absolute().parent and not folder.is_dir():
        raise ReportError(f"cannot write the report {destination}: its folder does not exist; make that first")
    if destination.is_dir() or (folder.is_dir() and not os.access(folder, os.W_OK)):
        raise ReportError(f"cannot write the report {destination}: not a writable file; choose another with --report")


def _launched(request: Request) -> Outcome:
    """Run the claims under a progress bar; while pytest and its workers start, a core is free to load the report's."""
    from mli_check import launch
    from mli_check.progress import bar
    from mli_check.report.html import prepare

    threading.Thread(target=prepare, daemon=True).start()
    return launch.run(request, bar("judging claims"))


def _conclude(outcome: Outcome, destination: Path) -> int:
    """Print the table, write the report, and say with which status to end."""
    from mli_check.errors import ReportError

    document = outcome.document
    if document is None or not document["records"] or document["tests"]["failed"]:
        print(outcome.output)
    if document is None:
        print("error: no claim was judged; see above", file=sys.stderr)
        return 2 if outcome.status == 4 else 1
    _print_verdicts(document)
    try:
        from mli_check.report.html import write_report

        print(f"report: {write_report([document], destination)}")
    except ReportError as error:
        print(f"no report: {error}", file=sys.stderr)
    if document["tests"]["errors"]:
        for message in document["tests"]["errors"]:
            print(f"error: {message}", file=sys.stderr)
        return 2
    return int(outcome.status != 0 or not document["records"])


def _print_verdicts(document: Document) -> None:
    from rich.text import Text

    from mli_check.report.numbers import interval

    colours = {"reproduced": "green", "not reproduced": "red", "inconclusive": "yellow"}
    rows: list[tuple[Any, ...]] = []
    for entry in document["records"]:
        figure = entry["figure"]
        changed = entry["expected"] not in (None, entry["verdict"])
        verdict = entry["verdict"] + (f" (expected {entry['expected']})" if changed else "")
        shown = interval(figure["value"], figure["low"], figure["high"], figure["unit"])
        measured = f"{figure['label']}: {' '.join(shown).strip()}"
        rows.append((entry["claim"], entry["subject"], Text(verdict, colours[entry["verdict"]]), measured))
    print_table(("claim", "subject", "verdict", "figure"), rows)
    verdicts = [entry["verdict"] for entry in document["records"]]
    skipped = document["tests"]["skipped"]
    for reason in dict.fromkeys(entry["reason"] for entry in skipped):
        print(f"skipped: {reason}")
    counts = [f"{verdicts.count(kind)} {kind}" for kind in colours] + ([f"{len(skipped)} skipped"] if skipped else [])
    print(", ".join(counts))


def _write_text(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise OptionError(f"cannot write {path}: {error.strerror}; choose another file") from error
