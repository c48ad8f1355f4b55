"""Mixture-of-experts policies: facts from a config, routing recorded and replayed, balance, placement, weight sync."""
