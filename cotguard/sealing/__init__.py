"""Seals: what reasoning models sign goes to clients as tokens that only this gateway can open."""
