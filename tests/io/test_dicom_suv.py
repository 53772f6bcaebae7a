"""SUV against an independent calculation from the tags, against raw bytes by hand, and every way it can be impossible."""

import os
import struct
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from test_dicom_series import stack, written

from medseg import io
from medseg.errors import InputError

DATA = Path(os.environ.get("MEDSEG_DATA", Path(__file__).parents[2].parent / "shared" / "data"))
PET = DATA / "lesions/sts_raw_petdicom/STS_001/FDG_PET/image"
real = pytest.mark.skipif(not PET.is_dir(), reason="real data not here; set MEDSEG_DATA to its folder")

# Tags of the series: weight 71 kg, dose 388,777,472 Bq given at 10:35:00, scan at 11:20:11, half-life 6,588 s.
WEIGHT, DOSE, SECONDS, HALF = 71.0, 388_777_472.0, 45 * 60 + 11, 6588.0


@real
def test_every_voxel_against_an_independent_calculation():
    image = io.load(PET)
    found = io.suv(image).voxels()[0]
    for file, values in zip(image.source.files, found, strict=True):
        one = pydicom.dcmread(file)
        drug = one.RadiopharmaceuticalInformationSequence[0]
        clock = [
            int(time[:2]) * 3600 + int(time[2:4]) * 60 + float(time[4:])
            for time in (drug.RadiopharmaceuticalStartTime, one.SeriesTime)
        ]
        left = float(drug.RadionuclideTotalDose) * np.exp(
            -np.log(2) * (clock[1] - clock[0]) / float(drug.RadionuclideHalfLife)
        )
        stored = np.frombuffer(one.PixelData, "<i2").reshape(one.Rows, one.Columns).astype(np.float64)
        want = stored * float(one.RescaleSlope) * float(one.PatientWeight) * 1000 / left
        assert np.allclose(values, want, rtol=1e-6, atol=0)


@real
@pytest.mark.parametrize(
    ("slice_", "row", "column", "name", "start", "stored", "slope", "want"),
    [
        # stored number: little-endian bytes at start + 2 * (128 * row + column); want: stored * slope * 71000 /
        # (388777472 * 2 ** -(2711 / 6588)) = stored * slope * 71000 / 292297787.3
        (3, 48, 80, "1-264.dcm", 3490, 0x41C8, 0.209775, 0.858082),  # 16840 * 0.209775 = 3532.611 Bq/mL
        (80, 70, 60, "1-187.dcm", 3496, 0x15B7, 1.26356, 1.706182),  # 5559 * 1.26356 = 7024.130 Bq/mL
        (140, 64, 75, "1-127.dcm", 3494, 0x2642, 0.751327, 1.787401),  # 9794 * 0.751327 = 7358.497 Bq/mL
        (200, 60, 70, "1-067.dcm", 3494, 0x1F31, 0.307117, 0.595678),  # 7985 * 0.307117 = 2452.329 Bq/mL
        (250, 55, 64, "1-017.dcm", 3510, 0x34E7, 0.488856, 1.608158),  # 13543 * 0.488856 = 6620.577 Bq/mL
    ],
)
def test_five_voxels_by_hand(slice_, row, column, name, start, stored, slope, want):
    image = io.load(PET)
    assert image.source.files[slice_].name == name
    content = image.source.files[slice_].read_bytes()
    (number,) = struct.unpack_from("<h", content, start + 2 * (128 * row + column))
    assert number == stored
    by_hand = number * slope * WEIGHT * 1000 / (DOSE * 2 ** -(SECONDS / HALF))
    assert by_hand == pytest.approx(want, rel=1e-6)
    found = io.suv(image).voxels()[0, slice_, row, column]
    assert found == pytest.approx(by_hand, rel=1e-6) and found.dtype == np.float32


F18 = Dataset()
F18.CodeValue, F18.CodingSchemeDesignator, F18.CodeMeaning = "C-111A1", "SRT", "^18^Fluorine"


def pet(several=False, **changes):
    drug = Dataset()
    drug.RadiopharmaceuticalStartTime, drug.RadionuclideTotalDose, drug.RadionuclideHalfLife = "100000", "4e8", "6600"
    tags = {
        "Modality": "PT", "Units": "BQML", "DecayCorrection": "START", "CorrectedImage": ["DECY", "ATTN"],
        "SeriesDate": "20200102", "SeriesTime": "110000.5", "AcquisitionDate": "20200102", "AcquisitionTime": "110000.5",
        "PatientWeight": "80", "PatientSize": "1.8", "PatientSex": "M", "RescaleSlope": "2", "RescaleIntercept": "0",
    } | changes  # fmt: skip
    drug_changes = tags.pop("drug", {})
    for key, value in drug_changes.items():
        if value is None:
            delattr(drug, key)
        else:
            setattr(drug, key, value)
    slices, pixels = stack(3)
    for one in slices:
        one.RadiopharmaceuticalInformationSequence = Sequence([drug, drug] if several else [drug])
        for key, value in tags.items():
            if isinstance(key, tuple):
                one.add_new(key, *value)
            elif value is not None:
                setattr(one, key, value)
    return slices, pixels * 2.0


def test_kinds(tmp_path):
    slices, activity = pet()
    image = io.load(written(tmp_path / "s", slices))
    left = 4e8 * 2 ** -(3600.5 / 6600)
    lean = 1.10 * 80 - 128 * (80 / 180) ** 2
    surface = 0.007184 * 80**0.425 * 180**0.725 * 1e4
    for kind, size in (("bw", 80e3), ("lbm", lean * 1000), ("bsa", surface)):
        found = io.suv(image, kind)
        assert np.allclose(found.voxels()[0], activity * size / left, rtol=1e-6)
        assert found.source.notes[-1].startswith(f"SUV{kind}") and found.grid == image.grid


