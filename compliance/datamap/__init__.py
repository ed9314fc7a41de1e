"""The data map: where the data of a person is, and what becomes of it on erasure."""
