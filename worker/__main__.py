"""``python -m worker`` is the ``compliance`` command."""

from worker.main import main

main()
