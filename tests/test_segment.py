"""What may go into `segment`: one image or named ones, what is refused, and what only by force."""

from dataclasses import replace

import numpy as np
import pytest

from medseg.errors import GeometryError, InputError, MedsegError, ModelError
from medseg.grid import Grid
from medseg.image import Image, Source
from medseg.pipeline import default_model, segment
from medseg.spec import NetSpec, PreprocessSpec, RunSpec
from medseg.testing.decoding import same_partition
from medseg.testing.models import flat, knowing, numbered

# --- refusals


def test_the_wrong_dimension_is_refused_even_by_force(drawn):
    model, _ = flat(drawn)
    for options in (RunSpec(), RunSpec(force=True)):
        with pytest.raises(ModelError, match="works in 2-D, the image is 3-D; give it one slice or a projection"):
            segment(numbered((4, 5, 6)), model=model, options=options)
    deep = knowing(np.zeros((1, 4, 4, 4)))
    with pytest.raises(ModelError, match="works in 3-D, the image is 2-D; give it a stack"):
        segment(numbered((5, 6)), model=deep)


def test_another_modality_is_refused_unless_forced(drawn):
    model, _ = flat(drawn)
    image = numbered(drawn.shape, modality="CT")
    with pytest.raises(ModelError, match="trained on microscopy, the image is CT; choose another model, or --force"):
        segment(image, model=model)
    found = segment(image, model=model, options=RunSpec(force=True))
    assert len(found) == 5
    assert found.provenance["notes"] == ["knowing was trained on microscopy, the image is CT"]
    assert len(segment(numbered(drawn.shape, modality="microscopy"), model=model)) == 5


def test_another_spacing_is_refused_unless_forced(drawn):
    model, _ = flat(drawn, spacing_range=((0.5, 1.0), (0.5, 1.0)))
    with pytest.raises(ModelError, match="trained on x spacing 0.5 to 1 mm, the image has 2 mm") as caught:
        segment(numbered(drawn.shape, (0.7, 2.0)), model=model)
    assert " y spacing" not in str(caught.value)
    for spacing in ((0.5, 1.0), (0.496, 1.009), None):  # within 1 %, or unknown
        assert segment(numbered(drawn.shape, spacing), model=model).provenance["notes"] == []
    forced = segment(numbered(drawn.shape, 3.0), model=model, options=RunSpec(force=True))
    assert len(forced.provenance["notes"]) == 2


def test_voxels_that_are_not_finite_are_refused(drawn):
    model, _ = flat(drawn)
    array = np.ones(drawn.shape)
    array[3, 3] = np.nan
    with pytest.raises(InputError, match="not finite"):
        segment(array, model=model)


@pytest.mark.parametrize("options", [{"tile": (20,)}, {"tile": (20, 0)}, {"region": (20, 20, 20)}, {"region": (-1, 9)}])
def test_sizes_that_do_not_fit_are_refused(drawn, options):
    model, image = flat(drawn)
    with pytest.raises(InputError, match="need 2 positive numbers"):
        segment(image, model=model, options=RunSpec(**options))


def test_a_model_is_chosen_by_dimension_for_microscopy_alone():
    assert default_model(numbered((4, 5))) == "nuclei2d"
    assert default_model(numbered((4, 5, 6), modality="microscopy")) == "nuclei3d"
    with pytest.raises(ModelError, match="a person has to say.*none ships"):
        default_model(numbered((4, 5, 6), modality="CT"))
    ultrasound = replace(numbered((4, 5)), source=Source((), "dicom"))
    with pytest.raises(ModelError, match="a DICOM image, a person has to say.*none ships"):
        default_model(ultrasound)


def test_errors_are_also_the_fitting_builtin(drawn):
    model, _ = flat(drawn)
    with pytest.raises(ValueError, match="2-D") as caught:
        segment(numbered((4, 5, 6)), model=model)
    assert isinstance(caught.value, MedsegError)


# --- inputs


def test_channels_are_chosen_and_never_guessed(drawn):
    model, _ = flat(drawn)
    numbers = numbered(drawn.shape).voxels()[0]
    stack = np.stack([np.zeros_like(numbers), numbers])
    found = segment(np.moveaxis(stack, 0, -1), model=model, channel_axis=-1, channels=(1,))
    assert same_partition(found.labels, drawn)
    with pytest.raises(ModelError, match="3-D"):
        segment(stack, model=model)
    with pytest.raises(ModelError, match="choose with --channels"):
        segment(stack, model=model, channel_axis=0)


class Sum:
    """A network that finds where both its channels are bright."""

    def __call__(self, x):
        return [(x[:, :1] + x[:, 1:] - 1.5) * 20]


def pair(shape=(30, 40)):
    model = knowing(
        np.zeros((1, *shape)),
        net=NetSpec(ndim=len(shape), in_channels=2, filters=(4, 4, 4)),
        preprocess=PreprocessSpec(channels=("flair", "t1"), low=0, high=100, joint=False),
    )
    one, two = np.zeros(shape), np.zeros(shape)
    one[5:25, 5:25] = 1
    two[5:25, 15:35] = 1
    return replace(model, _nets=(Sum(),)), one, two


def test_named_inputs_are_combined_whatever_their_order():
    model, one, two = pair()
    expected = np.zeros(one.shape, bool)
    expected[5:25, 15:25] = True
    for found in (segment(flair=one, t1=two, model=model), segment(t1=two, flair=one, model=model)):
        np.testing.assert_array_equal(found.labels > 0, expected)


def test_named_inputs_are_resampled_onto_the_first():
    model, one, two = pair()
    coarse = Image(two[None, ::2, ::2].copy(), Grid.from_spacing((15, 20), 2.0, origin=(0.0, 0.0)))
    fine = Image.from_array(one, 1.0)
    found = segment(flair=fine, t1=coarse, model=model)
    assert found.grid == fine.grid
    assert found.labels[10, 20] and not found.labels[10, 10] and not found.labels[10, 30]
    assert segment(t1=coarse, flair=fine, model=model).grid == coarse.grid


def test_named_inputs_of_different_frames_are_refused():
    model, one, two = pair()
    a, b = (
        Image(v[None], replace(Grid.from_spacing(v.shape, 1.0), frame=f)) for v, f in ((one, "1.2.3"), (two, "1.2.4"))
    )
    with pytest.raises(GeometryError, match="frames of reference differ"):
        segment(flair=a, t1=b, model=model)


def test_an_array_that_looks_like_a_colour_image_is_asked_about():
    colour = np.zeros((40, 50, 3), np.uint8)
    with pytest.raises(InputError, match=r"channel_axis=-1"):
        segment(colour)
    assert segment(colour, channel_axis=-1).labels.shape == (40, 50)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({}, "nothing to segment"),
        ({"image": 0, "flair": 0}, "'flair' came beside an image"),
        ({"image": 0, "device": "cpu"}, r"options=medseg\.RunSpec\(device="),
        ({"image": "grid", "spacing": 2.0}, "has its own"),
        ({"image": "grid", "channel_axis": 0}, "has its own"),
    ],
)
def test_arguments_that_do_not_go_together(given, told):
    values = {"grid": Image.from_array(np.zeros((8, 8))), 0: np.zeros((8, 8))}
    with pytest.raises(InputError, match=told):
        segment(**{name: values.get(one, one) for name, one in given.items()})
