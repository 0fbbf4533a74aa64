"""``python -m helpers.cli``: the same as the command `lookalike`."""

import sys

from helpers.cli.main import main

sys.exit(main())
