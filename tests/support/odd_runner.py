"""A runner that speaks the protocol and misbehaves, for tests of what the server makes of it.

The name of the model's folder says how. It takes the place of a real runner through ``python_with_runner``, a
stand-in for the interpreter, so that everything on the server's side is the product's own.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import sys
import time
from pathlib import Path

from manent.adapters.inference.protocol import (
    Delta,
    Finished,
    Generate,
    LoadFailed,
    Progress,
    Ready,
    Render,
    ServerFrame,
)
from manent.adapters.inference.server_connection import ServerConnection
from manent.domain.generation import FinishReason, Timings, Usage
from tests.support.runners import runner_facts


def answer(connection: ServerConnection, raw: socket.socket, folder: Path, frame: ServerFrame) -> None:
    """Misbehave on a request."""
    behavior = folder.name
    if behavior == "garbage":
        raw.sendall(b"\xff\xff\xff\xff")
    elif behavior == "confused" and isinstance(frame, Render):
        connection.write([Delta(id=frame.id, text="?", token_ids=(1,))])
    elif behavior in {"mortal", "doomed"} and isinstance(frame, Generate):
        if not killed_before(folder) or behavior == "doomed":
            os.kill(os.getpid(), signal.SIGKILL)
        connection.write([finished(frame)])
    elif behavior == "slow" and isinstance(frame, Generate):
        for done in range(10):
            time.sleep(0.2)
            connection.write([Progress(id=frame.id, processed_tokens=done, total_tokens=10)])
        connection.write([finished(frame)])


def finished(frame: Generate) -> Finished:
    """An empty answer."""
    return Finished(
        id=frame.id,
        finish_reasons=(FinishReason.STOP,),
        stop_sequences=(None,),
        usage=Usage(prompt_tokens=1, completion_tokens=0),
        timings=Timings(queue_s=0.0, prefill_s=2.0, decode_s=0.0),
        batch_size_max=1,
    )


def killed_before(folder: Path) -> bool:
    """Whether a runner of this folder was here before; from now on one was."""
    mark = folder.with_suffix(".killed")
    if mark.exists():
        return True
    mark.touch()
    return False


def main() -> None:
    """Behave as the folder's name says."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--fd", type=int)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--digest-folder", type=Path)
    options, _ = parser.parse_known_args()
    behavior = options.model.name
    raw = socket.socket(fileno=options.fd)
    connection = ServerConnection(raw)
    if behavior == "dies":
        sys.exit("out of luck")
    if behavior == "noisy":
        sys.stderr.write("x" * 80 + "\n")
        sys.stderr.write(("y" * 80 + "\n") * 20_000)
        sys.exit("the last word")
    if behavior == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if behavior == "killed-while-loading" and not killed_before(options.model):
        os.kill(os.getpid(), signal.SIGKILL)
    if behavior == "too-large":
        connection.write([LoadFailed(reason="RuntimeError: [malloc] Unable to allocate 10 bytes.")])
        return
    connection.write([Ready(facts=runner_facts())])
    while (frame := connection.read()) is not None or behavior == "stubborn":
        if frame is not None:
            answer(connection, raw, options.model, frame)
        else:
            time.sleep(0.01)


if __name__ == "__main__":
    main()
