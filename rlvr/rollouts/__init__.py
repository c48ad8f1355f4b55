"""Prompts, generation engines and rollout records."""
