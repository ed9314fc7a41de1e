"""Real MongoDB and Valkey servers for demonstration, development and tests; never for production.

``open_stack`` runs them as children of this process, ``find_stack`` finds what another process of the same user runs.
Both servers listen on loopback only, with generated passwords, and keep their data under one home directory.
"""

from worker.embedded.endpoints import Endpoints, find_stack
from worker.embedded.home import resolve_home
from worker.embedded.lock import is_locked
from worker.embedded.process import Server
from worker.embedded.stack import Stack, open_stack

__all__ = ["Endpoints", "Server", "Stack", "find_stack", "is_locked", "open_stack", "resolve_home"]
