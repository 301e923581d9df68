"""Where the servers are that the driver started: one with real models, one with a scripted engine, one that is slow."""

from __future__ import annotations

import os

REAL = os.environ["CLIENTS_REAL"]
SCRIPTED = os.environ["CLIENTS_SCRIPTED"]
SLOW = os.environ["CLIENTS_SLOW"]
SLOWLY = "The answer took a while."
"""What the slow server says, behind many keep-alives."""
STARTER = "smollm2-135m-instruct"
QUESTION = "What is the weather in Paris?"
ANSWER = "It is 21 degrees in Paris."
"""What the scripted engine answers once it has the result of its call."""
