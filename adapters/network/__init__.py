"""Addresses of the network and whether they may be asked: shared by adapters that fetch or send, imports none."""
