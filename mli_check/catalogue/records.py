"""What a claim and a paper are: the records of the catalogue, and the papers themselves."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Kind(Enum):
    """How a claim can be judged."""

    IDENTITY = "identity"  # holds exactly, on any network it speaks of
    THEOREM = "theorem"  # holds under stated hypotheses
    PROPORTION = "proportion"  # a share or an association over many trained networks
    CURVE = "curve"  # the shape of a curve along a path
    DEFINITION = "definition"  # needs an implementation rather than evidence


@dataclass(frozen=True, kw_only=True)
class Paper:
    """A source of claims. `year` is None for our own; `note` says what of the paper was not at hand."""

    key: str
    authors: str
    title: str
    year: int | None
    venue: str
    short: str
    note: str = ""


_PAPERS = (
    Paper(
        key="tao2024",
        authors="Bowen Tao, Xin-Chun Li, De-Chuan Zhan",
        title="MLI Formula: A Nearly Scale-Invariant Solution with Noise Perturbation",
        year=2024,
        venue="ICML 2024, PMLR 235",
        short="Tao et al. 2024",
    ),
    Paper(
        key="lucas2020",
        authors="James Lucas, Juhan Bae, Michael R. Zhang, Jimmy Ba, Richard Zemel, Roger Grosse",
        title="On Monotonic Linear Interpolation of Neural Network Parameters",
        year=2020,
        venue="OPT2020, 12th Annual Workshop on Optimization for Machine Learning",
        short="Lucas et al. 2020",
    ),
    Paper(
        key="lucas2021",
        authors="James Lucas, Juhan Bae, Michael R. Zhang, Stanislav Fort, Richard Zemel, Roger Grosse",
        title="Analyzing Monotonic Linear Interpolation in Neural Network Loss Landscapes",
        year=2021,
        venue="ICML 2021, PMLR 139; arXiv:2104.11044",
        short="Lucas et al. 2021",
        note="Only the abstract, the structure and the captions of the first five figures were at hand. The title is "
        "that of the arXiv version; the proceedings carry the paper under the title of the 2020 workshop paper.",
    ),
    Paper(
        key="wang2023",
        authors="Xiang Wang, Annie N. Wang, Mo Zhou, Rong Ge",
        title="Plateau in Monotonic Linear Interpolation - A “Biased” View of Loss Landscape for Deep Networks",
        year=2023,
        venue="ICLR 2023",
        short="Wang et al. 2023",
        note="Only the abstract and the introduction were at hand.",
    ),
    Paper(
        key="mli-check",
        authors="the authors of mli-check",
        title="Consequences of the papers' claims that none of the papers tested",
        year=None,
        venue="this package",
        short="mli-check",
    ),
)

PAPERS: dict[str, Paper] = {paper.key: paper for paper in _PAPERS}


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One claim of one paper.

    `outcome` is what the paper itself found (for our own claims what is predicted, or empty), `reading` how a misprint
    or an ambiguity in the text is read, and `planned` why no test covers the claim yet; empty means that one does.
    """

    id: str
    statement: str
    paper: str
    where: str
    kinds: tuple[Kind, ...]
    outcome: str
    reading: str = ""
    planned: str = ""

    @property
    def status(self) -> str:
        """`covered` by a test under claims/, or `planned`."""
        return "planned" if self.planned else "covered"

    @property
    def paper_title(self) -> str:
        return PAPERS[self.paper].title

    def as_record(self) -> dict[str, str | list[str]]:
        """The claim as plain strings and lists, ready for JSON."""
        return {
            "id": self.id,
            "status": self.status,
            "paper": self.paper,
            "where": self.where,
            "statement": self.statement,
            "kinds": [kind.value for kind in self.kinds],
            "outcome": self.outcome,
            "reading": self.reading,
            "planned": self.planned,
        }
