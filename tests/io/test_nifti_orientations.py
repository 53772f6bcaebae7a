"""NIfTI geometry: 96 orientations through medseg, nibabel and SimpleITK, headers that contradict themselves, damage."""

import gzip
import itertools
import struct
import warnings

import nibabel
import nifti_writing
import numpy as np
import pytest
import SimpleITK as sitk
from nifti_writing import edited
from scipy.spatial.transform import Rotation

from medseg import io
from medseg.errors import FormatError, GeometryError, InputError, MedsegWarning
from medseg.grid import Grid
from medseg.image import Image
from medseg.testing.judge import why_wrong
from medseg.testing.series import Truth

SHAPE = (4, 5, 6)  # i, j, k
ORIENTATIONS = [
    (order, signs) for order in itertools.permutations(range(3)) for signs in itertools.product((1, -1), repeat=3)
]
TURN = Rotation.from_euler("xyz", (12, -7, 23), degrees=True).as_matrix()


def affine_of(order, signs, oblique):
    """One of the 48 ways to lay three axes along right, anterior, superior, turned a little or not."""
    linear = np.eye(3)[:, list(order)] * np.array(signs) * (0.7, 1.1, 2.3)
    affine = np.eye(4)
    affine[:3, :3] = TURN @ linear if oblique else linear
    affine[:3, 3] = (-31.5, 42.25, 7.75)
    return affine


def volume():
    return np.random.default_rng(0).integers(-3000, 3000, SHAPE).astype(np.int16)


def truth_of(data, affine):
    """Position and value of each voxel, worked out from the affine alone."""
    index = np.moveaxis(np.indices(data.shape), 0, -1)
    return Truth(index @ affine[:3, :3].T + affine[:3, 3], data[None].astype(np.float64), off=2e-4)


def saved(path, data, affine, sform=1, qform=1):
    return nifti_writing.saved(path, data, affine, sform, qform)


def by_simpleitk(path):
    image = sitk.ReadImage(path)
    grid = Grid.from_itk(image.GetSize(), image.GetSpacing(), image.GetOrigin(), image.GetDirection())
    return sitk.GetArrayFromImage(image)[None], grid.affine


@pytest.mark.parametrize("oblique", [False, True], ids=["plain", "oblique"])
@pytest.mark.parametrize(
    ("order", "signs"), ORIENTATIONS, ids=["".join("-+"[s > 0] + "RAS"[o] for o, s in zip(*x, strict=True)) for x in ORIENTATIONS]
)  # fmt: skip
def test_orientation(tmp_path, order, signs, oblique):
    affine, data = affine_of(order, signs, oblique), volume()
    truth = truth_of(data, affine)
    path = saved(tmp_path / "a.nii.gz", data, affine)
    image = io.load(path)
    assert why_wrong(image.voxels(), image.grid.affine, truth) is None and not image.source.notes
    other = nibabel.load(path)
    assert why_wrong(np.asarray(other.dataobj)[None], other.affine, truth) is None
    assert why_wrong(*by_simpleitk(path), truth) is None
    for sform, qform in ((1, 0), (0, 1)):
        image = io.load(saved(tmp_path / "b.nii", data, affine, sform, qform))
        assert why_wrong(image.voxels(), image.grid.affine, truth) is None
    # and what medseg writes, the two others read
    io.save_image(image, tmp_path / "c.nii.gz")
    other = nibabel.load(tmp_path / "c.nii.gz")
    assert why_wrong(np.asarray(other.dataobj)[None], other.affine, truth) is None
    assert why_wrong(*by_simpleitk(tmp_path / "c.nii.gz"), truth) is None


# --- the policy: sform before qform before pixdim, and a word where they contradict one another


