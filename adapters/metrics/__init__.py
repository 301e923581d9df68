"""Prometheus: the catalog of all metrics, those that are counted as things happen, and those that are read off."""
