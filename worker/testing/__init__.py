"""For tests of other people's migrations: the pytest plugin of the package, see docs/migrations.md.

Nothing here is imported by the processes, and only ``plugin`` needs pytest.
"""
