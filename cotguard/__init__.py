"""cotguard: moderation of reasoning traces and answers while they stream."""

__version__ = "0.1.0"
