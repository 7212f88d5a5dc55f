"""Makes this machine match a plan: interpreters and environments, verified, then published."""
