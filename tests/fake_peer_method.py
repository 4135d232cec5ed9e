"""A method on the fake peer, named by class path in the suites of the tests."""

from __future__ import annotations

from pathlib import Path

import torch

from reg_bench.method import RegistrationModule
from reg_bench.peer import Peer
from reg_bench.types import DisplacementField, RegistrationPair

PEER = Peer("numpy", "numpy", Path(__file__).with_name("fake_peer.py"), "FAKE_PEER_PYTHON", "fake")


class OnFakePeer(RegistrationModule):
    """Calls `function` of the fake peer with the fixed image and `journal`."""

    def __init__(self, function: str, interpreter: str, journal: str = "") -> None:
        super().__init__()
        self.function, self.interpreter, self.journal = function, interpreter, journal

    def accepts(self, pair: RegistrationPair) -> str | None:
        return super().accepts(pair) or PEER.refusal(self.interpreter)

    def software(self) -> dict[str, str]:
        return PEER.software(self.interpreter)

    def register(self, pair: RegistrationPair) -> DisplacementField:
        arrays = {"fixed": pair.fixed[0, 0].numpy()}
        u = PEER.call(self.interpreter, self.function, arrays, {"journal": self.journal})
        return DisplacementField.for_pair(torch.from_numpy(u)[None].float(), pair)
