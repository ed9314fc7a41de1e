"""``python -m migrations --env=production``."""

import sys

from migrations.migrate import main

sys.exit(main(sys.argv[1:]))
