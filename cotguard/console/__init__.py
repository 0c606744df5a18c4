"""The web console on the admin port: what the gateway sees, and a place to try a policy before it is enforced."""
