"""The audit trail: who asked what kind of thing, and what was decided. Chained, so that removal shows."""
