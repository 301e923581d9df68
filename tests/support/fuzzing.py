"""Schemathesis against a real server with a scripted engine: `make fuzz ARGS="--max-examples 500"`, and in the suite.

The API's own description decides what is sent and what may come back. Left out are the aliases, which are the same
handlers by another name, and the tail of the log, whose answers do not end.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.support.server import serving

SCHEMATHESIS = Path(sys.executable).parent / "st"
LEFT_OUT = "^/api/v1|^/v1/events/stream$"
# A request that its schema allows may be refused for what no schema says: that messages answer each other, say.
CHECKS_LEFT_OUT = "positive_data_acceptance"


def fuzz(folder: Path, arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run it with a home in ``folder``; the exit code is 0 where nothing was found."""
    home = folder / "home"
    home.mkdir()
    with serving(home, engine="scripted", log_level="error") as server:
        found = subprocess.run(
            [
                SCHEMATHESIS,
                "run",
                f"{server.address}/openapi.json",
                f"--exclude-path-regex={LEFT_OUT}",
                f"--exclude-checks={CHECKS_LEFT_OUT}",
                "--request-timeout=20",
                "--no-color",
                *arguments,
            ],
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert server.process.poll() is None, "the server did not survive"
    return found


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        result = fuzz(Path(temporary), sys.argv[1:])
    sys.stdout.write(result.stdout)
    sys.exit(result.returncode)
