"""Write docs/claims.md from the catalogue, the tests under claims/ and the results that docs/results keeps.

usage: python scripts/claims_page.py [--keep RESULTS.json ...] [--forget] [--check]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from mli_check import catalogue, results
from mli_check.comparison import Comparison, Kind
from mli_check.errors import MliCheckError
from mli_check.launch import claims_folder
from mli_check.report.claims_page.declared import claim_tests
from mli_check.report.claims_page.kept import forget, keep, load
from mli_check.report.claims_page.page import Sources, page

ROOT = Path(__file__).resolve().parents[1]
PAGE, KEPT = Path("docs") / "claims.md", Path("docs") / "results"
COMMAND = "python scripts/claims_page.py"


def sources() -> Sources:
    """What the page is written from, as it stands now."""
    tests = claim_tests(claims_folder())
    return Sources(catalogue.CLAIMS, catalogue.PAPERS, tests, load(ROOT / KEPT))


def main(words: Sequence[str] | None = None) -> int:
    """Do as the options say; 0, or 1 if the page is not current, or 2 for what the caller can mend."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--keep", nargs="+", type=Path, metavar="RESULTS.json", default=[],
        help="first merge these results of `mli-check run` into docs/results, the newest of like records counting",
    )  # fmt: skip
    parser.add_argument("--forget", action="store_true", help="drop kept results of claims and subjects that are gone")
    parser.add_argument("--check", action="store_true", help="write nothing: exit 1 if the page is not current")
    options = parser.parse_args(words)
    if options.check and (options.keep or options.forget):
        parser.error("--check writes nothing; give it alone")
    try:
        return check() if options.check else write(options.keep, options.forget)
    except MliCheckError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def check() -> int:
    """Hold the page against what would be written."""
    file = ROOT / PAGE
    if file.exists() and file.read_text(encoding="utf-8") == page(sources()):
        return 0
    print(f"{PAGE} is not what the catalogue, claims/ and {KEPT} say now; run: {COMMAND}", file=sys.stderr)
    return 1


def write(kept: Sequence[Path], forgetting: bool) -> int:
    """Keep results, forget those of what is gone, and write the page; say what changed."""
    if kept:
        for file, changes in keep([results.read(path) for path in kept], ROOT / KEPT).items():
            say(file, changes)
    found = sources()
    if forgetting:
        forget(found.orphans, ROOT / KEPT)
        found = sources()
    (ROOT / PAGE).write_text(page(found), encoding="utf-8")
    print(f"{PAGE}: {len(found.claims)} claims, {len(found.results.records)} verdicts")
    for record in found.orphans:
        name = f"{record['claim']} on {record['subject']} ({record['scale']})"
        print(f"gone: {name} has a result and no test any more; `{COMMAND} --forget` drops it")
    for record in found.results.records:
        if record["verdict"] == "inconclusive" and record["needed"] is None:
            name = f"{record['claim']} on {record['subject']} ({record['scale']})"
            print(f"open: {name} is inconclusive without a sample size that would decide: {record['reason']}")
    return 0


def say(file: Path, changes: Comparison) -> None:
    """What keeping results changed in one document."""
    counts = ", ".join(f"{len(changes.of(kind))} {kind}" for kind in Kind if changes.of(kind))
    print(f"{file.relative_to(ROOT)}: {counts}")
    for change in changes.of(Kind.FLIPPED) + changes.of(Kind.WAVERED):
        print(f"  {change.claim} on {change.subject}: {change.before} -> {change.after}")


if __name__ == "__main__":
    sys.exit(main())
