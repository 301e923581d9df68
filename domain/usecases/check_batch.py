"""Looking at the input of a batch before anything of it is tried: every mistake is told, up to a bound."""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import dataclass, field

from manent.domain.access import Principal
from manent.domain.batch_events import BatchMistake
from manent.domain.batch_work import BatchRequests, Line, LineRefused
from manent.domain.batches import LINES_MAX, MISTAKES_MAX, BatchState
from manent.domain.files import FileKept
from manent.domain.usecases.file_lines import file_lines
from manent.domain.usecases.manage_files import ManageFiles


@dataclass(slots=True)
class Checked:
    """How many requests there are, and what is wrong; with a mistake none of them is tried."""

    total: int = 0
    mistakes: list[BatchMistake] = field(default_factory=list)

    def add(self, code: str, message: str, *, line: int | None = None, param: str | None = None) -> None:
        """Note a mistake."""
        self.mistakes.append(BatchMistake(code=code, message=message, line=line, param=param))


async def check_input(
    state: BatchState, kept: FileKept, principal: Principal, files: ManageFiles, requests: BatchRequests
) -> Checked:
    """Read the input of a batch through, in the name of ``principal``.

    Raises:
        StoreUnavailable, LogCorrupt: it cannot be read.
    """
    checked, created = Checked(), state.created
    first_lines: dict[str, int] = {}
    try:
        async with aclosing(files.read(kept)) as pieces, aclosing(file_lines(pieces)) as lines:
            async for number, raw in lines:
                checked.total += 1
                if checked.total > LINES_MAX:
                    checked.add("too_many_requests", f"the file has more than {LINES_MAX} requests")
                    break
                line = Line(batch_id=created.batch_id, endpoint=created.endpoint, number=number, raw=raw)
                _check_line(line, principal, requests, first_lines, checked)
                if len(checked.mistakes) >= MISTAKES_MAX:
                    break
    except LineRefused as refusal:
        checked.add(refusal.code, refusal.message)
    if checked.total == 0 and not checked.mistakes:
        checked.add("empty_file", "the file has no requests")
    return checked


def _check_line(
    line: Line, principal: Principal, requests: BatchRequests, first_lines: dict[str, int], checked: Checked
) -> None:
    try:
        custom_id = requests.check(line, principal)
    except LineRefused as refusal:
        checked.add(refusal.code, refusal.message, line=line.number, param=refusal.param)
        return
    first = first_lines.setdefault(custom_id, line.number)
    if first != line.number:
        message = f"the custom_id {custom_id!r:.100} stands in line {first} too; each must be unique"
        checked.add("duplicate_custom_id", message, line=line.number, param="custom_id")
