"""From stored numbers to quantities: what may be inverted, RT dose, Real World Value Mappings, CT without Hounsfield units."""

import re

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import DigitalXRayImageStorageForPresentation, MRImageStorage, NuclearMedicineImageStorage
from test_dicom_series import SECRET, stack, written

from medseg import io
from medseg.errors import FormatError, InputError


def loaded(folder, slices):
    return io.load(written(folder, slices))


def items(**fields):
    out = Dataset()
    for key, value in fields.items():
        setattr(out, key, value)
    return Sequence([out])


MONO = {"PhotometricInterpretation": "MONOCHROME1", "BitsStored": 12, "HighBit": 11}
MR = {"Modality": "MR", "SOPClassUID": MRImageStorage}


# ---- MONOCHROME1 says how to show values, not what they are


@pytest.mark.parametrize(
    "tags",
    [
        {**MR, "RescaleSlope": 2, "RescaleIntercept": -100},
        {**MR, "RescaleSlope": 2, "RescaleIntercept": -100, "RescaleType": "US"},
        {"RescaleSlope": 1, "RescaleIntercept": -1024},
        {"RescaleSlope": 1, "RescaleIntercept": 0},  # CT: Hounsfield units
        {"RescaleSlope": 1, "RescaleIntercept": 0, "RescaleType": "HU"},
        {**MR, "RescaleSlope": 1, "RescaleIntercept": 0, "RescaleType": "MGML"},
        {"Modality": "PT"},
        {"Modality": "NM", "SOPClassUID": NuclearMedicineImageStorage},
    ],
)
def test_quantities_are_never_inverted(tmp_path, tags):
    slices, pixels = stack(dtype=np.uint16, **MONO, **tags)
    image = loaded(tmp_path / "s", slices)
    want = pixels.astype(float) * tags.get("RescaleSlope", 1) + tags.get("RescaleIntercept", 0)
    assert (image.voxels()[0] == want).all() and any("not inverted" in note for note in image.source.notes)


@pytest.mark.parametrize(
    "tags",
    [
        MR,
        {**MR, "RescaleSlope": 1, "RescaleIntercept": 0, "RescaleType": "US"},
        {"Modality": "DX", "SOPClassUID": DigitalXRayImageStorageForPresentation, "RescaleSlope": 1,
         "RescaleIntercept": 0, "RescaleType": "US"},
    ],
)  # fmt: skip
def test_what_is_no_quantity_is_inverted(tmp_path, tags):
    slices, pixels = stack(dtype=np.uint16, **MONO, **tags)
    image = loaded(tmp_path / "s", slices)
    assert (image.voxels()[0] == 4095 - pixels).all() and any("were inverted" in note for note in image.source.notes)


