"""Framing: bytes to events and back, without a word about what the events mean."""
