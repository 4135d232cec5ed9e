"""Undoes what a method leaves behind outside itself, so that a fresh copy of it is fresh indeed.

State may hide in the attributes of a class or in the globals of its module, where no copy of the method reaches.
"""

from __future__ import annotations

import copy
import sys
from typing import Any

import numpy as np
import torch

from reg_bench.method import RegistrationModule

_FOREIGN = ("reg_bench.", "torch", "pytorch_lightning", "lightning", "builtins", "abc", "typing")
_VALUES = (bool, int, float, complex, str, list, dict, set, tuple, type(None), torch.Tensor, np.ndarray)


class SharedState:
    """The plain values in the classes of a method and in their modules, as they were before the first call."""

    def __init__(self, method: RegistrationModule) -> None:
        classes = [c for m in method.modules() for c in type(m).__mro__ if not c.__module__.startswith(_FOREIGN)]
        modules = [sys.modules[c.__module__] for c in classes if c.__module__ in sys.modules]
        self._owners: list[Any] = list(dict.fromkeys([*classes, *modules]))
        self._before = [_values(owner) for owner in self._owners]
        self._known = [_names(owner) for owner in self._owners]

    def restore(self) -> None:
        """Puts every value back; values that appeared since are removed."""
        for owner, before, known in zip(self._owners, self._before, self._known, strict=True):
            for name in _names(owner) - known:
                delattr(owner, name)
            for name, value in before.items():
                setattr(owner, name, copy.deepcopy(value))


def _names(owner: Any) -> set[str]:
    return {n for n, v in vars(owner).items() if not n.startswith("__") and isinstance(v, _VALUES)}


def _values(owner: Any) -> dict[str, Any]:
    found = {}
    for name in _names(owner):
        try:
            found[name] = copy.deepcopy(vars(owner)[name])
        except Exception:
            # Holds something that cannot be copied, hence no plain value.
            continue
    return found
