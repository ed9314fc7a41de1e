"""Data goes when it is too old for every purpose that it was stored for (GDPR Art. 5(1)(e))."""