def conflict(path):
    """Load; return the image and the warnings."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        image = io.load(path)
    assert all(issubclass(one.category, MedsegWarning) for one in told)
    assert all(one.filename == __file__ for one in told)
    return image, " ".join(str(one.message) for one in told)


def test_sform_against_qform(tmp_path):
    affine, data = affine_of((0, 1, 2), (1, 1, 1), True), volume()
    path = edited(saved(tmp_path / "a.nii", data, affine), qoffset_x=99.0)
    image, told = conflict(path)
    assert why_wrong(image.voxels(), image.grid.affine, truth_of(data, affine)) is None
    assert "sform and qform disagree" in told and "the sform is used" in image.source.notes[0]
    image, told = conflict(edited(path, sform_code=0))
    assert image.grid.origin[0] == pytest.approx(99) and not told


def test_stale_pixdim(tmp_path):
    affine, data = affine_of((0, 1, 2), (1, 1, 1), False), volume()
    path = saved(tmp_path / "a.nii", data, affine, 1, 0)
    assert conflict(path)[1] == ""
    image, told = conflict(edited(path, pixdim=[1, 9, 1.1, 2.3, 1, 1, 1, 1]))
    assert why_wrong(image.voxels(), image.grid.affine, truth_of(data, affine)) is None
    assert "pixdim states a spacing of 9 x 1.1 x 2.3 mm" in told and "pixdim" in image.source.notes[0]


def test_both_codes_0(tmp_path):
    path = saved(tmp_path / "a.nii", volume(), affine_of((0, 1, 2), (1, 1, 1), False), 0, 0)
    image, told = conflict(path)
    assert image.grid.space == "stage" and "no orientation" in image.source.notes[0] and not told
    assert np.allclose(image.grid.to_nifti(), nibabel.load(path).affine)


def test_shear(tmp_path):
    affine, data = affine_of((0, 1, 2), (1, 1, 1), True), volume()
    affine[:3, 2] += 0.4 * affine[:3, 0]
    path = saved(tmp_path / "a.nii", data, affine, 1, 0)
    image, told = conflict(path)
    assert why_wrong(image.voxels(), image.grid.affine, truth_of(data, affine)) is None
    edited(path, qform_code=1)  # a qform cannot hold the shear
    assert "disagree" in conflict(path)[1]


@pytest.mark.parametrize("slope", [0, np.nan, np.inf])
def test_a_slope_that_says_there_is_none(tmp_path, slope):
    data = volume()
    path = edited(saved(tmp_path / "a.nii", data, np.eye(4)), scl_slope=slope, scl_inter=7)
    assert (io.load(path).voxels()[0] == data.T).all() and io.load(path).array.dtype == np.int16


@pytest.mark.parametrize(("unit", "factor"), [(1, 1e3), (2, 1), (3, 1e-3), (10, 1)])
def test_units_are_converted(tmp_path, unit, factor):
    path = edited(saved(tmp_path / "a.nii", volume(), affine_of((0, 1, 2), (1, 1, 1), False)), xyzt_units=unit)
    image, told = conflict(path)
    assert np.allclose(image.grid.spacing, np.array((2.3, 1.1, 0.7)) * factor) and not told
    assert np.allclose(image.grid.origin, np.array((-31.5, 42.25, 7.75)) * factor)
    with pytest.raises(GeometryError, match="unit"):
        io.load(edited(path, xyzt_units=5))


# --- damage and bombs


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_cut_anywhere(tmp_path, ending):
    path = saved(tmp_path / f"a{ending}", volume(), np.eye(4))
    whole = path.read_bytes()
    for size in [1, 2, *np.linspace(3, len(whole) - 1, 30).astype(int).tolist()]:
        path.write_bytes(whole[:size])
        with pytest.raises(FormatError):
            io.load(path).voxels()


def test_a_stream_longer_than_its_header_says_is_stopped_early(tmp_path):
    path = saved(tmp_path / "a.nii", volume(), np.eye(4))
    bomb = tmp_path / "a.nii.gz"
    bomb.write_bytes(gzip.compress(path.read_bytes() + bytes(64 << 20)))
    with pytest.raises(FormatError, match="more voxels than its header"):
        io.load(bomb).voxels()
    # several gzip members are one stream
    whole = path.read_bytes()
    bomb.write_bytes(gzip.compress(whole[:400]) + gzip.compress(whole[400:]))
    assert (io.load(bomb).voxels()[0] == volume().T).all()
    bomb.write_bytes(gzip.compress(whole) + gzip.compress(bytes(64 << 20)))
    with pytest.raises(FormatError, match="more voxels than its header"):
        io.load(bomb).voxels()


def test_offset_far_away_is_a_claim_too(tmp_path):
    path = edited(saved(tmp_path / "a.nii", volume(), np.eye(4)), vox_offset=1e11)
    with pytest.raises(FormatError, match="truncated"):
        io.load(path)
    gz = tmp_path / "a.nii.gz"
    with gz.open("wb") as out:
        out.write(gzip.compress(path.read_bytes()))
        out.truncate(1 << 27)  # sparse: long enough to be what it claims
    with pytest.raises(InputError, match="MEDSEG_MAX_GB"):
        io.load(gz)


def test_the_limit_can_be_raised(tmp_path, monkeypatch):
    image = Image(np.zeros((1, 9, 9, 9), np.uint8), Grid.from_spacing((9, 9, 9), 1.0))
    io.save_image(image, tmp_path / "a.nii.gz")
    monkeypatch.setenv("MEDSEG_MAX_GB", "1e-7")
    with pytest.raises(InputError, match="over the limit"):
        io.load(tmp_path / "a.nii.gz")
    monkeypatch.setenv("MEDSEG_MAX_GB", "1e-3")
    assert io.load(tmp_path / "a.nii.gz").voxels().shape == (1, 9, 9, 9)


def test_nifti_header_of_the_other_byte_order(tmp_path):
    image = nibabel.Nifti1Image(volume(), affine_of((2, 0, 1), (1, -1, 1), True)).as_reoriented(
        np.array([[0, 1], [1, 1], [2, 1]])
    )
    header = image.header.as_byteswapped(">")
    nibabel.save(nibabel.Nifti1Image(volume(), image.affine, header), tmp_path / "a.nii")
    assert (tmp_path / "a.nii").read_bytes()[:4] == struct.pack(">i", 348)
    found = io.load(tmp_path / "a.nii")
    assert why_wrong(found.voxels(), found.grid.affine, truth_of(volume(), image.affine)) is None
