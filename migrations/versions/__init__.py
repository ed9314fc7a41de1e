"""The migrations of the reference domain; another organisation sets ``COMPLIANCE_MIGRATIONS`` to its own folder."""
