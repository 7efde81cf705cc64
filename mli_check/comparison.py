"""Two results documents held against each other: what changed, and whether a CI job should fail."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum
from xml.etree import ElementTree

from mli_check.catalogue import natural_key
from mli_check.results import Document


class Kind(StrEnum):
    """What became of a verdict. Flips and losses fail; moves to or from `inconclusive` warn."""

    FLIPPED = "flipped"
    LOST = "lost"
    WAVERED = "wavered"
    NEW = "new"
    SAME = "same"


FAILING = (Kind.FLIPPED, Kind.LOST)


@dataclass(frozen=True)
class Change:
    """The verdict of one claim on one subject, in both documents (None where it is missing)."""

    claim: str
    subject: str
    scale: str
    before: str | None
    after: str | None

    @property
    def kind(self) -> Kind:
        """How the two verdicts differ."""
        if self.before == self.after:
            return Kind.SAME
        if self.before is None:
            return Kind.NEW
        if self.after is None:
            return Kind.LOST
        return Kind.WAVERED if "inconclusive" in (self.before, self.after) else Kind.FLIPPED


@dataclass(frozen=True)
class Comparison:
    """All changes, in the order of the claims."""

    changes: tuple[Change, ...]

    @property
    def failed(self) -> bool:
        """Whether a verdict flipped between reproduced and not reproduced, or got lost."""
        return any(change.kind in FAILING for change in self.changes)

    def of(self, kind: Kind) -> list[Change]:
        """The changes of one kind."""
        return [change for change in self.changes if change.kind is kind]

    def markdown(self) -> str:
        """A summary for a CI job's page: counts, then a table of what changed."""
        counts = ", ".join(f"{len(self.of(kind))} {kind}" for kind in Kind if self.of(kind)) or "no verdicts"
        calm = "no verdict flipped or was lost" if self.of(Kind.WAVERED) else "no verdict changed"
        lines = [f"## mli-check: {'verdicts changed' if self.failed else calm}", "", counts, ""]
        changed = [change for change in self.changes if change.kind is not Kind.SAME]
        if changed:
            lines += ["| claim | subject | scale | before | after | |", "|---|---|---|---|---|---|"]
            for change in changed:
                cells = (change.claim, change.subject, change.scale, change.before or "-", change.after or "-")
                lines.append(f"| {' | '.join(cells)} | {change.kind} |")
            lines.append("")
        return "\n".join(lines)

    def junit(self) -> str:
        """JUnit XML: one case a claim and subject; what fails is a failure, what wavered is in its output."""
        failures = sum(change.kind in FAILING for change in self.changes)
        suite = ElementTree.Element(
            "testsuite", name="mli-check compare", tests=str(len(self.changes)), failures=str(failures), errors="0"
        )
        for change in self.changes:
            case = ElementTree.SubElement(
                suite, "testcase", classname=f"mli_check.{change.claim}", name=f"{change.subject} ({change.scale})"
            )
            text = f"{change.kind}: {change.before} -> {change.after}"
            if change.kind in FAILING:
                ElementTree.SubElement(case, "failure", message=text)
            elif change.kind is not Kind.SAME:
                ElementTree.SubElement(case, "system-out").text = text
        return ElementTree.tostring(suite, encoding="unicode", xml_declaration=True)

    def as_record(self) -> dict[str, object]:
        """JSON-ready."""
        rows = [{**vars(change), "kind": str(change.kind)} for change in self.changes]
        return {"failed": self.failed, "changes": rows}


def compare(base: Document, new: Document, claims: Collection[str] | None = None) -> Comparison:
    """Hold the verdicts of `new` against those of `base`; with `claims`, only theirs."""
    before, after = _verdicts(base), _verdicts(new)
    keys = sorted(before.keys() | after.keys(), key=lambda key: (natural_key(key[0]), *key[1:]))
    chosen = [key for key in keys if claims is None or key[0] in claims]
    return Comparison(tuple(Change(*key, before.get(key), after.get(key)) for key in chosen))


def _verdicts(document: Document) -> dict[tuple[str, str, str], str]:
    records = document["records"]
    return {(entry["claim"], entry["subject"], entry.get("scale", "")): entry["verdict"] for entry in records}
