"""Projections of the log that make reading fast; each can be dropped and is rebuilt from the log."""
