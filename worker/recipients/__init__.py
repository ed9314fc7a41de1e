"""Telling other systems that somebody was erased (GDPR Art. 19)."""
