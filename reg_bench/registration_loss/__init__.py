"""Losses of networks that register: named terms, summed by `RegistrationLoss`.

Equation 1 of Paper II is `LabelDice(5)`, `LevelSimilarity(LNCC(9), 5, 1/2)`, `LevelAffine(1, 2)` and
`LevelRegularity(Diffusion(), 2 / D^2, 1/2)`. Where a pair has no labels the first is left out, and
training is unsupervised.
"""

from reg_bench.registration_loss.base import LossTerm, RegistrationLoss
from reg_bench.registration_loss.images import ImageSimilarity
from reg_bench.registration_loss.labels import LabelDice, PointDistance
from reg_bench.registration_loss.levels import LevelAffine, LevelRegularity, LevelSimilarity
from reg_bench.registration_loss.supervised import EndPointError, LevelEndPointError
from reg_bench.registration_loss.velocity_prior import VelocityPrior

__all__ = [
    "EndPointError",
    "ImageSimilarity",
    "LabelDice",
    "LevelAffine",
    "LevelEndPointError",
    "LevelRegularity",
    "LevelSimilarity",
    "LossTerm",
    "PointDistance",
    "RegistrationLoss",
    "VelocityPrior",
]
