"""What is raised where the configuration cannot be used."""

__all__ = ["SettingsError"]


class SettingsError(ValueError):
    """The settings are wrong; the message says which, where, and what to write. It quotes no value."""
