"""One masking strategy per module; each adds itself to ``STRATEGIES``. A published version never changes."""
