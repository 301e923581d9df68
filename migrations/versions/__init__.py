"""One module per revision, named v<revision>_<what it does>."""
