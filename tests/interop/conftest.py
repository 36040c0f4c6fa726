"""Lets these tests import the helpers in ``tests/``."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
