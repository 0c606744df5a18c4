"""The sans-IO core: channels, hold, frontier, span merging and rewriting."""
