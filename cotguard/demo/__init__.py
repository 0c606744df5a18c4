"""The demo: a built-in reasoning server, raw and through cotguard, side by side, in one process."""

from cotguard.demo.session import run

__all__ = ["run"]
