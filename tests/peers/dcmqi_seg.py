"""Read a DICOM SEG with dcmqi's segimage2itkimage and compare it with a label file: voxels, ids in order, position.

    pip install dcmqi==1.5.7            (in an environment of its own)
    python tests/peers/dcmqi_seg.py PATH/TO/segimage2itkimage LESIONS.seg.dcm LABELS.nii.gz

The labels must be those that were written, on the grid of the series. Prints what differs; exit status 1 if anything does.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import nibabel
import numpy as np


def read(tool, seg):
    """Return the segment numbers dcmqi reads, (x, y, z), and their affine (RAS)."""
    with tempfile.TemporaryDirectory() as folder:
        command = [str(tool), "--inputDICOM", str(seg), "--outputDirectory", folder, "--outputType", "nii"]
        subprocess.run(command, check=True, capture_output=True)
        labels, affine = None, None
        for path in sorted(Path(folder).glob("*.nii.gz")):
            image = nibabel.load(path)
            values = np.asarray(image.dataobj).astype(np.int64)
            labels = values if labels is None else np.maximum(labels, values)
            affine = image.affine if affine is None else affine
            if not np.allclose(affine, image.affine):
                raise ValueError("segments lie on different grids")
        return labels, affine


def differences(labels, affine, truth, place):
    """Return (voxels that differ, largest distance in mm) of labels (x, y, z), each with its affine.

    dcmqi writes the slices that hold something only, so voxels are compared through the world.
    """
    index = np.argwhere(truth)
    there = (index @ place[:3, :3].T + place[:3, 3] - affine[:3, 3]) @ np.linalg.inv(affine[:3, :3]).T
    near = np.rint(there).astype(int)
    inside = ((near >= 0) & (near < labels.shape)).all(axis=1)
    off = np.linalg.norm((there - near) @ affine[:3, :3].T, axis=1).max() if len(index) else 0.0
    wrong = int((~inside).sum()) + int((labels[tuple(near[inside].T)] != truth[tuple(index[inside].T)]).sum())
    return wrong + abs(int((labels > 0).sum()) - len(index)), float(off)


def main():
    tool, seg, file = sys.argv[1:]
    image = nibabel.load(file)
    values = np.asarray(image.dataobj).astype(np.int64)
    ordered = np.searchsorted(np.unique(values[values > 0]), values) + 1
    wrong, off = differences(*read(tool, seg), np.where(values > 0, ordered, 0), image.affine)
    sys.stdout.write(f"{wrong} voxels differ; positions differ by up to {off:.2g} mm\n")
    return 1 if wrong or off > 0.01 else 0


if __name__ == "__main__":
    sys.exit(main())
