"""``python -m migrations.governance`` prints the page of all rules."""

import sys

from migrations.governance.document import page

sys.stdout.write(page())
