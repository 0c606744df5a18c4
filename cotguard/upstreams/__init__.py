"""Pools of model servers: which one gets a request, and what is known of its health."""
