"""Credentials: secrets of API keys, signed tokens of others (JWT), and those of Manent's own nodes."""
