"""``python -m manent.app`` is ``manent``."""

from manent.app.cli import main

main()
