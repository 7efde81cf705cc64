"""Plant faults in a copy of the package, one at a time, and see whether the tests and claims that should notice do.

A test that nobody has seen fail may be one that cannot. Each fault of faults.toml is a piece of source that occurs once
in its file, what to put in its place, and its witnesses: tests and claims, each of which has to fail, by itself. They
all have to pass in the copy first. Exits with 0 if every fault was caught.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from queue import SimpleQueue

PROJECT = Path(__file__).resolve().parents[1]
TABLE = Path(__file__).resolve().with_name("faults.toml")
FOLDERS, FILES = ("mli_check", "claims", "tests", "scripts"), ("conftest.py", "pyproject.toml")  # what is copied
PYTEST = (sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider")
SECONDS = 300  # for one witness; a fault may make a loop endless


class Status(StrEnum):
    """What became of a fault, worst first."""

    BROKEN = "BROKEN"
    MISSED = "MISSED"
    HUNG = "caught (hung)"
    CAUGHT = "caught"


class UnusableError(Exception):
    """The table does not fit the source, or its witnesses fail where no fault is planted."""


@dataclass(frozen=True)
class Fault:
    """A fault to plant in a file of the project, and the pytest arguments of the witnesses that should notice."""

    name: str
    file: str
    find: str
    replace: str
    noticed_by: tuple[str, ...]

    def planted(self, source: str) -> str:
        """The source with the fault in it. Raises UnusableError where the piece to replace does not occur once."""
        if (count := source.count(self.find)) != 1:
            raise UnusableError(f"{self.name}: stands {count} times in {self.file}, not once: {self.find.strip()!r}")
        changed = source.replace(self.find, self.replace)
        try:
            alike = ast.dump(ast.parse(changed)) == ast.dump(ast.parse(source))
        except SyntaxError as error:
            raise UnusableError(f"{self.name}: {self.file} is not Python any more: {error}") from error
        if alike:
            raise UnusableError(f"{self.name}: changes nothing that {self.file} does")
        return changed


@dataclass(frozen=True)
class Outcome:
    """How one run of pytest ended: its exit code, None if it had to be stopped, and what it said."""

    code: int | None
    said: str

    @property
    def status(self) -> Status:
        """Only a failed test is a caught fault: not an error of collection or of usage, nor a crash."""
        return {None: Status.HUNG, 0: Status.MISSED, 1: Status.CAUGHT}.get(self.code, Status.BROKEN)

    @property
    def noticed_by(self) -> str:
        """The first test that failed; empty if none did."""
        found = re.search(r"^(?:FAILED|ERROR) (.+?)(?: - .*)?$", self.said, re.MULTILINE)
        return found.group(1) if found else ""


@dataclass(frozen=True)
class Trial:
    """A fault with the outcome of each witness, and what it took."""

    fault: Fault
    outcomes: tuple[tuple[str, Outcome], ...]
    seconds: float

    @property
    def status(self) -> Status:
        """That of the worst witness."""
        return min((outcome.status for _, outcome in self.outcomes), key=list(Status).index)

    def __str__(self) -> str:
        blind = ", ".join(witness for witness, outcome in self.outcomes if outcome.status is Status.MISSED)
        line = f"{self.status:13} {self.seconds:5.0f} s  {self.fault.name}"
        told = [f"{line}; not noticed by {blind}" if blind else line]
        for witness, outcome in self.outcomes:
            if outcome.status is Status.BROKEN:
                told.append(f"  {witness} ended with exit code {outcome.code}:\n{ending(outcome.said)}")
            elif outcome.noticed_by:
                told.append(f"  {outcome.noticed_by}")
        return "\n".join(told)


class Workshop:
    """A copy of a project in a folder of its own, in which faults are planted."""

    def __init__(self, folder: Path, project: Path) -> None:
        self.root = folder / "project"
        self._running: subprocess.Popen[str] | None = None
        self._stopped = False
        self.root.mkdir()
        for part in FOLDERS:
            if (project / part).is_dir():
                shutil.copytree(project / part, self.root / part, ignore=shutil.ignore_patterns("__pycache__"))
        for file in filter(Path.is_file, map(project.joinpath, FILES)):
            shutil.copy2(file, self.root)
        where = self._run([sys.executable, "-c", "import mli_check; print(mli_check.__file__)"], folder / "store").said
        if not Path(where.strip()).resolve().is_relative_to(self.root.resolve()):
            raise UnusableError(f"tests would import another mli_check than the copy's in {self.root}: {where}")

    def judge(self, witnesses: Sequence[str], seconds: float | None = None) -> Outcome:
        """Run tests and claims in the copy as it is, with a store of their own: a fault may change what is trained."""
        with tempfile.TemporaryDirectory(dir=self.root.parent) as store:
            return self._run([*PYTEST, *witnesses], Path(store), seconds)

    def try_out(self, fault: Fault) -> Trial:
        """Plant a fault, ask its witnesses one by one, and take it out again."""
        file, started = self.root / fault.file, time.monotonic()
        source = file.read_text(encoding="utf-8")
        file.write_text(fault.planted(source), encoding="utf-8")
        try:
            outcomes = tuple((witness, self.judge([witness], SECONDS)) for witness in fault.noticed_by)
        finally:
            file.write_text(source, encoding="utf-8")
        return Trial(fault, outcomes, time.monotonic() - started)

    def stop(self) -> None:
        """End what runs in the copy, and what may be started yet."""
        self._stopped = True
        if (running := self._running) is not None:
            kill(running)

    def _run(self, command: Sequence[str], store: Path, seconds: float | None = None) -> Outcome:
        """Its output goes to a file, for a pipe stays open as long as any process that the tests have started."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")} | {
            "PYTHONPATH": str(self.root),
            "PYTHONDONTWRITEBYTECODE": "1",  # bytecode is told by second and size, which a fault may leave as they are
            "HYPOTHESIS_PROFILE": "ci",
            "OMP_NUM_THREADS": "1",
            "MLI_CHECK_STORE": str(store),
        }
        with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as said:
            with subprocess.Popen(
                command, cwd=self.root, env=environment, stdout=said, stderr=said, text=True, start_new_session=True
            ) as run:
                self._running = run
                try:
                    code = run.wait(0 if self._stopped else seconds)
                except subprocess.TimeoutExpired:
                    code = None
                kill(run)
                self._running = None
            said.seek(0)
            return Outcome(code, said.read())


