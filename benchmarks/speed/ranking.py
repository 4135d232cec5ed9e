"""Time of the rankings: 10 methods on 1,000 cases with 1,000 bootstrap draws.

    OMP_NUM_THREADS=1 python benchmarks/speed/ranking.py [--methods 10] [--cases 1000] [--draws 1000] [--labels 13]

`honest` is `reg_bench.ranking.rank` by three metrics with gate, tests and intervals; `challenge` is
`reg_bench.ranking_learn2reg.rank_task` with Dice and HD95 over cases times labels. Beside them the bootstrap as one
would write it, every draw ranked anew with `scipy.stats.rankdata`; its ranks are compared.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from scipy.stats import rankdata

from reg_bench.ranking import _SEED, Column, rank
from reg_bench.ranking_learn2reg import Instances, hardest_instances, rank_task


def naive(values: np.ndarray, draws: int) -> np.ndarray:
    """Ranks `(draws, M)` of resampled means, one draw after another."""
    count = values.shape[1]
    generator = np.random.default_rng(_SEED)
    times = generator.multinomial(count, np.full(count, 1 / count), size=draws)
    return np.stack([rankdata(-np.round(np.repeat(values, t, axis=1).mean(1), 12), "min") for t in times])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    for name, default in (("methods", 10), ("cases", 1000), ("draws", 1000), ("labels", 13)):
        parser.add_argument(f"--{name}", type=int, default=default)
    args = parser.parse_args()
    generator = np.random.default_rng(0)
    quality = np.linspace(0, 0.05, args.methods)[:, None]
    case = generator.random(args.cases)
    dice = np.clip(0.6 + quality + 0.2 * case + 0.05 * generator.standard_normal((args.methods, args.cases)), 0, 1)
    tre = 5 - 20 * quality + case + generator.standard_normal((args.methods, args.cases))
    folds = np.abs(generator.standard_normal((args.methods, args.cases)))
    names, subjects = [f"m{i}" for i in range(args.methods)], np.arange(args.cases)
    columns = {"dice": Column(dice, "higher"), "tre": Column(tre, "lower", 2), "folds": Column(folds, "lower")}

    begin = time.perf_counter()
    rank(names, columns, subjects, floor=0, draws=args.draws)
    print(f"honest, 3 metrics: {time.perf_counter() - begin:.2f} s")

    begin = time.perf_counter()
    found = rank(names, {"dice": columns["dice"]}, subjects, draws=args.draws)
    print(f"honest, 1 metric:  {time.perf_counter() - begin:.2f} s")
    begin = time.perf_counter()
    ranks = naive(dice, args.draws)
    print(f"bootstrap alone, one draw after another: {time.perf_counter() - begin:.2f} s")
    assert np.allclose((ranks == 1).mean(axis=0), found.first), "the draws differ"
    assert (np.quantile(ranks, 0.025, axis=0, method="inverted_cdf") == found.low).all()

    labels = np.clip(dice[:, :, None] + 0.1 * generator.standard_normal((*dice.shape, args.labels)), 0, 1)
    labels = labels.reshape(args.methods, -1)
    begin = time.perf_counter()
    hard = hardest_instances(labels[0], "dice")
    rank_task(
        {
            "DSC": Instances("dice", labels),
            "DSC30": Instances("dice", labels[:, hard]),
            "HD95": Instances("hd95", 10 * (1 - labels)),
            "SDlogJ": Instances("sdlogj", folds),
            "time": Instances("time", np.abs(tre)),
        }
    )
    print(f"challenge, 5 metrics, {args.labels} labels: {time.perf_counter() - begin:.2f} s")


if __name__ == "__main__":
    main()
