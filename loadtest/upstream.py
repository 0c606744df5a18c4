"""A mock reasoning server for load: Chat Completions streams shaped as vLLM's, paced exactly or as fast as they go.

The request says what to stream: ``max_tokens``, ``seed`` (the stream's number in the account of times) and, in
``metadata``, ``rate`` in tokens a second (``0``: unpaced, many events a write) and ``planted`` (``1``: with values).
``GET /sent`` gives, and forgets, the times at which each token was written, on the host's monotonic clock.
"""

import asyncio
import time
from functools import cache
from itertools import batched

import orjson
from aiohttp import web

from loadtest.script import script
from loadtest.serving import serve

__all__ = ["create_upstream"]
