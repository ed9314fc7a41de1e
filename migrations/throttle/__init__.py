"""How fast a migration may go: by the time a batch takes, and by what else the servers are busy with."""
