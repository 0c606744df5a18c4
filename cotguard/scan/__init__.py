"""Moderation of files: one to standard output, or whole trees into redacted copies and reports."""
