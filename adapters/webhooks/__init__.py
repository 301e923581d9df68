"""Webhooks' outer side: messages sent over HTTP, and the key that their secrets are derived from."""
