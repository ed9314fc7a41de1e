"""One health check per module; each adds itself to ``CHECKS``."""
