"""Counting requests and tokens: in this process, in Redis for all servers together, and what to do when it is away."""
