"""``python -m melisma``: the command line."""

import sys

from melisma.cli import main

sys.exit(main())
