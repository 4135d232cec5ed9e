"""Does another tool read a method's field as we do? SimpleITK applies the exported files to the moving image."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813

from reg_bench.conformance_cases import Case
from reg_bench.displacement_io import write_displacement
from reg_bench.io import Grid, write_image
from reg_bench.types import DisplacementField


def exported_difference(case: Case, field: DisplacementField) -> tuple[float, float]:
    """Writes `field` and the images of `case`, lets SimpleITK warp, and compares with our own warp.

    Returns:
        The largest intensity difference over the voxels whose samples lie inside the moving image (images span
        about 0..1), and the share of voxels that this is.
    """
    grid = Grid.from_affine(case.geometry.affine, case.geometry.shape)
    with tempfile.TemporaryDirectory() as folder:
        names = {k: Path(folder) / f"{k}.nii.gz" for k in ("fixed", "moving", "displacement")}
        write_image(names["fixed"], case.pair.fixed, grid)
        write_image(names["moving"], case.pair.moving, grid)
        write_displacement(names["displacement"], field.u, grid)
        theirs = _resample(names["fixed"], names["moving"], names["displacement"])
    ours = field.warp(case.pair.moving)[0, 0].numpy()
    position = case.geometry.indices() + field.u[0].flatten(1).T.double().numpy()
    inside = ((position >= 0.01) & (position <= np.asarray(case.geometry.shape) - 1.01)).all(1)
    difference = np.abs(ours - theirs).reshape(-1)[inside]
    return (float(difference.max()) if inside.any() else 0.0), float(inside.mean())


def _resample(fixed: Path, moving: Path, displacement: Path) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """The moving image through the field, as any user of SimpleITK would do it; array in index order."""
    reference = sitk.ReadImage(str(fixed), sitk.sitkFloat32)
    transform = sitk.DisplacementFieldTransform(sitk.ReadImage(str(displacement), sitk.sitkVectorFloat64))
    warped = sitk.Resample(
        sitk.ReadImage(str(moving), sitk.sitkFloat32), reference, transform, sitk.sitkLinear, 0.0, sitk.sitkFloat32
    )
    return sitk.GetArrayFromImage(warped).T
