"""Where the servers are that the driver started: one with real models, one with a scripted engine."""

from __future__ import annotations

import os

REAL = os.environ["CLIENTS_REAL"]
SCRIPTED = os.environ["CLIENTS_SCRIPTED"]
STARTER = "smollm2-135m-instruct"
QUESTION = "What is the weather in Paris?"
ANSWER = "It is 21 degrees in Paris."
"""What the scripted engine answers once it has the result of its call."""
