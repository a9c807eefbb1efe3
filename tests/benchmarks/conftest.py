"""Makes the benchmark package importable for its tests; nothing in it is collected as a test."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
