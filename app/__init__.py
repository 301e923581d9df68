"""Where everything is put together: settings, bootstrap, the server's life, and the command line."""

if __name__ != "manent.app":
    raise ImportError("import manent.app, not app: the folder is mapped by pyproject.toml")
