"""Real windows for the plugin's tests: an own Xvfb where there is no display."""

import os
import shutil
import subprocess
import sys
import time

import pytest

import medseg.spec  # noqa: F401  PySide6, which pytest-qt loads, breaks pydantic's own import when napari is the first to ask


@pytest.fixture(scope="session")
def display():
    """A screen; skips where there can be none, and fails where CI was to bring one."""
    if sys.platform != "linux" or os.environ.get("DISPLAY"):
        yield
        return
    program = shutil.which("Xvfb")
    if program is None:
        reason = "no display and no Xvfb (apt install xvfb libgl1-mesa-dri libegl1 libxcb-cursor0)"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    reading, writing = os.pipe()
    command = [program, "-displayfd", str(writing), "-screen", "0", "1600x1100x24", "-nolisten", "tcp"]
    server = subprocess.Popen(command, pass_fds=[writing], stderr=subprocess.DEVNULL)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        number = pipe.readline().strip()
    os.environ["DISPLAY"] = f":{number}"
    yield
    os.environ.pop("DISPLAY")
    server.terminate()
    server.wait(10)


@pytest.fixture
def sessions(tmp_path, monkeypatch):
    """Sessions are autosaved here."""
    monkeypatch.setenv("MEDSEG_SESSIONS", str(tmp_path / "sessions"))
    return tmp_path / "sessions"


@pytest.fixture
def window(display, sessions, monkeypatch, tmp_path):
    """A napari window of fixed size, a hand to use it with, and nothing left behind."""
    monkeypatch.setenv("NAPARI_CONFIG", str(tmp_path / "napari.yaml"))
    import napari
    from hand import Hand

    viewer = napari.Viewer(show=True)
    viewer.window._qt_window.resize(1400, 900)
    hand = Hand(viewer)
    hand.wait(0.05)
    yield hand
    hand.close()


@pytest.fixture(autouse=True)
def _waits():
    """No test may hang for ever in an event loop."""
    begun = time.monotonic()
    yield
    assert time.monotonic() - begun < 900
