"""``python -m cotguard``."""

import sys

from cotguard.cli import main

sys.exit(main())
