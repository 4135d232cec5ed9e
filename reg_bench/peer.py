"""A registration package of others: whether it is there, in which Python, in which version, and how to call it.

A peer is used in this process where it can be imported, unless the user names another interpreter: by the argument
`interpreter` of the method, or for all its methods by an environment variable. See docs/peers.md.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray

from reg_bench.errors import MissingExtraError
from reg_bench.peer_process import PeerError, PeerProcess, versions_in
from reg_bench.peer_server import load, versions


class MissingPeerError(MissingExtraError):
    """A peer is not there; the text says how to install it or how to name the Python that has it."""

    def __init__(self, text: str) -> None:
        ImportError.__init__(self, text)


@dataclass(frozen=True)
class Peer:
    """A package that registers images.

    Attributes:
        module: what it is imported as.
        distribution: what pip calls it.
        script: file of plain functions that import NumPy and the peer only; runs here and there alike.
        variable: environment variable that names the Python to use.
        extra: of this distribution that installs the peer; empty where its pins exclude ours.
        uses: other distributions there that a result depends on.
    """

    module: str
    distribution: str
    script: Path
    variable: str
    extra: str = ""
    uses: tuple[str, ...] = ("numpy",)

    def interpreter(self, given: str | None) -> str | None:
        """The Python named by the method's argument `given`, else by the environment; `None`: this process."""
        named = given or os.environ.get(self.variable)
        return os.path.expanduser(named) if named else None

    def refusal(self, given: str | None) -> str | None:
        """Why the peer cannot be called, with the command that helps, or `None`."""
        interpreter = self.interpreter(given)
        try:
            if self._versions(interpreter) is not None:
                return None
        except PeerError as error:
            return f"needs {self.distribution} ({interpreter} -m pip install {self.distribution}): {error}"
        if interpreter is not None:
            return f"needs {self.distribution}: {interpreter} -m pip install {self.distribution}"
        elsewhere = f"name a Python that has it: {self.variable}=/path/to/python"
        if self.extra:
            return f"needs {self.distribution}: pip install 'regbench-suite[{self.extra}]', or {elsewhere}"
        return (
            f"needs {self.distribution}: pip install {self.distribution} in an environment of its own and {elsewhere}"
        )

    def software(self, given: str | None) -> dict[str, str]:
        """Versions of Python, of the peer and of what it uses, where it runs; empty where it is missing."""
        try:
            return dict(self._versions(self.interpreter(given)) or {})
        except PeerError:
            return {}

    def _versions(self, interpreter: str | None) -> Mapping[str, str] | None:
        names = (self.distribution, *self.uses)
        return versions(self.module, names) if interpreter is None else _versions_in(interpreter, self.module, names)

    def call(
        self, given: str | None, function: str, arrays: Mapping[str, NDArray[Any]], settings: Mapping[str, Any]
    ) -> NDArray[Any]:
        """What `function(**arrays, **settings, threads=...)` of the script returns, an array.

        Args:
            given: the method's argument `interpreter`.
            function: name in the script.
            arrays: arguments that are arrays.
            settings: the others, as plain values; `threads` is added: as many as torch may use here.

        Raises:
            MissingPeerError: the peer is not there.
            PeerError: it raised in another process, or that process died; in this process its own exception.
        """
        if reason := self.refusal(given):
            raise MissingPeerError(reason)
        settings = {**settings, "threads": torch.get_num_threads()}
        interpreter = self.interpreter(given)
        if interpreter is None:
            found: NDArray[Any] = getattr(_functions(self.script), function)(**arrays, **settings)
            return found
        return _process(interpreter, self.script, settings["threads"]).call(function, arrays, settings)


@functools.lru_cache
def _functions(script: Path) -> Any:
    return load(str(script))


@functools.lru_cache
def _process(interpreter: str, script: Path, threads: int) -> PeerProcess:
    """One per peer and number of threads, for all methods that call it: starting one takes seconds."""
    return PeerProcess(Path(interpreter), script, _environment(threads))


def _environment(threads: int) -> dict[str, str]:
    # Libraries read these when they are loaded.
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS")
    return {name: str(threads) for name in names} | {"OMP_WAIT_POLICY": "PASSIVE", "PYTHONUNBUFFERED": "1"}


@functools.lru_cache
def _versions_in(interpreter: str, module: str, distributions: tuple[str, ...]) -> dict[str, str] | None:
    return versions_in(Path(interpreter), module, distributions)
