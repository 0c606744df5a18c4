"""What operators see: metrics. Counts and names only, never text (G7)."""
