"""Detectors find spans in a channel's text while it arrives."""
