"""What makes changes of a directory last over a power cut."""

import os
from pathlib import Path


def sync_directory(directory: Path) -> None:
    """Have the names in a directory last, those that were made, changed or removed."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
