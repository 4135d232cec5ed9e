"""The two baselines of Paper I with its settings, on ITK's general registration method.

Both pyramids are ITK's own (shrink 4, 2, 1; Gaussian of 2, 1, 0 pixels). Paper I registered MR intensities of
several hundreds; here 0..1 is scaled to 0..255, because thresholds and step lengths depend on the scale.
"""

from __future__ import annotations

from typing import ClassVar

import SimpleITK as sitk  # noqa: N813

from lightning_modules.simpleitk_bridge import ImagePair, displacement_of, register_each, thickened
from reg_bench.method import RegistrationModule
from reg_bench.types import DisplacementField, RegistrationPair

INTENSITY_SCALE = 255.0


class DemonsPaper1(RegistrationModule):
    """Demons metric with gradient descent on a dense field: the Demons baseline of Paper I (SimpleITK).

    A quarter of the voxels, drawn with a fixed seed, drives the field; after every step it is smoothed with a
    variance of one pixel. Learning rate 10, at most 200 iterations per level, convergence over 15 iterations,
    intensity threshold 10.
    """

    name: ClassVar[str] = "demons-paper1"

    def register(self, pair: RegistrationPair) -> DisplacementField:
        return register_each(pair, _demons)


class BSplinePaper1(RegistrationModule):
    """B-spline on a grid of 20 pixels by mean squares and L-BFGS-B: the B-spline baseline of Paper I (SimpleITK).

    One percent of the voxels, drawn with a fixed seed; at most 100 iterations per level, gradient tolerance
    1e-5.
    """

    name: ClassVar[str] = "bspline-20"

    def register(self, pair: RegistrationPair) -> DisplacementField:
        return register_each(pair, _bspline)


def _demons(images: ImagePair) -> sitk.Image:
    # The field of the transform keeps its own grid; thin images are continued for it too.
    start = sitk.DisplacementFieldTransform(
        displacement_of(sitk.Transform(images.dimension, sitk.sitkIdentity), thickened(images))
    )
    start.SetSmoothingGaussianOnUpdate(varianceForUpdateField=0.0, varianceForTotalField=1.0)
    method = _method()
    method.SetMetricAsDemons(10)
    method.SetOptimizerAsGradientDescent(learningRate=10, numberOfIterations=200, convergenceWindowSize=15)
    method.SetOptimizerScalesFromPhysicalShift()
    return _run(method, start, images, share=0.25)


def _bspline(images: ImagePair) -> sitk.Image:
    extents = [n * s for n, s in zip(images.fixed.GetSize(), images.fixed.GetSpacing(), strict=True)]
    mesh = [max(int(extent / 20 + 0.5), 1) for extent in extents]
    method = _method()
    method.SetMetricAsMeanSquares()
    method.SetOptimizerAsLBFGSB(gradientConvergenceTolerance=1e-5, numberOfIterations=100)
    return _run(method, sitk.BSplineTransformInitializer(images.fixed, mesh, 3), images, share=0.01)


def _method() -> sitk.ImageRegistrationMethod:
    method = sitk.ImageRegistrationMethod()
    method.SetNumberOfThreads(sitk.ProcessObject.GetGlobalDefaultNumberOfThreads())
    method.SetInterpolator(sitk.sitkLinear)
    return method


def _run(method: sitk.ImageRegistrationMethod, start: sitk.Transform, images: ImagePair, share: float) -> sitk.Image:
    """Optimises `start` in the pyramid with that share of the voxels, or 50 of them where that is more."""
    level = thickened(images)
    fixed, moving = (sitk.Multiply(image, INTENSITY_SCALE) for image in (level.fixed, level.moving))
    # Levels that leave an axis fewer than eight voxels are left out.
    smallest = min(*fixed.GetSize(), *moving.GetSize())
    levels = [(f, s) for f, s in ((4, 2.0), (2, 1.0), (1, 0.0)) if f == 1 or smallest // f >= 8]
    voxels = [fixed.GetNumberOfPixels() / f**images.dimension for f, _ in levels]
    method.SetMetricSamplingStrategy(method.RANDOM)
    method.SetMetricSamplingPercentagePerLevel([min(max(share, 50 / n), 1.0) for n in voxels], 1)
    method.SetShrinkFactorsPerLevel([f for f, _ in levels])
    method.SetSmoothingSigmasPerLevel([s for _, s in levels])
    method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOn()
    method.SetInitialTransform(start, True)
    method.Execute(fixed, moving)
    return displacement_of(start, images)
