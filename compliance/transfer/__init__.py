"""Bulk export and import, and the access package of one person (GDPR Art. 15 and 20)."""
