"""The rules of Manent: events, sessions, context, use cases and ports. Standard library only, no I/O."""

if __name__ != "manent.domain":
    raise ImportError("import manent.domain, not domain: the folder is mapped by pyproject.toml")
