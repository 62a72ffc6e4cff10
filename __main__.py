"""``python -m headgate``: the command of the same name."""

import sys

from .gateway.cli.main import main

sys.exit(main())
