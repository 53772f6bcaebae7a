"""``medseg view``: the napari window with medseg's panel."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from medseg.errors import FormatError, MissingError, SpecError


def view(
    paths: Annotated[
        list[Path] | None, typer.Argument(metavar="[PATH...]", help="Images, DICOM folders and label files to open.")
    ] = None,
) -> int:
    """Open napari with medseg's panel: segment, correct, measure, save.

    For research use only.
    """
    if missing := [path for path in paths or [] if not path.exists()]:
        raise MissingError(f"{missing[0]}: no such file or folder")
    if find_spec("napari") is None or not any(map(find_spec, ("PySide6", "PyQt6", "PyQt5"))):
        raise SpecError("the viewer is not installed here: pip install 'medseg[gui]', or napari and PyQt6")
    import napari
    from medseg_napari.reader import readable

    if foreign := [path for path in paths or [] if not readable([str(path)])]:
        raise FormatError(f"{foreign[0]}: holds no image that medseg reads")
    viewer = napari.Viewer(title="medseg: for research use only")
    for path in paths or []:
        viewer.open(str(path), plugin="medseg")
    viewer.window.add_plugin_dock_widget("medseg", "medseg")
    napari.run()
    return 0
