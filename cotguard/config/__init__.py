"""Configuration: what may be set, where from, and what is in force."""
