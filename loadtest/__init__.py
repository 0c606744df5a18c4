"""What moderation costs: a mock reasoning server, a load generator, two minimal proxies to compare with, reports."""
