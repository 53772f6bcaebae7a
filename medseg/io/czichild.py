"""The process that reads a CZI, since damaged data can end Zeiss's library or hold it up.

It is run as a file, and needs nothing of medseg. Standard input holds one object as JSON: `path` and `memory`, and if voxels are
wanted `planes`, `roi`, `scene`, and `dtype` and `shape` of one plane. Standard output gets a line of JSON, see `_about`, or else
the bytes of these planes.
"""

from __future__ import annotations

import faulthandler
import json
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

_BLOCK = 128  # bytes at least of a block, the unit that tiles are stored in
_PATIENCE = 300.0  # seconds that a plane may take


def main() -> None:
    """Answer one order."""
    import numpy as np
    from pylibCZIrw.czi import open_czi

    order = json.load(sys.stdin)
    answer = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what the library prints is no answer
    _limit(order["memory"])
    faulthandler.dump_traceback_later(_PATIENCE, exit=True)  # the one clock that does not wait for the library
    with open_czi(order["path"]) as czi:
        if "planes" not in order:
            answer.write(json.dumps(_about(czi, os.path.getsize(order["path"]))).encode() + b"\n")
        for plane in order.get("planes", ()):
            values = np.asarray(czi.read(roi=tuple(order["roi"]), plane=plane, scene=order["scene"]))
            if values.dtype != order["dtype"] or list(values.shape) != order["shape"]:
                raise ValueError
            answer.write(np.ascontiguousarray(values[..., ::-1]).data)  # the library's order is blue, green, red
            faulthandler.dump_traceback_later(_PATIENCE, exit=True)
        answer.flush()
        os._exit(0)  # all is said; nobody waits for what the library does at its end


def _about(czi: Any, size: int) -> dict[str, Any]:
    """What the file states: `box` (first and last + 1 by axis), `scenes` and `whole` (x, y, width, height), `types`, `xml`."""
    box = {axis: [int(start), int(stop)] for axis, (start, stop) in czi.total_bounding_box_no_pyramid.items()}
    most = max((stop - start for axis, (start, stop) in box.items() if axis not in "XY"), default=1)
    return {
        "box": box, "most": most, "room": size // _BLOCK,
        "scenes": {str(key): _rectangle(place) for key, place in czi.scenes_bounding_rectangle.items()},
        "whole": _rectangle(czi.total_bounding_rectangle_no_pyramid),
        # asked of one channel after the other, so only of as many as there can be
        "types": sorted(set(czi.pixel_types.values())) if most <= size // _BLOCK else [],
        "xml": czi.raw_metadata,
    }  # fmt: skip


def _rectangle(place: Any) -> list[int]:
    return [int(place.x), int(place.y), int(place.w), int(place.h)]


def _limit(more: int) -> None:
    """Let the process take so many bytes more, where the system knows of such limits."""
    with suppress(ImportError, OSError, ValueError):
        import resource

        size = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE") + more
        _, most = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (size if most == resource.RLIM_INFINITY else min(size, most), most))


if __name__ == "__main__":
    main()