def kill(process: subprocess.Popen[str]) -> None:
    """End a process that leads a group, with all that it has started."""
    with contextlib.suppress(ProcessLookupError):  # they have all ended
        os.killpg(process.pid, signal.SIGKILL)


def load(table: Path) -> list[Fault]:
    """The faults of a table. Raises UnusableError for two of one name."""
    entries = tomllib.loads(table.read_text(encoding="utf-8"))["fault"]
    faults = [Fault(**{**entry, "noticed_by": tuple(entry["noticed_by"])}) for entry in entries]
    twice = [name for name, count in Counter(fault.name for fault in faults).items() if count > 1]
    if twice:
        raise UnusableError(f"several faults of one name: {', '.join(twice)}")
    return faults


def stale(faults: Sequence[Fault], project: Path) -> list[str]:
    """What of a table does not fit the project, a line each: the piece to replace, or a witness that is not there."""
    lines = []
    for fault in faults:
        try:
            fault.planted((project / fault.file).read_text(encoding="utf-8"))
        except (UnusableError, OSError) as error:
            lines.append(str(error))
        lines += [f"{fault.name}: there is no {one}" for one in fault.noticed_by if not exists(one, project)]
        lines += [] if fault.noticed_by else [f"{fault.name}: has no witness"]
    return lines


def exists(witness: str, project: Path) -> bool:
    """Whether a project has the file of a witness and, where one is named, the test in it."""
    file, _, test = witness.partition("::")
    function = test.partition("[")[0]
    return (project / file).is_file() and (not test or f"def {function}(" in (project / file).read_text("utf-8"))


