"""Rule tables, one module a family, each with its rules as `RULES`."""