def test_a_modality_lut_is_looked_up_with_what_is_stored(tmp_path):
    slices, pixels = stack(dtype=np.uint16, **MONO, **MR)
    entries = (np.arange(256) ** 2 // 4).astype("<u2")
    for one in slices:
        one.ModalityLUTSequence = items(ModalityLUTType="OD")
        one.ModalityLUTSequence[0].add_new("LUTDescriptor", "US", [256, 0, 16])
        one.ModalityLUTSequence[0].add_new("LUTData", "OW", entries.tobytes())
    image = loaded(tmp_path / "s", slices)
    assert (image.voxels()[0] == entries[pixels]).all()
    assert [word for note in image.source.notes for word in ("LUT", "not inverted") if word in note] == [
        "LUT",
        "not inverted",
    ]


@pytest.mark.parametrize(("vr", "first"), [("SS", -50), ("US", 65536 - 50)])
def test_a_modality_lut_that_begins_below_zero(tmp_path, vr, first):
    slices, _ = stack(dtype=np.int16, **MR)
    pixels = np.random.default_rng(1).integers(-80, 80, (5, 6, 7)).astype("<i2")
    entries = (np.arange(100) * 3 + 7).astype("<u2")
    for one, part in zip(slices, pixels, strict=True):
        one.PixelData = part.tobytes()
        one.ModalityLUTSequence = items(ModalityLUTType="US")
        one.ModalityLUTSequence[0].add_new("LUTDescriptor", vr, [100, first, 16])
        one.ModalityLUTSequence[0].add_new("LUTData", "OW", entries.tobytes())
    voxels = loaded(tmp_path / "s", slices).voxels()[0]
    assert (voxels == entries[np.clip(pixels.astype(int) + 50, 0, 99)]).all()


def test_slices_that_are_quantities_and_slices_that_are_not(tmp_path):
    slices, _ = stack(dtype=np.uint16, **MONO, **MR)
    for one in slices[:2]:
        one.RescaleSlope, one.RescaleIntercept = 2, 0
    with pytest.raises(InputError, match="MONOCHROME1 slices"):
        loaded(tmp_path / "s", slices)


# ---- CT


@pytest.mark.parametrize(
    ("tags", "word"),
    [
        ({}, "no rescale: .* need not be Hounsfield"),
        ({"RescaleSlope": 1, "RescaleIntercept": -1024, "RescaleType": "US"}, "RescaleType .* not Hounsfield"),
        ({"RescaleSlope": 1, "RescaleIntercept": -1024}, None),
        ({"RescaleSlope": 1, "RescaleIntercept": -1024, "RescaleType": "HU"}, None),
        ({"RescaleIntercept": -1024}, None),
        (MR, None),
    ],
)
def test_ct_that_is_not_in_hounsfield_units_is_noted(tmp_path, tags, word):
    notes = loaded(tmp_path / "s", stack(**tags)[0]).source.notes
    assert any(re.search(word, note) for note in notes) if word else not any("Hounsfield" in note for note in notes)


# ---- RT dose


def dose(folder, **tags):
    slices, pixels = stack(
        1, dtype=np.uint32, Modality="RTDOSE", NumberOfFrames=3, GridFrameOffsetVector=["0", "3", "6"], **tags
    )
    stored = np.stack([pixels[0] + i for i in range(3)]).astype("<u4")
    slices[0].PixelData = stored.tobytes()
    return loaded(folder, slices), stored


@pytest.mark.parametrize("unit", ["GY", None, "", "DOE"])
def test_dose_without_a_scaling_is_no_dose(tmp_path, unit):
    with pytest.raises(InputError, match="no DoseGridScaling"):
        dose(tmp_path / "s", **({} if unit is None else {"DoseUnits": unit}))


@pytest.mark.parametrize(
    ("tags", "factor", "word"),
    [
        ({"DoseUnits": "GY", "DoseGridScaling": "0.25"}, 0.25, "in Gy, scaled"),
        ({"DoseUnits": "RELATIVE", "DoseGridScaling": "0.25"}, 0.25, "relative .* not Gy, scaled"),
        ({"DoseUnits": "RELATIVE"}, 1, "relative .* not Gy, as stored"),
        ({"DoseGridScaling": "0.25"}, 0.25, "does not state"),
        ({"DoseUnits": "GY", "DoseGridScaling": "0.25", "PhotometricInterpretation": "MONOCHROME1"}, 0.25, "in Gy"),
        ({"DoseUnits": "GY", "DoseGridScaling": "0.25", "RescaleSlope": 7, "RescaleIntercept": 3}, 0.25, "in Gy"),
    ],
)
def test_dose_and_its_unit(tmp_path, tags, factor, word):
    image, stored = dose(tmp_path / "s", **tags)
    assert (image.voxels()[0] == stored * factor).all() and re.search(word, image.source.notes[0])


def test_dose_with_a_scaling_of_0_or_a_table(tmp_path):
    with pytest.raises(FormatError, match="DoseGridScaling is 0"):
        dose(tmp_path / "s", DoseUnits="GY", DoseGridScaling="0")
    table = items(ModalityLUTType="US")
    table[0].add_new("LUTDescriptor", "US", [4, 0, 16])
    table[0].add_new("LUTData", "OW", bytes(8))
    with pytest.raises(InputError, match="Modality LUT"):
        dose(tmp_path / "s", DoseUnits="GY", DoseGridScaling="1", ModalityLUTSequence=table)


# ---- Real World Value Mapping


def mapping(slope=0.5, intercept=-3.0, code="um2/s", scheme="UCUM", **tags):
    unit = items(CodeValue=code, CodingSchemeDesignator=scheme, CodeMeaning=SECRET)
    linear = {} if slope is None else {"RealWorldValueSlope": slope, "RealWorldValueIntercept": intercept}
    out = items(LUTLabel=SECRET, MeasurementUnitsCodeSequence=unit, **linear, **tags)
    for keyword, value in (("RealWorldValueFirstValueMapped", 0), ("RealWorldValueLastValueMapped", 4095)):
        out[0].add_new(keyword, "US", value)
    return out


@pytest.mark.parametrize(
    ("code", "scheme", "told"), [("um2/s", "UCUM", "um2/s"), (SECRET, "UCUM", "names"), ("s", "99X", "names")]
)
def test_a_single_linear_mapping_is_applied(tmp_path, code, scheme, told):
    slices, pixels = stack(**MR, **MONO)
    for one in slices:
        one.RealWorldValueMappingSequence = mapping(code=code, scheme=scheme)
    image = loaded(tmp_path / "s", slices)
    assert (image.voxels()[0] == pixels * 0.5 - 3).all()
    assert told in image.source.notes[0] and "not inverted" in image.source.notes[1]
    assert not any("Doe" in note for note in image.source.notes)


def test_each_slice_has_its_own_mapping(tmp_path):
    slices, pixels = stack(**MR)
    for i, one in enumerate(slices, 1):
        one.RealWorldValueMappingSequence = mapping(slope=i / 4, intercept=i)
    want = pixels * (np.arange(1, 6) / 4)[:, None, None] + np.arange(1, 6)[:, None, None]
    assert (loaded(tmp_path / "s", slices).voxels()[0] == want).all()


def test_a_mapping_beside_a_rescale_is_noted(tmp_path):
    slices, pixels = stack(**MR, RescaleSlope=2, RescaleIntercept=1)
    for one in slices:
        one.RealWorldValueMappingSequence = mapping()
    image = loaded(tmp_path / "s", slices)
    assert (image.voxels()[0] == pixels * 2 + 1).all() and "was not applied" in image.source.notes[0]


@pytest.mark.parametrize(
    ("found", "word"),
    [
        (Sequence([*mapping(), *mapping(slope=0.1)]), "there are 2"),
        (mapping(slope=None, RealWorldValueLUTData=[1.0, 4.0, 9.0]), "it is a table"),
    ],
)
def test_a_mapping_that_is_not_applied_is_noted(tmp_path, found, word):
    slices, pixels = stack(**MR)
    for one in slices:
        one.RealWorldValueMappingSequence = found
    image = loaded(tmp_path / "s", slices)
    assert (image.voxels()[0] == pixels).all() and word in image.source.notes[0]


def test_a_mapping_with_a_slope_of_0(tmp_path):
    slices, _ = stack(**MR)
    slices[2].RealWorldValueMappingSequence = mapping(slope=0)
    with pytest.raises(FormatError, match="RealWorldValueSlope"):
        loaded(tmp_path / "s", slices)


def parametric(shared=None, own=(), scale=False):
    """A Parametric Map of three frames."""
    slices, pixels = stack(
        1, dtype=np.uint16, Modality="MR", SOPClassUID="1.2.840.10008.5.1.4.1.1.30", NumberOfFrames=3,
        ImagePositionPatient=None, ImageOrientationPatient=None, PixelSpacing=None, SliceThickness=None,
    )  # fmt: skip
    one, stored = slices[0], np.stack([pixels[0] + i for i in range(3)]).astype("<u2")
    one.PixelData = stored.tobytes()
    one.SharedFunctionalGroupsSequence = items(
        PlaneOrientationSequence=items(ImageOrientationPatient=[1, 0, 0, 0, 1, 0]),
        PixelMeasuresSequence=items(PixelSpacing=[0.8, 0.7], SliceThickness=2.5),
        **({"PixelValueTransformationSequence": items(RescaleSlope=2, RescaleIntercept=1)} if scale else {}),
        **({"RealWorldValueMappingSequence": shared} if shared else {}),
    )
    frames = [items(PlanePositionSequence=items(ImagePositionPatient=[0, 0, 2.5 * k]))[0] for k in range(3)]
    for frame, found in zip(frames, own, strict=False):
        if found is not None:
            frame.RealWorldValueMappingSequence = found
    one.PerFrameFunctionalGroupsSequence = Sequence(frames)
    return slices, stored


@pytest.mark.parametrize(
    ("shared", "own"),
    [
        (mapping(), ()),
        (None, [mapping()] * 3),
        (mapping(slope=9), [mapping()] * 3),  # a frame knows better
        (mapping(), [None, mapping(), None]),
    ],
)
def test_a_parametric_map(tmp_path, shared, own):
    slices, stored = parametric(shared, own)
    image = loaded(tmp_path / "s", slices)
    assert (image.voxels()[0] == stored * 0.5 - 3).all() and "um2/s" in image.source.notes[0]


@pytest.mark.parametrize(
    ("shared", "own"), [(None, [mapping(), mapping(0.1)]), (mapping(), [mapping(code="s")]), (None, [mapping()])]
)
def test_a_parametric_map_of_several_quantities(tmp_path, shared, own):
    slices, _ = parametric(shared, own)
    with pytest.raises(InputError, match="different Real World Value Mappings"):
        loaded(tmp_path / "s", slices)


def test_an_enhanced_file_with_rescale_and_mapping(tmp_path):
    slices, stored = parametric(mapping(), scale=True)
    image = loaded(tmp_path / "s", slices)
    assert (image.voxels()[0] == stored * 2 + 1).all() and "was not applied" in image.source.notes[0]
