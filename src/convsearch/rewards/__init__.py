"""Rewards: pure functions from what was observed to a number."""
