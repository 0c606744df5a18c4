"""Malformed and tricky HTTP as data, over raw sockets: what clients send, and what upstreams answer."""
