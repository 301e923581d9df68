"""Log lines: readable on a terminal, JSON elsewhere; never content of conversations, keys or tokens."""
