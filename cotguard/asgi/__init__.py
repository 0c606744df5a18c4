"""Moderation inside an ASGI application (Starlette, FastAPI and others) that speaks a model server's API itself."""

from cotguard.asgi.middleware import ModerationMiddleware

__all__ = ["ModerationMiddleware"]
