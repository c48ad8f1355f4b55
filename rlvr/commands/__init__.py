"""Verb groups of the `rlvr` command, one module a room; each imports its room only when a verb runs."""
