"""A finalizer that revokes may run in the midst of any code of ours: it waits for no lock that its thread holds."""

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("driver", ["rights", "blocking", "aio"])
def test_garbage_that_revokes_is_collected_anywhere(driver, tmp_path):
    script = Path(__file__).with_name("revoking_finalizers.py")
    command = [sys.executable, "-W", "error", str(script), driver, str(tmp_path)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (ended.stdout.strip(), ended.stderr) == ("done", "")
