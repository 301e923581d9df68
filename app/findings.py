"""What a check of ``manent doctor`` finds."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """How a check ended. A warning costs speed or comfort; a failure keeps Manent from working."""

    OK = "ok"
    WARNING = "warning"
    FAILURE = "failure"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What one check found, and what to do where it is not ok."""

    check: str
    verdict: Verdict
    detail: str
    advice: str = ""


def ok(check: str, detail: str) -> Finding:
    """Nothing is wrong."""
    return Finding(check=check, verdict=Verdict.OK, detail=detail)


def warning(check: str, detail: str, advice: str) -> Finding:
    """It costs speed or comfort."""
    return Finding(check=check, verdict=Verdict.WARNING, detail=detail, advice=advice)


def failure(check: str, detail: str, advice: str) -> Finding:
    """It keeps Manent from working."""
    return Finding(check=check, verdict=Verdict.FAILURE, detail=detail, advice=advice)
