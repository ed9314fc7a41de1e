"""The audit log: entries that are written in the transaction of their effect and never change."""
