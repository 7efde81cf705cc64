"""Every claim of the four papers, and the consequences of ours, as records that tests and reports look up by id."""

from __future__ import annotations

import string

from mli_check.catalogue import consequences, lucas2020, lucas2021, tao2024, wang2023
from mli_check.catalogue.records import PAPERS, Claim, Kind, Paper
from mli_check.errors import UnknownNameError

__all__ = ["CLAIMS", "PAPERS", "Claim", "Kind", "Paper", "get", "ids", "natural_key"]

CLAIMS: tuple[Claim, ...] = (
    *tao2024.CLAIMS,
    *lucas2020.CLAIMS,
    *lucas2021.CLAIMS,
    *wang2023.CLAIMS,
    *consequences.CLAIMS,
)

_BY_ID = {claim.id: claim for claim in CLAIMS}
_PREFIXES = tuple(dict.fromkeys(claim.id[0] for claim in CLAIMS))


def get(claim_id: str) -> Claim:
    """The claim with this id, such as `T1`; UnknownNameError if there is none."""
    try:
        return _BY_ID[claim_id]
    except KeyError:
        raise UnknownNameError("claim", claim_id, _BY_ID) from None


def ids() -> tuple[str, ...]:
    """The ids of all claims, in the order of the catalogue."""
    return tuple(_BY_ID)


def natural_key(claim_id: str) -> tuple[int, str, int]:
    """A sort key that puts ids in the order of the catalogue (T2 before T10, T before L), unknown kinds of id last."""
    prefix = claim_id.rstrip(string.digits)
    number = claim_id[len(prefix) :]
    rank = _PREFIXES.index(prefix) if prefix in _PREFIXES else len(_PREFIXES)
    return rank, prefix, int(number or 0)
