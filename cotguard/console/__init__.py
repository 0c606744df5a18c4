"""The web console on the admin port: the gateway at work, and policies tried before they are in force."""