@pytest.mark.parametrize(
    ("changes", "factor"),
    [
        ({"DecayCorrection": "ADMIN"}, 80e3 / 4e8),
        ({"Units": "GML"}, 1),
        ({"Units": "CNTS", (0x7053, 0x1000): ("DS", "0.25")}, 0.25),
        ({"Units": "CNTS", (0x7053, 0x1009): ("DS", "3")}, 3 * 80e3 / (4e8 * 2 ** -(3600.5 / 6600))),
        # injected at 23:30 of the day before a scan at 00:30
        ({"SeriesTime": "003000", "AcquisitionTime": "003000", "drug": {"RadiopharmaceuticalStartTime": "233000"}},
         80e3 / (4e8 * 2 ** -(3600 / 6600))),
        ({"drug": {"RadiopharmaceuticalStartDateTime": "20200102103000", "RadiopharmaceuticalStartTime": None}},
         80e3 / (4e8 * 2 ** -(1800.5 / 6600))),
        # the same moment in other time zones
        ({"TimezoneOffsetFromUTC": "+0100", "drug": {"RadiopharmaceuticalStartDateTime": "20200102093000+0000",
          "RadiopharmaceuticalStartTime": "103000"}},
         80e3 / (4e8 * 2 ** -(1800.5 / 6600))),
        ({"TimezoneOffsetFromUTC": "+0100", "drug": {"RadiopharmaceuticalStartDateTime": "20200102043000.000000-0500",
          "RadiopharmaceuticalStartTime": "103000"}},
         80e3 / (4e8 * 2 ** -(1800.5 / 6600))),
        # midnight lies elsewhere in the zone of the scan than in that of its own stamp
        ({"TimezoneOffsetFromUTC": "+0100", "AcquisitionDateTime": "20200101233000-0500", "SeriesDate": "20200102",
          "SeriesTime": "053000", "drug": {"RadiopharmaceuticalStartTime": "050000"}},
         80e3 / (4e8 * 2 ** -(1800 / 6600))),
        # a series made later than the scan: GE's own tag says when the scan was
        ({"SeriesTime": "150000", (0x0009, 0x100D): ("DT", "20200102110000.5")}, 80e3 / (4e8 * 2 ** -(3600.5 / 6600))),
    ],
)  # fmt: skip
def test_ways_to_say_it(tmp_path, changes, factor):
    slices, activity = pet(**{k: v for k, v in changes.items() if isinstance(k, str)})
    for key, (kind, value) in ((k, v) for k, v in changes.items() if isinstance(k, tuple)):
        for one in slices:
            one.add_new((key[0], 0x0010), "LO", "GEMS_PETD_01" if key[0] == 9 else "Philips PET Private Group")
            one.add_new(key, kind, value)
    found = io.suv(io.load(written(tmp_path / "s", slices))).voxels()[0]
    assert np.allclose(found, activity * factor, rtol=1e-6)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"PatientWeight": None}, "PatientWeight is missing"),
        ({"PatientWeight": "0"}, "PatientWeight is missing or not positive"),
        ({"Units": None}, "Units is missing"),
        ({"Units": "CNTS"}, r"\(7053,1000\) and \(7053,1009\) are missing"),
        ({"DecayCorrection": "NONE"}, "DecayCorrection"),
        ({"CorrectedImage": ["DECY"]}, "ATTN"),
        ({"AcquisitionTime": None}, "AcquisitionTime is missing"),
        ({"SeriesTime": "150000"}, r"\(0009,100D\) is missing"),
        ({"drug": {"RadionuclideTotalDose": None}}, "RadionuclideTotalDose is missing"),
        ({"drug": {"RadionuclideTotalDose": "388"}}, "not in Bq"),
        ({"drug": {"RadionuclideHalfLife": None}}, "RadionuclideHalfLife is missing"),
        ({"drug": {"RadiopharmaceuticalStartTime": None}}, "RadiopharmaceuticalStartTime is missing"),
        ({"drug": {"RadiopharmaceuticalStartDateTime": "20200102080000"}}, "StartTime differ"),
        (
            {"drug": {"RadiopharmaceuticalStartTime": None, "RadiopharmaceuticalStartDateTime": "20200102103000+0000"}},
            "only one of scan and injection has a time zone",
        ),
        ({"AcquisitionDateTime": "20200102110000+0000"}, "some times have a time zone"),
        ({"drug": {"RadionuclideHalfLife": "109.77"}}, "too short for the time since"),
        ({"drug": {"RadionuclideCodeSequence": [F18], "RadionuclideHalfLife": "109.77"}}, "not that of the nuclide"),
        ({"PatientWeight": "70000"}, "no weight of a person in kg"),
        ({"CorrectedImage": ["ATTN"]}, "DECY"),
        ({"several": True}, "several injections"),
    ],
)
def test_what_is_missing_is_named(tmp_path, changes, words):
    slices, _ = pet(**changes)
    image = io.load(written(tmp_path / "s", slices))
    with pytest.raises(InputError, match=words):
        io.suv(image)


def test_no_pet(tmp_path):
    image = io.load(written(tmp_path / "s", stack(3)[0]))
    with pytest.raises(InputError, match="needs a PET image"):
        io.suv(image)
    with pytest.raises(InputError, match="no SUV 'max'"):
        io.suv(image, "max")
    slices, _ = pet(PatientSex="O")
    with pytest.raises(InputError, match="PatientSex"):
        io.suv(io.load(written(tmp_path / "p", slices)), "lbm")
