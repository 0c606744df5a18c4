"""Who asks, and what they may: keys, tokens of an OpenID provider, certificates, roles with their scopes, limits."""
