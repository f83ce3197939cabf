"""`python -m anydit` is the command `anydit`."""

import sys

from anydit.cli import main

sys.exit(main())
