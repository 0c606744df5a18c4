"""Dialects: one file per wire format."""
