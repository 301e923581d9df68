"""How the ports of the domain are met: one folder per technology, none of which imports another."""

if __name__ != "manent.adapters":
    raise ImportError("import manent.adapters, not adapters: the folder is mapped by pyproject.toml")
