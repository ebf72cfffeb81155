"""Chromium without a screen or a network, to look at pages."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

# No screen, no network, no telemetry.
_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--disable-sync",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
    "--hide-scrollbars",
    "--host-resolver-rules=MAP * ~NOTFOUND",
    "--enable-logging=stderr",
)
# A virtual clock: timers fire at once, up to this many milliseconds of the page's time.
_VIRTUAL_TIME = "--virtual-time-budget=5000"


# No window is narrower where there is no screen; a frame in it is.
_NARROWEST = 500
_FRAME = """<!DOCTYPE html><meta charset="utf-8"><style>body {{ margin: 0 }}</style>
<iframe src="{}" style="border: 0; width: {}px; height: {}px"></iframe>
<pre id="measured"></pre>
<script>
addEventListener("message", (event) => {{
  document.getElementById("measured").textContent = event.data;
}});
</script>
"""


def chromium() -> str | None:
    """Return the path of the browser, if there is one."""
    return shutil.which("chromium") or shutil.which("chromium-browser")


def browse(
    page: Path,
    *options: str,
    window: tuple[int, int] = (1100, 900),
    dark: bool = False,
    seconds: float = 60.0,
    part: str = "",
    real_time: bool = False,
) -> tuple[str, str]:
    """Open a page without a network or a screen; return what it wrote and logged.

    Args:
      page: the file.
      *options: more options of the browser.
      window: its size in pixels. If it is narrow, the page is in a frame, written next to it, which
        shows what the page posts to its parent.
      dark: whether the system has a dark theme.
      seconds: how long to wait.
      part: what follows the file in the address, with its ``#``.
      real_time: whether the page has the real clock, and ends when it is loaded. Otherwise its
        timers fire at once.
    """
    command = chromium()
    if command is None:
        raise FileNotFoundError("chromium is not on the PATH")
    if window[0] < _NARROWEST:
        frame = page.with_name("frame.html")
        frame.write_text(_FRAME.format(page.name, *window), encoding="utf-8")
        page = frame
    clock = [] if real_time else [_VIRTUAL_TIME]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        done = subprocess.run(
            [
                command, *_FLAGS, *clock, f"--user-data-dir={profile}",
                f"--blink-settings=preferredColorScheme={0 if dark else 1}", *options,
                f"--window-size={window[0]},{window[1]}", page.resolve().as_uri() + part,
            ],
            capture_output=True, text=True, timeout=seconds, check=True,
            env={**os.environ, "HOME": profile},
        )  # fmt: skip
    return done.stdout, done.stderr
