"""The report in a real browser: it renders, nothing of it is blocked, and it fits a screen of 1,280 pixels."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from caprpc.cli import main

ROOT = Path(__file__).resolve().parents[2]
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
REQUIRED = "CAPRPC_REQUIRE_BROWSER"
"""Set where a browser has to be there, as in CI; elsewhere a machine without one cannot run this file."""

FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--hide-scrollbars"),
)

pytestmark = pytest.mark.skipif(BROWSER is None and REQUIRED not in os.environ, reason="no chromium on this machine")


@pytest.fixture
def page(directory, tmp_path):
    return written(directory.path, tmp_path)


@pytest.fixture(params=["example", "ledger-server", "twenty peers"])
def any_page(request, directory, tmp_path):
    if request.param == "ledger-server":
        return written(ROOT / "policies" / request.param, tmp_path)
    if request.param == "twenty peers":
        text = (directory.path / "org-b.toml").read_text()
        names = ["org-b.toml", *(f"anorganizationwithalongname-{number}.toml" for number in range(19))]
        for name in names[1:]:
            stem = name.removesuffix(".toml")
            directory.write(name, text.replace('"org-b-feed"', f'"{stem}"').replace("org-b.example", f"{stem}.example"))
        directory.replace('["org-b.toml"]', json.dumps(names), "caprpc.toml")
    return written(directory.path, tmp_path)


def written(directory, tmp_path):
    target = tmp_path / "report.html"
    result = CliRunner().invoke(main, ["policy", "report", str(directory), "--html", str(target)])
    assert result.exit_code == 0, result.output
    return target


def browse(page, profile, *words) -> subprocess.CompletedProcess:
    assert BROWSER is not None, f"{REQUIRED} is set and there is no chromium on the PATH"
    done = subprocess.run(
        [BROWSER, *FLAGS, f"--user-data-dir={profile}", *words, page.as_uri()], capture_output=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done


def png_size(data: bytes) -> tuple[int, int]:
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    return int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")


def test_the_report_renders_under_its_own_security_policy(page, tmp_path):
    shot = tmp_path / "shot.png"
    done = browse(
        page, tmp_path / "profile", "--window-size=1280,1600", "--enable-logging=stderr", f"--screenshot={shot}"
    )
    assert b"Content Security Policy" not in done.stderr, "the browser refuses a part of the report"
    data = shot.read_bytes()
    assert png_size(data) == (1280, 1600)
    plain = tmp_path / "plain.html"
    plain.write_text(re.sub(r"<style>.*?</style>", "", page.read_text(), flags=re.S))
    other = tmp_path / "plain.png"
    browse(plain, tmp_path / "profile", "--window-size=1280,1600", f"--screenshot={other}")
    assert other.read_bytes() != data, "the style has no effect"


def test_nothing_is_wider_than_a_screen_of_1280_pixels(any_page, tmp_path):
    """A probe that the page's own policy would forbid is added to a copy, with the policy taken out."""
    probed = tmp_path / "probed.html"
    text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", any_page.read_text())
    probe = "<script>document.title = 'width ' + document.documentElement.scrollWidth</script>"
    probed.write_text(text.replace("</body>", f"{probe}</body>"))
    dom = browse(probed, tmp_path / "profile", "--window-size=1280,900", "--dump-dom").stdout.decode()
    width = re.search(r"<title>width (\d+)</title>", dom)
    assert width is not None
    assert int(width[1]) <= 1280


def test_the_report_prints(page, tmp_path):
    printed = tmp_path / "report.pdf"
    browse(page, tmp_path / "profile", f"--print-to-pdf={printed}")
    data = printed.read_bytes()
    assert data.startswith(b"%PDF-")
    assert data.count(b"/Type /Page\n") + data.count(b"/Type/Page/") + data.count(b"/Type /Page ") >= 2
