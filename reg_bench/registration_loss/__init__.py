"""Losses of networks that register: named terms, summed by `RegistrationLoss`."""

from reg_bench.registration_loss.base import LossTerm, RegistrationLoss

__all__ = ["LossTerm", "RegistrationLoss"]
