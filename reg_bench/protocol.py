"""How a case is run and timed: the part of a suite that a result depends on and that is not a method's own."""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass
from typing import Any, Literal

from reg_bench.errors import ConfigError


@dataclass(frozen=True)
class Protocol:
    """Conditions of a run; stored in the manifest.

    Attributes:
        threads: of torch and SimpleITK, per process.
        time_limit_s: wall seconds that one call of `register` may take.
        seed: of the run; a case's own seed comes from it and the case, see `case_seed`.
        warm_up: the uncounted first call per task and method: on a central `crop` of the first case, on the
            whole `case`, not at all (`none`), or `auto`: a crop on CPU, where only imports and thread pools
            need warming, the case on GPU, where kernels are chosen by shape.
        timing: `exclusive` takes turns between the processes of a run, `shared` does not (such rows stay out of
            timing tables). `auto` is exclusive on CPU, where processes share cores.
        panels: whether to draw the picture of each case.
        official: year of the Learn2Reg rules behind the profile `learn2reg`. Under those of `2020` the tasks of that
            year are scored as the challenge got them: float16, at half resolution but for the hippocampus.
    """

    threads: int = 1
    time_limit_s: float = 600.0
    seed: int = 0
    warm_up: Literal["auto", "crop", "case", "none"] = "auto"
    timing: Literal["auto", "exclusive", "shared"] = "auto"
    panels: bool = True
    official: Literal["2022", "2020"] = "2022"

    def __post_init__(self) -> None:
        if self.threads < 1:
            raise ConfigError(f"protocol.threads must be at least 1, got {self.threads}")
        if not self.time_limit_s > 0:
            raise ConfigError(f"protocol.time_limit_s must be positive, got {self.time_limit_s}")


def case_seed(seed: int, case: str) -> int:
    """A seed below 2**31 from the run's seed and the case alone: never from the rank or the order of work."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{case}".encode()).digest()[:4], "big") >> 1


def seed_everything(seed: int) -> None:
    """Seeds Python, NumPy and torch (all devices)."""
    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def set_threads(threads: int) -> None:
    """Fixes the thread counts of torch and SimpleITK in this process."""
    import SimpleITK as sitk  # noqa: N813
    import torch

    torch.set_num_threads(threads)
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(threads)


def versions() -> dict[str, str]:
    """Versions of what a result may depend on."""
    import platform
    from importlib.metadata import PackageNotFoundError, version

    found: dict[str, Any] = {"python": platform.python_version()}
    for package in ("regbench-suite", "torch", "monai", "pytorch-lightning", "SimpleITK", "numpy", "scipy"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
