"""How badly a warped image fits the fixed one: energies per case, lower is better, with gradients.

Each is a small class (`SSD()`, `LNCC(window=9)`, ...). `similarity(fixed, warped)` gives energies `(B,)`;
`similarity.bind(fixed)` does once what depends on the fixed image alone, and gives a callable whose
`value_and_gradient(warped)` needs no graph. All are maskable, work in 2-D and 3-D and serve as losses of networks.
"""

from reg_bench.similarity.balanced_ngf import BalancedNGF
from reg_bench.similarity.base import Analytic, BoundSimilarity, Differentiable, Similarity
from reg_bench.similarity.lncc import LNCC
from reg_bench.similarity.mind import MIND
from reg_bench.similarity.mutual_information import MutualInformation
from reg_bench.similarity.ncc import NCC
from reg_bench.similarity.ngf import NGF
from reg_bench.similarity.self_similarity import mind_descriptor
from reg_bench.similarity.soft_dice import SoftDice, one_hot
from reg_bench.similarity.ssd import SSD

__all__ = [
    "LNCC",
    "MIND",
    "NCC",
    "NGF",
    "SSD",
    "Analytic",
    "BalancedNGF",
    "BoundSimilarity",
    "Differentiable",
    "MutualInformation",
    "Similarity",
    "SoftDice",
    "mind_descriptor",
    "one_hot",
]
