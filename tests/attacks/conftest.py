"""Real servers of both drivers, a good client beside them, and hostile peers; every test leaves nothing behind."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from attack_world import driver, nothing_left_behind, world
from duels import duel

__all__ = ["driver", "duel", "nothing_left_behind", "world"]
