"""The whole log, verified without trust in a single row: in pages, with memory that does not grow with the log.

Headers are hashed anew and compared with the stored nodes, the head and every checkpoint; payloads with digests;
streams and completions with the rules that appends keep. A changed header shows as a wrong hash over a range, so a
finding names the smallest range that the hashes can tell: its first position is the first that may be wrong.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from manent.domain.errors import LogCorrupt
from manent.domain.merkle import EMPTY_ROOT
from manent.domain.transparency import (
    AuditedLog,
    CheckpointInvalid,
    CheckpointStore,
    CheckpointVerifier,
    Finding,
    HeaderPage,
    StoredHead,
    TreeHead,
)
from manent.domain.usecases.completion_ledger import CompletionLedger
from manent.domain.usecases.tree_check import BLOCK, TreeCheck

PAGE = 16 * BLOCK
ROOTS_MAX = PAGE + 1

Report = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """What came of it: findings in log order, the first of them the first that is wrong; none is a sound log.

    ``erased`` payloads were destroyed on purpose or not: their headers still verify. ``open_completions`` have no
    terminal event yet. ``checkpoints`` is how many were compared.
    """

    tree: TreeHead
    verified_from: int
    findings: Sequence[Finding]
    erased: int
    open_completions: int
    checkpoints: int

    @property
    def sound(self) -> bool:
        """Whether nothing is wrong."""
        return not self.findings


class VerifyLog:
    """Reads everything and believes nothing but the key, the saved checkpoint and what the signer remembers."""

    def __init__(
        self, log: AuditedLog, *, kept: CheckpointStore | None = None, verifier: CheckpointVerifier | None = None
    ) -> None:
        self._log = log
        self._kept = kept
        self._verifier = verifier

    async def run(
        self,
        *,
        saved: TreeHead | None = None,
        known: Sequence[TreeHead] = (),
        payloads: bool = True,
        report: Report = lambda _done, _total: None,
    ) -> Verification:
        """Verify the log, or what follows ``saved`` once the log was found to continue it.

        ``known`` are heads that were signed before; the log has to continue each of them too. ``payloads`` False
        verifies headers, tree, head and streams alone.
        """
        try:
            stored = await self._log.head()
        except LogCorrupt as error:
            nothing = TreeHead(size=0, root=EMPTY_ROOT)
            finding = Finding(position=1, last_position=1, what=error.message)
            return Verification(
                tree=nothing, verified_from=0, findings=[finding], erased=0, open_completions=0, checkpoints=0
            )
        run = _Run(self, stored, saved, known)
        await run.pages(payloads=payloads, report=report)
        return await run.verdict(payloads=payloads)

    async def expected_roots(self, first: int, last: int) -> tuple[list[tuple[int, bytes, str]], list[Finding]]:
        """The roots that kept checkpoints give for sizes from ``first`` to ``last``, and those that are no good."""
        roots: list[tuple[int, bytes, str]] = []
        findings: list[Finding] = []
        if self._kept is None or self._verifier is None:
            return roots, findings
        for kept in await self._kept.page(after_size=first - 1, limit=ROOTS_MAX):
            if kept.size > last:
                break
            try:
                head = self._verifier.opened(kept.note)
            except CheckpointInvalid as error:
                findings.append(_not_as_signed(kept.size, error.message))
                continue
            if head.size == kept.size:
                roots.append((head.size, head.root, "a kept checkpoint"))
            else:
                findings.append(_not_as_signed(kept.size, f"its note says {head.size}"))
        return roots, findings

    @property
    def log(self) -> AuditedLog:
        """The rows."""
        return self._log


class _Run:
    """One verification on its way: where it stands, and the earliest finding of each kind."""

    def __init__(
        self, verify: VerifyLog, stored: StoredHead, saved: TreeHead | None, known: Sequence[TreeHead]
    ) -> None:
        self._verify = verify
        self._stored = stored
        self._after = saved.size if saved is not None else 0
        self._heads = [(head, "the checkpoint that was signed last") for head in known]
        if saved is not None:
            self._heads.insert(0, (saved, "the saved checkpoint"))
        self._tree = TreeCheck(verify.log)
        self._ledger = CompletionLedger(verify.log, after=self._after)
        self._findings: dict[str, Finding] = {}
        self._erased = 0
        self._compared = 0

    async def pages(self, *, payloads: bool, report: Report) -> None:
        """Read on until the head's position, or until a position is missing."""
        size = self._stored.size
        for head, name in self._heads:
            if head.size > size:
                what = f"the log ends at {size}, but {name} has {head.size} events: an old backup, or a log cut off"
                self._note("known", Finding(position=size + 1, last_position=head.size, what=what))
        # From the block that holds the saved checkpoint's end, since only whole blocks have a stored node.
        first = (max(min(self._after, size), 1) - 1) // BLOCK * BLOCK + 1
        if not await self._tree.start_at(first - 1):
            self._note("tree", self._tree.missing_start(first - 1))
            return
        async with aclosing(self._read_ahead(first, size)) as pages:
            async for first, last, page, disorder in pages:
                report(first - 1, size)
                whole = await self._header_page(first, last, page, disorder)
                if payloads:
                    await self._payload_page(max(first, self._after + 1), whole)
                if whole < last:
                    return
        report(size, size)

    async def verdict(self, *, payloads: bool) -> Verification:
        """What the end of the log says, and everything that was found, in log order."""
        log, stored = self._verify.log, self._stored
        self._note("tree", self._tree.compared_with_head(stored))
        self._note("stray", await log.stray(stored.size, payloads=payloads))
        self._note("streams", await log.stream_gap(self._after, stored.size))
        await self._late_checkpoints()
        found = sorted(self._findings.values(), key=lambda finding: (finding.position, finding.last_position))
        return Verification(
            tree=self._tree.head,
            verified_from=self._after,
            findings=found,
            erased=self._erased,
            open_completions=self._ledger.open_count,
            checkpoints=self._compared,
        )

    async def _read_ahead(
        self, first: int, size: int
    ) -> AsyncGenerator[tuple[int, int, HeaderPage, Finding | None], None]:
        """The pages from ``first`` to ``size``, with what is out of order in each.

        The database reads a page while the one before it is hashed.
        """
        upcoming = self._reading(first, size)
        try:
            while first <= size:
                page, disorder = await upcoming
                begin, first = first, first + PAGE
                upcoming = self._reading(first, size)
                yield begin, min(first - 1, size), page, disorder
        finally:
            upcoming.cancel()
            await asyncio.gather(upcoming, return_exceptions=True)

    def _reading(self, first: int, size: int) -> asyncio.Future[tuple[HeaderPage, Finding | None]]:
        log, last = self._verify.log, min(first + PAGE - 1, size)
        disorder = log.disorder(max(first, self._after + 1), last, self._stored.log_id)
        return asyncio.gather(log.headers(first, last), disorder)

    async def _header_page(self, first: int, last: int, page: HeaderPage, disorder: Finding | None) -> int:
        """Verify a page's headers; the last position before the first that is missing."""
        self._note("headers", page.finding)
        whole = first - 1 + len(page.headers)
        roots, bad = await self._verify.expected_roots(first if first > 1 else 0, whole)
        roots += [(head.size, head.root, name) for head, name in self._heads if first <= head.size <= whole]
        self._compared += len(roots)
        for finding in bad:
            self._note("checkpoints", finding)
        self._note("tree", await self._tree.extend(page.headers, sorted(roots)))
        if disorder is not None and disorder.position <= whole:
            self._note("order", disorder)
        if whole < last and page.finding is None:
            what = f"position {whole + 1} is missing, and the head says that there are {self._stored.size}"
            self._note("headers", Finding(position=whole + 1, last_position=whole + 1, what=what))
        return whole

    async def _payload_page(self, first: int, last: int) -> None:
        if first > last:
            return
        page = await self._verify.log.payloads(first, last)
        self._erased += page.erased
        self._note("payloads", page.finding)
        for mark in page.marks:
            self._note("completions", await self._ledger.take(mark))

    async def _late_checkpoints(self) -> None:
        """A kept checkpoint of more events than there are."""
        roots, bad = await self._verify.expected_roots(self._stored.size + 1, 2**63 - 1)
        for finding in bad:
            self._note("checkpoints", finding)
        # The log may have grown, and been signed, while it was verified.
        now = (await self._verify.log.head()).size if roots else self._stored.size
        for size, _, name in roots:
            if size > now:
                what = f"the log ends at {now}, but {name} has {size} events: it was cut off"
                self._note("late", Finding(position=now + 1, last_position=size, what=what))

    def _note(self, kind: str, finding: Finding | None) -> None:
        """Keep the earliest finding of its kind."""
        if finding is not None and (kind not in self._findings or finding.position < self._findings[kind].position):
            self._findings[kind] = finding


def _not_as_signed(size: int, why: str) -> Finding:
    what = f"the kept checkpoint of size {size} is not as it was signed: {why}"
    return Finding(position=max(size, 1), last_position=max(size, 1), what=what)
