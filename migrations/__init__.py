"""Alembic migrations of the database; found as ``manent:migrations``."""

if __name__ != "manent.migrations":
    raise ImportError("import manent.migrations, not migrations: the folder is mapped by pyproject.toml")
