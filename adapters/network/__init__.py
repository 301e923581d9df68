"""Addresses of the network and whether they may be asked: what adapters that fetch or send share. Imports no adapter."""
