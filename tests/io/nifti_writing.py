"""NIfTI files as tests need them: written by nibabel, and changed behind its back."""

import nibabel


def saved(path, data, affine, sform=1, qform=0, unit="mm"):
    image = nibabel.Nifti1Image(data, affine, dtype=data.dtype)
    image.set_sform(affine, sform)
    image.set_qform(affine, qform)
    image.header.set_xyzt_units(unit)
    nibabel.save(image, path)
    return path


def edited(path, **fields):
    """Write header fields into a .nii file, past all checks of nibabel."""
    blob = bytearray(path.read_bytes())
    header = nibabel.Nifti1Header(bytes(blob[:348]), check=False)
    for key, value in fields.items():
        header[key] = value
    blob[:348] = header.binaryblock
    path.write_bytes(bytes(blob))
    return path
