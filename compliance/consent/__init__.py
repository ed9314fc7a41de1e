"""Consent: events that never change, and the current state that they add up to."""
