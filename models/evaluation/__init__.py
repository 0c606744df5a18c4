"""Scoring what is shipped: gold read by the scorer alone, predictions from ``cotguard scan``."""
