"""Any method after any other: global alignment first, then what it leaves."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

from reg_bench.method import RegistrationModule
from reg_bench.types import DisplacementField, RegistrationPair


class AffineThen(RegistrationModule):
    """Runs `first`, warps the moving image by its field, runs `then` on the result and composes both fields.

    The composed field acts on the original moving image, `w(x) = v(x) + u(x + v(x))`, so that images and labels
    are interpolated once in the end. Any two names joined by `+` stand for it, e.g. `affine+demons-torch`; so do the
    names of some YAML files.

    Args:
        first: any registration method, usually `lightning_modules.simpleitk_affine.Affine`.
        then: any registration method.
    """

    joins: ClassVar[tuple[str, ...]] = ("first", "then")

    def __init__(self, first: RegistrationModule, then: RegistrationModule) -> None:
        super().__init__()
        self.first = first
        self.then = then

    def accepts(self, pair: RegistrationPair) -> str | None:
        """Why one of the two cannot take `pair`, or `None`."""
        return self.first.accepts(pair) or self.then.accepts(pair)

    def software(self) -> dict[str, str]:
        """Versions of what does the work of either."""
        return {**self.first.software(), **self.then.software()}

    def register(self, pair: RegistrationPair) -> DisplacementField:
        """Both methods in turn; what belongs to the moving image alone is warped or dropped in between.

        `then` sees the warped moving image on the fixed grid. Labels and points of the moving image and the
        true displacement no longer fit there and are withheld.
        """
        before: DisplacementField = self.first(pair)
        between = replace(
            pair,
            moving=before.warp(pair.moving),
            moving_spacing_mm=pair.fixed_spacing_mm,
            moving_affine=pair.fixed_affine,
            moving_labels=None,
            points=None,
            true_displacement=None,
        )
        after: DisplacementField = self.then(between)
        return before.compose(after)
