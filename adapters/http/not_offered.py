"""What OpenAI's API or Anthropic's has and Manent does not: refused by name, so that nobody suspects a typing error."""

from __future__ import annotations

from collections.abc import Mapping

from manent.adapters.http.errors import RequestRefused
from manent.adapters.http.route import PREFIXES

# The first step of an address behind /v1, or the first two, and why nothing is there.
NOT_OFFERED: Mapping[str, str] = {
    "moderations": "Manent does not moderate",
    "images": "Manent makes no images; chats with models of type vlm read them",
    "audio": "Manent neither speaks nor listens",
    "videos": "Manent makes no videos",
    "realtime": "there are no realtime sessions; stream chat completions instead",
    "assistants": "OpenAI replaced assistants by responses; use sessions or chat completions",
    "threads": "OpenAI replaced threads by conversations; use sessions",
    "files": "there are no files; images go into messages as data URLs",
    "uploads": "there are no files; images go into messages as data URLs",
    "vector_stores": "there are no vector stores; embeddings are at /v1/embeddings",
    "containers": "no code is executed",
    "skills": "no code is executed",
    "messages/batches": "there are no batches; send messages with priority 'batch', which wait for the others",
    "batches": "there are no batches; send requests with priority 'batch', which wait for the others",
    "fine_tuning": "nothing is trained; adapters are named in models.toml",
    "evals": "there are no evals; `manent sessions rerun` and /v1/sessions/{id}/rerun compare models",
    "graders": "there are no graders",
    "chatkit": "there is no ChatKit",
    "organization": "there are no organizations; their log is at /v1/organization/audit_logs, and /v1/events",
    "projects": "there are no projects",
    "edits": "OpenAI ended it; use chat completions",
    "engines": "OpenAI ended it; use /v1/models",
    "answers": "OpenAI ended it; use chat completions",
    "classifications": "OpenAI ended it; use chat completions",
    "search": "OpenAI ended it; use embeddings",
}


def refusal_of(path: str) -> RequestRefused | None:
    """Why nothing is at ``path``, if OpenAI has something there."""
    for prefix in PREFIXES:
        if path.startswith(f"{prefix}/"):
            steps = path[len(prefix) + 1 :].split("/")
            for name in (steps[0], "/".join(steps[:2])):
                if name in NOT_OFFERED:
                    return RequestRefused(
                        "unsupported_endpoint", f"Manent does not offer {PREFIXES[0]}/{name}: {NOT_OFFERED[name]}"
                    )
    return None
