"""The aiohttp shell: sockets, time, back-pressure, cancellation and transport errors."""