def trials(faults: Sequence[Fault], project: Path, jobs: int) -> Iterator[Trial]:
    """Each fault tried out, `jobs` at a time, as they end. Raises UnusableError before the first is planted."""
    if lines := stale(faults, project):
        raise UnusableError("the table of faults does not fit the source:\n  " + "\n  ".join(lines))
    with contextlib.ExitStack() as stack:
        folders = [Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mutants-"))) for _ in range(jobs)]
        shops = [Workshop(folder, project) for folder in folders]
        witnesses = list(dict.fromkeys(witness for fault in faults for witness in fault.noticed_by))
        shares = [witnesses[number::jobs] for number in range(min(jobs, len(witnesses)))]
        pool = stack.enter_context(ThreadPoolExecutor(jobs))
        try:
            for done in as_completed([pool.submit(Workshop.judge, *pair) for pair in zip(shops, shares, strict=False)]):
                if done.result().code != 0:
                    raise UnusableError("witnesses fail where no fault is planted:\n" + ending(done.result().said))
            yield from _tried(faults, shops, pool)
        except BaseException:
            for shop in shops:
                shop.stop()
            pool.shutdown(cancel_futures=True)
            raise


def _tried(faults: Sequence[Fault], shops: Sequence[Workshop], pool: ThreadPoolExecutor) -> Iterator[Trial]:
    free = SimpleQueue[Workshop]()
    for shop in shops:
        free.put(shop)

    def try_out(fault: Fault) -> Trial:
        shop = free.get()
        try:
            return shop.try_out(fault)
        finally:
            free.put(shop)

    for done in as_completed([pool.submit(try_out, fault) for fault in faults]):
        yield done.result()


def ending(text: str) -> str:
    """The last lines of what a process said, indented."""
    return "\n".join(f"    {line}" for line in text.rstrip().splitlines()[-25:])


def summary(found: Sequence[Trial]) -> str:
    """A table: for each file how many of its faults were caught, missed or broken; a fault that hangs is caught."""
    counted = Counter((trial.fault.file, trial.status.partition(" ")[0]) for trial in found)
    files = sorted({file for file, _ in counted})
    rows = [(file, [counted[file, kind] for kind in ("caught", "MISSED", "BROKEN")]) for file in files]
    rows.append(("all", [sum(column) for column in zip(*(row for _, row in rows), strict=True)]))
    width = max(len(file) for file, _ in rows)
    lines = [f"{file:{width}}{''.join(f'{count:8}' for count in row)}" for file, row in rows]
    return "\n".join([f"{'':{width}}  caught  missed  broken", *lines])


def main(arguments: Sequence[str] | None = None, project: Path = PROJECT, table: Path = TABLE) -> int:
    """Try out all faults, or those named, and print what became of them; 0 if all were caught, 2 if none could be."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these faults alone")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="so many at a time, each in its own copy (1)")
    parser.add_argument("--list", action="store_true", help="print the faults with their witnesses, and plant none")
    options = parser.parse_args(arguments)
    try:
        faults = load(table)
        if unknown := set(options.only or ()) - {fault.name for fault in faults}:
            parser.error(f"no such fault: {', '.join(sorted(unknown))}; --list prints those there are")
        faults = [fault for fault in faults if not options.only or fault.name in options.only]
        if options.list:
            print("\n".join(f"{fault.name}  {fault.file}  {' '.join(fault.noticed_by)}" for fault in faults))
            return 0
        found = []
        for trial in trials(faults, project, max(options.jobs, 1)):
            print(trial, flush=True)
            found.append(trial)
    except UnusableError as error:
        print(f"mutants: {error}", file=sys.stderr)
        return 2
    print(summary(found))
    return 0 if all(trial.status in (Status.CAUGHT, Status.HUNG) for trial in found) else 1


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # whoever ends it leaves no copy and no process behind
    sys.exit(main())
