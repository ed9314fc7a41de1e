"""Erasure of one person (GDPR Art. 17): plan, execute in batches, look again, and only then say done."""
