"""Which slices make one image, how one is chosen, and irregular stacks put right at their true positions."""

import json
import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_dicom_series import SECRET, few, stack, turned, written
from typer.testing import CliRunner

from medseg import io
from medseg.cli import app, main
from medseg.errors import FormatError, GeometryError, InputError, MissingError


def phases(count, **marks):
    """Stacks at the same positions; each mark has a value for each stack."""
    out = []
    for i in range(count):
        slices, pixels = stack(4, series="1.2.3", **{key: values[i] for key, values in marks.items()})
        for one in slices:
            one.PixelData = (one.pixel_array + i * 1000).astype(np.int16).tobytes()
        out.append((slices, pixels + i * 1000))
    return out


@pytest.mark.parametrize(
    "marks",
    [
        {"TemporalPositionIdentifier": [1, 2, 3]},
        {"EchoTime": [2.4, 10.1, 4.8]},
        {"KVP": [80, 140, 100]},
        {"ImageType": [["DERIVED", "A"], ["DERIVED", "B"], ["DERIVED", "C"]]},
        {"AcquisitionNumber": [1, 2, 3]},
        {"EchoTime": [1, 1, 2], "InversionTime": [1, 2, 2]},  # only both together
    ],
    ids=lambda marks: "+".join(marks),
)
def test_phases_are_told_apart(tmp_path, marks):
    parts = phases(3, **marks)
    folder = written(tmp_path / "s", [one for slices, _ in parts for one in slices])
    listed = io.series(folder)
    assert [one.shape for one in listed] == [(4, 6, 7)] * 3 and not any(one.problems for one in listed)
    assert len({one.key for one in listed}) == 3 and len({one.uid for one in listed}) == 1
    found = {int(io.load(folder, series=one.key).voxels()[0].max()) // 1000 for one in listed}
    assert found == {0, 1, 2}
    with pytest.raises(FormatError, match=f"3 DICOM series.*{listed[0].key} CT 4 x 6 x 7"):
        io.load(folder)
    with pytest.raises(InputError, match="holds 3 images; choose by key"):
        io.load(folder, series="1.2.3")


def test_times_that_differ_in_every_slice(tmp_path):
    parts = phases(3)
    for time, (slices, _) in enumerate(parts):
        for place, one in enumerate(slices):
            one.AcquisitionTime = f"1010{10 * time + place:02d}"
    folder = written(tmp_path / "s", [one for slices, _ in parts for one in slices])
    for number, (_, pixels) in enumerate(parts, 1):
        assert (io.load(folder, series=number).voxels()[0] == pixels).all()
        assert (io.load(folder, series=str(number)).voxels()[0] == pixels).all()


def test_nothing_tells_repeats_apart(tmp_path):
    parts = phases(2)
    folder = written(tmp_path / "s", [one for slices, _ in parts for one in slices])
    assert "repeat the position" in io.series(folder)[0].problems[0]
    with pytest.raises(GeometryError, match="hold different pixels"):
        io.load(folder, regularize=True)


def test_a_localizer_is_a_group_of_its_own(tmp_path):
    slices, pixels = stack(6)
    scout, _ = stack(1, axes=turned((90, 0, 0)), ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    folder = written(tmp_path / "s", slices + scout)
    volume, localizer = io.series(folder)
    assert volume.shape == (6, 6, 7) and localizer.shape == (1, 6, 7)
    assert (io.load(folder, series=volume.key).voxels()[0] == pixels).all()
    with pytest.raises(InputError, match="no series 'nothing'"):
        io.load(folder, series="nothing")
    with pytest.raises(InputError, match="no series '3'"):
        io.load(folder, series=3)


@few
@given(st.randoms())
def test_names_and_order_change_nothing(tmp_path, random):
    slices, _ = stack(6, axes=turned((10, 20, 30)))
    want = io.load(written(tmp_path / "a", slices))
    order = list(range(6))
    random.shuffle(order)
    shutil.rmtree(tmp_path / "b", ignore_errors=True)
    for name, i in enumerate(order):
        folder = tmp_path / "b" / str(random.randrange(3))
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(want.source.files[i], folder / f"{random.randrange(10**9)}{name}.dcm")
    found = io.load(tmp_path / "b")
    assert found.grid == want.grid and found.source.content_hash() == want.source.content_hash()
    assert io.series(tmp_path / "b")[0].key == io.series(tmp_path / "a")[0].key
    files = sorted((tmp_path / "b").rglob("*.dcm"))
    random.shuffle(files)
    listed = io.load(files)
    assert listed.grid == want.grid and (listed.voxels() == want.voxels()).all()
    assert listed.source.content_hash() == want.source.content_hash()


def ramp(slices, slope=(3.0, 5.0, 7.0)):
    """Values that change linearly in LPS space."""
    for one in slices:
        place = np.array(one.ImagePositionPatient, float)
        row, column = np.array(one.ImageOrientationPatient, float).reshape(2, 3)
        j, i = np.mgrid[:6, :7]
        points = place + j[..., None] * column * 0.8 + i[..., None] * row * 0.7
        del one.BitsStored, one.HighBit, one.PixelRepresentation, one.PixelData
        one.BitsAllocated, one.FloatPixelData = 32, (points @ slope).astype(np.float32).tobytes()
    return slices


def off_ramp(image, slope=(3.0, 5.0, 7.0)):
    index = np.stack(np.meshgrid(*map(np.arange, image.grid.shape), indexing="ij"), -1)
    want = image.grid.to_world(index.reshape(-1, 3)) * (-1, -1, 1) @ slope
    return np.abs(image.voxels()[0].ravel() - want).reshape(image.grid.shape)


@pytest.mark.parametrize("angle", [(0, 0, 0), (20, -30, 40)])
def test_missing_slices_are_filled_in_at_true_positions(tmp_path, angle):
    slices, _ = stack(9, axes=turned(angle))
    kept = ramp(slices[:2] + slices[4:7] + slices[8:])
    folder = written(tmp_path / "s", kept)
    with pytest.raises(GeometryError, match="regularize=True"):
        io.load(folder)
    image = io.load(folder, regularize=True)
    assert image.grid.shape == (9, 6, 7) and off_ramp(image).max() < 1e-3
    assert "3 of 9 slices were interpolated" in image.source.notes[0] and len(image.source.files) == 6


def test_unequal_gaps(tmp_path):
    slices, _ = stack(7)
    for one, z in zip(slices, (0, 2, 4.5, 6, 8.7, 10, 12), strict=True):
        one.ImagePositionPatient[2] = z
    image = io.load(written(tmp_path / "s", ramp(slices)), regularize=True)
    assert image.grid.shape == (7, 6, 7) and image.grid.spacing[0] == pytest.approx(2) and off_ramp(image).max() < 1e-3


@pytest.mark.parametrize("tangent", [0.2679, -0.5])
def test_gantry_tilt(tmp_path, tangent):
    slices, _ = stack(8)
    for i, one in enumerate(slices):
        one.ImagePositionPatient[1] += tangent * 2.5 * i
    folder = written(tmp_path / "s", ramp(slices))
    with pytest.raises(GeometryError, match="sheared .* regularize=True"):
        io.load(folder)
    image = io.load(folder, regularize=True)
    linear = image.grid.affine[:3, :3] / image.grid.spacing
    assert np.abs(linear.T @ linear - np.eye(3)).max() < 1e-9 and image.grid.spacing == pytest.approx((2.5, 0.8, 0.7))
    off, lowest = off_ramp(image), image.voxels()[0] == image.voxels().min()
    assert off[~lowest].max() < 1e-3 and (~lowest).sum() > 0.7 * 8 * 42
    assert "tilt" in image.source.notes[0]


def test_duplicates_with_the_same_pixels_are_dropped(tmp_path):
    slices, pixels = stack(5)
    again = stack(5)[0][2]
    image = io.load(written(tmp_path / "s", [*slices, again]), regularize=True)
    assert (image.voxels()[0] == pixels).all() and "1 duplicate" in image.source.notes[0]
    again.PixelData = bytes(84)
    with pytest.raises(GeometryError, match="hold different pixels"):
        io.load(written(tmp_path / "s", [*slices, again]), regularize=True)


def test_a_regular_stack_is_not_touched(tmp_path):
    slices, pixels = stack(5, RescaleSlope=1, RescaleIntercept=0)
    image = io.load(written(tmp_path / "s", slices), regularize=True)
    assert image.source.notes == () and (image.voxels()[0] == pixels).all()


def test_a_damaged_header_spoils_its_own_folder_only(tmp_path):
    written(tmp_path / "a", stack(4)[0])
    written(tmp_path / "b", stack(4, series="1.2.4")[0])
    file = tmp_path / "a" / "I000"
    file.write_bytes(file.read_bytes()[:300])
    first, second = io.series(tmp_path)
    assert "damaged" in first.problems[-1] and not second.problems
    assert io.load(tmp_path, series=second.key).grid.shape == (4, 6, 7)
    with pytest.raises(FormatError, match="damaged or truncated header"):
        io.load(tmp_path, series=first.key)


def test_wrong_calls(tmp_path):
    with pytest.raises(InputError, match="list of files is empty"):
        io.load([])
    with pytest.raises(MissingError):
        io.series(tmp_path / "nothing")
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(InputError):
        io.series(tmp_path)


def test_the_command(tmp_path, capsys):
    slices, _ = stack(4)
    folder = written(tmp_path / "s", slices + stack(3, series="1.2.4", step=9.0)[0])
    shown = CliRunner().invoke(app, ["series", str(folder)]).output
    assert "4 x 6 x 7" in shown and "9 x 0.8 x 0.7" in shown and "SPL" in shown and SECRET not in shown
    assert SECRET not in str(io.series(folder)) and io.series(folder)[0].description == SECRET
    assert SECRET in CliRunner().invoke(app, ["series", str(folder), "--descriptions"]).output
    rows = json.loads(CliRunner().invoke(app, ["series", str(folder), "--json"]).output)
    assert [row["number"] for row in rows] == [1, 2] and rows[0]["spacing"] == [2.5, 0.8, 0.7]
    with pytest.raises(SystemExit) as left:
        main(["series", str(tmp_path / "nothing")])
    assert left.value.code == 4 and "is not there" in capsys.readouterr().err
