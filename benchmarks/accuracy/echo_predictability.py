"""How well linear dynamics can foresee the beat of the echo phantom: the floor under what forecasts of it can reach.

An autoregression of the contraction along both axes is learnt from hearts of the training split and asked for hearts
of the test split; its error is told as a share of that of the value held. What it sees has noise, as an estimate has.

    python benchmarks/accuracy/echo_predictability.py
"""

from __future__ import annotations

import argparse

import numpy as np
from numpy.typing import NDArray

from reg_bench.synthesis import random_generator
from reg_bench.synthesis_cases import case_seed
from reg_bench.synthesis_echo_motion import echo_rhythm

LENGTH, SECONDS = 50, 0.02
Array = NDArray[np.float64]


def contractions(split: str, count: int) -> Array:
    """`(count, LENGTH, 2)`: what happened since frame 0 along both axes, of hearts of random strength."""
    courses = []
    for i in range(count):
        generator = random_generator("echo", case_seed(split, 0, i))
        rhythm = echo_rhythm(LENGTH, SECONDS, 1.0, generator)
        course = generator.uniform(0.5, 1.0) * np.stack([rhythm.radial, rhythm.longitudinal], axis=1)
        courses.append(course - course[:1])
    return np.array(courses)


def examples(true: Array, seen: Array, order: int, ahead: int) -> tuple[Array, Array, Array]:
    """What was seen of `order` frames (and 1), what is true `ahead` frames later, what was seen last."""
    times = range(order - 1, LENGTH - ahead)
    past = [seen[:, t - order + 1 : t + 1].reshape(len(seen), -1) for t in times]
    known = np.concatenate(past)
    later, now = (np.concatenate([a[:, t + k] for t in times]) for a, k in ((true, ahead), (seen, 0)))
    return np.column_stack([known, np.ones(len(known))]), later, now


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--noise", type=float, default=0.03, help="of what is seen, of a full contraction")
    parser.add_argument("--train", type=int, default=600, help="hearts to learn from")
    parser.add_argument("--test", type=int, default=200, help="hearts to foresee")
    args = parser.parse_args()
    generator = np.random.default_rng(0)
    pairs = []
    for split, count in (("train", args.train), ("test", args.test)):
        true = contractions(split, count)
        pairs.append((true, true + args.noise * generator.standard_normal(true.shape)))
    orders = (2, 4, 8, 16, 24)
    print("ahead [ms]  " + "".join(f"order {order:<3d}" for order in orders))
    for ahead in (5, 10, 15, 20):
        shares = []
        for order in orders:
            known, later, _ = examples(*pairs[0], order, ahead)
            weights = np.linalg.solve(known.T @ known + 1e-3 * np.eye(known.shape[1]), known.T @ later)
            known, later, now = examples(*pairs[1], order, ahead)
            shares.append(np.abs(known @ weights - later).mean() / np.abs(now - later).mean())
        print(f"{1e3 * ahead * SECONDS:10.0f}  " + "".join(f"{share:<9.2f}" for share in shares))


if __name__ == "__main__":
    main()
