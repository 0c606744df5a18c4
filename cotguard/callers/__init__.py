"""Who asks, and what they may: keys, tokens of an OpenID provider, roles with their scopes, limits."""
