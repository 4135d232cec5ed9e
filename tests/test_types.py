"""The central types: what they refuse, how they split, batch and move."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from reg_bench.types import DisplacementField, ImageSequence, PointPairs, RegistrationPair, collate_pairs


def make_pair(case: str = "a", shape: tuple[int, ...] = (5, 6, 7), **changes: object) -> RegistrationPair:
    dims = len(shape)
    values: dict[str, object] = {
        "case_ids": (case,),
        "fixed": torch.rand(1, 1, *shape),
        "moving": torch.rand(1, 1, *shape),
        "fixed_spacing_mm": torch.ones(1, dims),
        "moving_spacing_mm": torch.full((1, dims), 2.0),
        "fixed_labels": torch.ones(1, 1, *shape, dtype=torch.long),
        "moving_labels": torch.zeros(1, 1, *shape, dtype=torch.long),
        "points": {"landmarks": PointPairs((torch.zeros(3, dims),), (torch.ones(3, dims),))},
        "mask": torch.ones(1, 1, *shape, dtype=torch.bool),
        "true_displacement": torch.zeros(1, dims, *shape),
    }
    return RegistrationPair(**(values | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fixed": torch.rand(5, 6, 7)}, r"fixed must be \(B, C, \*spatial\)"),
        ({"moving": torch.rand(1, 1, 5, 6)}, "must agree in batch size and dimension"),
        ({"case_ids": ("a", "b")}, "2 case ids for a batch of 1"),
        ({"fixed_labels": torch.ones(1, 1, 5, 6, 8, dtype=torch.long)}, "fixed_labels has shape"),
        ({"fixed_labels": torch.ones(1, 1, 5, 6, 7)}, "must be an integer map"),
        ({"fixed_spacing_mm": torch.ones(1, 2)}, "fixed_spacing_mm has shape"),
        ({"fixed_affine": torch.eye(3)[None]}, "fixed_affine has shape"),
        ({"true_displacement": torch.zeros(1, 5, 6, 7, 3)}, "true_displacement has shape"),
        ({"points": {"k": PointPairs((torch.zeros(3, 2),), (torch.zeros(3, 2),))}}, "points 'k' must hold"),
        ({"frames": (1, 2)}, "2 frame numbers"),
    ],
)
def test_a_pair_names_what_does_not_fit(changes: dict[str, object], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        make_pair(**changes)


def test_a_tensor_subclass_is_refused() -> None:
    class Meta(torch.Tensor):
        pass

    with pytest.raises(TypeError, match=r"plain torch\.Tensor"):
        make_pair(fixed=torch.rand(1, 1, 5, 6, 7).as_subclass(Meta))


def test_unequal_points_are_refused() -> None:
    with pytest.raises(ValueError, match="expected two equal shapes"):
        PointPairs((torch.zeros(3, 2),), (torch.zeros(4, 2),))


def test_batching_and_splitting_are_inverse() -> None:
    a, b = make_pair("a"), make_pair("b")
    batch = collate_pairs([a, b])
    assert batch.case_ids == ("a", "b")
    for original, single in zip([a, b], batch.split(), strict=True):
        for f in dataclasses.fields(original):
            one, other = getattr(original, f.name), getattr(single, f.name)
            if isinstance(one, torch.Tensor):
                assert torch.equal(one, other), f.name
        assert torch.equal(single.points["landmarks"].moving[0], original.points["landmarks"].moving[0])  # type: ignore[index]


def test_batching_refuses_unequal_shapes_and_half_present_fields() -> None:
    with pytest.raises(ValueError, match="use batch_size=1"):
        collate_pairs([make_pair("a"), make_pair("b", (5, 6, 8))])
    with pytest.raises(ValueError, match="only some of them have mask"):
        collate_pairs([make_pair("a"), make_pair("b", mask=None)])


def test_swapping_twice_restores_images_labels_and_points() -> None:
    pair = make_pair()
    once = pair.swapped()
    assert torch.equal(once.fixed, pair.moving)
    assert torch.equal(once.fixed_labels, pair.moving_labels)  # type: ignore[arg-type]
    assert once.mask is None
    assert once.true_displacement is None
    twice = once.swapped()
    assert torch.equal(twice.fixed, pair.fixed)
    assert torch.equal(twice.points["landmarks"].fixed[0], pair.points["landmarks"].fixed[0])  # type: ignore[index]


def test_to_moves_every_tensor() -> None:
    moved = make_pair().to("meta")
    assert moved.fixed.device.type == "meta"
    assert moved.mask is not None
    assert moved.mask.device.type == "meta"
    assert moved.points is not None
    assert moved.points["landmarks"].fixed[0].device.type == "meta"
    assert moved.case_ids == ("a",)


def make_sequence(**changes: object) -> ImageSequence:
    values: dict[str, object] = {
        "case_ids": ("s",),
        "frames": torch.rand(1, 4, 1, 8, 9),
        "seconds_per_frame": 0.2,
        "reference": 1,
        "spacing_mm": torch.ones(1, 2),
        "labels": torch.arange(3).reshape(1, 3, 1, 1, 1).expand(1, 3, 1, 8, 9).clone(),
        "labelled_frames": (0, 1, 3),
        "points": {"landmarks": (torch.arange(4.0).reshape(4, 1, 1).expand(4, 5, 2).clone(),)},
    }
    return ImageSequence(**(values | changes))  # type: ignore[arg-type]


def test_a_sequence_views_itself_as_pairs_onto_each_frame() -> None:
    sequence = make_sequence()
    pairs = list(sequence.pairs())
    assert [p.case_ids[0] for p in pairs] == ["s/000", "s/002", "s/003"]
    first = pairs[0]
    assert torch.equal(first.fixed, sequence.frames[:, 0])
    assert torch.equal(first.moving, sequence.frames[:, 1])
    assert first.fixed_labels is not None
    assert int(first.fixed_labels.max()) == 0
    assert int(first.moving_labels.max()) == 1  # type: ignore[union-attr]
    assert first.points is not None
    assert float(first.points["landmarks"].fixed[0].max()) == 0
    assert float(first.points["landmarks"].moving[0].max()) == 1
    assert pairs[1].fixed_labels is None, "frame 2 carries no labels"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"reference": 4}, "reference frame 4 is outside"),
        ({"seconds_per_frame": 0.0}, "seconds_per_frame must be positive"),
        ({"labelled_frames": None}, "must be given together"),
        ({"labelled_frames": (0, 1, 4)}, "outside 0..3"),
        ({"points": {"k": (torch.zeros(3, 5, 2),)}}, "points 'k' must hold"),
    ],
)
def test_a_sequence_names_what_does_not_fit(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_sequence(**changes)


@pytest.mark.parametrize("shape", [(1, 3, 5, 6), (1, 5, 6, 7, 3), (3, 5, 6, 7), (1, 2, 5, 6, 7)])
def test_a_field_of_wrong_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="displacement field must be floating point"):
        DisplacementField(torch.zeros(shape))


def test_an_integer_field_is_refused() -> None:
    with pytest.raises(ValueError, match="floating point"):
        DisplacementField(torch.zeros(1, 2, 5, 6, dtype=torch.long))


def test_in_mm_multiplies_each_axis_by_its_own_spacing() -> None:
    field = DisplacementField(torch.ones(1, 3, 4, 5, 6), torch.tensor([[1.0, 2.0, 3.5]]))
    assert field.in_mm()[0, :, 0, 0, 0].tolist() == [1.0, 2.0, 3.5]
    with pytest.raises(ValueError, match="no spacing_mm"):
        DisplacementField(torch.ones(1, 3, 4, 5, 6)).in_mm()


def test_composition_and_inverse_of_a_shift() -> None:
    shift = torch.zeros(1, 2, 12, 10)
    shift[:, 0] = 1.5
    field = DisplacementField(shift)
    twice = field.compose(field)
    assert torch.allclose(twice.u[:, 0, 2:8], torch.full((1, 6, 10), 3.0))
    back = field.compose(field.inverse())
    assert float(back.u[:, :, 3:-3].abs().max()) < 1e-2
    assert float(field.jacobian_determinant().sub(1).abs().max()) < 1e-6
    assert torch.allclose(field.at(torch.tensor([[3.2, 4.7]])), torch.tensor([[1.5, 0.0]]))
