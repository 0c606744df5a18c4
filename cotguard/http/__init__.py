"""HTTP and TLS as the gateway and its upstreams use them: what aiohttp leaves to be said."""
