"""The fixtures of the attack suite, for what servers do with their limits and their life."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "attacks"))

from attack_world import driver, nothing_left_behind, world

__all__ = ["driver", "nothing_left_behind", "world"]
