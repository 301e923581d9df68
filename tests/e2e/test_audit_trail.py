"""What an auditor does with a real log: verify it, keep a checkpoint, prove an event, and trust nobody's program."""

from __future__ import annotations

import base64
import json
import re
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from manent.adapters.merkle.checkpoints import open_checkpoint
from manent.adapters.merkle.notes import Verifier
from manent.domain.merkle import leaf_hash, verify_consistency, verify_inclusion
from tests.support.commands import manent
from tests.support.independent_verifier import Wrong, header_bytes, verify
from tests.support.server import Server

VERIFIER_SOURCE = Path(__file__).parents[1] / "support" / "independent_verifier.py"


@pytest.fixture(scope="module", autouse=True)
def _conversation(server: Server) -> None:
    with server.client() as client:
        for text in ('Grüß "dich" \\ \u2028 🙂', "And\tnow?"):
            client.chat.completions.create(
                model="default",
                messages=[{"role": "user", "content": text}],
                extra_body={"session_id": "audit-trail"},
                max_tokens=4,
            )


def run(server: Server, *arguments: str) -> str:
    """The output of a command that succeeds."""
    done = manent("log", *arguments, home=server.home)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def lines(server: Server) -> list[str]:
    """The whole log, page by page."""
    found: list[str] = []
    while page := manent("events", "--json", "--limit", "7", "--after", str(len(found)), home=server.home).stdout:
        found += page.removesuffix("\n").split("\n")  # and not splitlines, which also splits at U+2028
    return found


def test_the_log_verifies_while_the_server_runs(server: Server) -> None:
    """`manent log verify` finds nothing wrong with a real log, and says what it covered."""
    run(server, "checkpoint")
    result = json.loads(run(server, "verify", "--json"))
    assert result["sound"] is True
    assert result["findings"] == []
    assert result["size"] >= 9
    assert result["checkpoints"] >= 1
    assert "sound" in run(server, "verify")


def test_an_independent_verifier_agrees(server: Server, tmp_path: Path) -> None:
    """A program that shares no line with Manent comes to the same root, and notices what was changed."""
    source = VERIFIER_SOURCE.read_text(encoding="utf-8")
    assert source.count("\n") < 150
    assert not re.search(r"^\s*(from|import) (manent|tests)", source, re.MULTILINE)
    note, key = run(server, "checkpoint"), run(server, "key")
    events = lines(server)
    assert verify(events, note, key) >= 9
    for changed in (
        [
            line.replace('"actor":"local"', '"actor":"eve"', 1) if number == 4 else line
            for number, line in enumerate(events)
        ],
        events[:3] + events[4:],
        [*events[:2], events[3], events[2], *events[4:]],
        events[:5],
    ):
        with pytest.raises(Wrong):
            verify(changed, note, key)
    for name, text in (("checkpoint", note), ("events", "\n".join(events) + "\n")):
        (tmp_path / name).write_text(text, encoding="utf-8")
    files = [str(tmp_path / name) for name in ("checkpoint", "events")]
    command = [sys.executable, "-I", str(VERIFIER_SOURCE), key.strip(), *files]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.startswith("sound: ")


def test_a_saved_checkpoint_is_where_the_next_audit_begins(server: Server, tmp_path: Path) -> None:
    """--from verifies that the log continues what was saved; a checkpoint of another log or key is refused."""
    saved = tmp_path / "saved.checkpoint"
    saved.write_text(run(server, "checkpoint"), encoding="utf-8")
    result = json.loads(run(server, "verify", "--json", "--from", str(saved)))
    assert result["verified_from"] == int(saved.read_text(encoding="utf-8").splitlines()[1])
    saved.write_text(saved.read_text(encoding="utf-8").replace("manent/log_", "manent/lag_"), encoding="utf-8")
    done = manent("log", "verify", "--from", str(saved), home=server.home)
    assert (done.returncode, "not signed by" in done.stderr) == (1, True)


def test_a_proof_is_verified_with_nothing_but_the_key(server: Server, tmp_path: Path) -> None:
    """`manent log verify-proof` needs no home; it prints the header, and says no to anything changed."""
    file, key = tmp_path / "event.tlog-proof", run(server, "key").strip()
    text = run(server, "prove", "3")
    file.write_text(text, encoding="utf-8")
    nowhere = tmp_path / "nowhere"
    done = manent("log", "verify-proof", str(file), "--key", key, home=nowhere)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["position"] == 3
    assert not nowhere.exists()
    file.write_text(text.replace("\nindex 2\n", "\nindex 1\n"), encoding="utf-8")
    done = manent("log", "verify-proof", str(file), "--key", key, home=nowhere)
    assert (done.returncode, "does not hold" in done.stderr) == (1, True)
    done = manent("log", "verify-proof", str(file), "--key", key[:-3], home=nowhere)
    assert done.returncode == 2
    assert manent("log", "prove", "999999", home=server.home).returncode == 2


def test_proofs_over_http_hold(server: Server) -> None:
    """Inclusion and consistency proofs of the server verify against its signed checkpoints, under both prefixes."""
    verifier = Verifier.parse(run(server, "key"))
    with httpx.Client(base_url=f"{server.address}/api/v1") as http:
        note = http.get("/log/checkpoint").json()["note"]
        head = open_checkpoint(note, verifier)
        event = http.get("/events", params={"min_position": 5, "limit": 1}).json()["data"][0]
        proof = http.get("/log/proof/inclusion", params={"position": 5, "size": head.size}).json()
        hashes = [bytes_of(one) for one in proof["hashes"]]
        assert verify_inclusion(leaf_hash(header_bytes(event["header"])), 4, head.size, hashes, head.root)
        proof = http.get("/log/proof/consistency", params={"old": 4, "new": head.size}).json()
        hashes = [bytes_of(one) for one in proof["hashes"]]
        assert verify_consistency(4, head.size, hashes, bytes_of(proof["old_root"]), head.root)
        kept = http.get("/log/checkpoints", params={"limit": 1000}).json()
        assert note in [one["note"] for one in kept["data"]]
        assert all(open_checkpoint(one["note"], verifier).size == one["size"] for one in kept["data"])
        for path, code in (
            ("/log/proof/inclusion", "missing_required_parameter"),
            ("/log/proof/inclusion?position=999999", "invalid_value"),
            ("/log/proof/consistency?old=9&new=3", "invalid_value"),
            ("/log/checkpoints?limit=0", "invalid_value"),
        ):
            answer = http.get(path)
            assert (answer.status_code, answer.json()["error"]["code"]) == (400, code)


def bytes_of(text: str) -> bytes:
    """Base64, read."""
    return base64.b64decode(text)


def test_the_key_is_nobody_elses(server: Server) -> None:
    """The signing key can be read by its owner only; the verifier key beside it is the one that is printed."""
    folder = server.home / "keys"
    assert (folder / "log-signing.key").stat().st_mode & 0o777 == 0o600
    assert folder.stat().st_mode & 0o777 == 0o700
    assert (folder / "log-signing.pub").read_text(encoding="utf-8") == run(server, "key")
