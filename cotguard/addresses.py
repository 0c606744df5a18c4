"""HOST:PORT, and whether it is this machine's own."""

from ipaddress import ip_address

__all__ = ["is_loopback", "split_address"]


def split_address(text: str) -> tuple[str, int]:
    """Host, without brackets, and port of ``text``, which was validated."""
    host, _, port = text.rpartition(":")
    return host.strip("[]"), int(port)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach ``host``. Of names only ``localhost`` is known to be so."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"
