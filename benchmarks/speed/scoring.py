"""Cost of scoring one case, side by side with MONAI, SimpleITK, surface-distance, SciPy and NumPy.

    python benchmarks/speed/scoring.py
    python benchmarks/speed/scoring.py --size 64 64 64 --labels 14 --repeats 5

Every measurement runs in a forked process of its own: CPU seconds (the least of the repeats), peak memory above
what was loaded before, and the largest difference between the values of the peer and ours.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import argparse
import contextlib
import multiprocessing
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy import ndimage
from scipy.spatial import cKDTree

from reg_bench import metrics
from reg_bench.metrics.jacobian import jacobian_statistics
from reg_bench.metrics.label_maps import warp_nearest
from reg_bench.types import DisplacementField, PointPairs, RegistrationPair

SPACING = (1.0, 1.2, 0.9)


@dataclass
class Measurement:
    """What a call cost and what it returned."""

    cpu_s: float
    peak_mb: float
    value: Any


def memory_kb(key: str) -> int:
    """A line of /proc/self/status, such as `VmRSS`."""
    with open("/proc/self/status", encoding="ascii") as status:
        return next(int(line.split()[1]) for line in status if line.startswith(key))


def _measured(call: Callable[[], Any], repeats: int, pipe: Any) -> None:
    torch.set_num_threads(1)
    before = memory_kb("VmRSS")
    with open("/proc/self/clear_refs", "w", encoding="ascii") as reset:
        reset.write("5")
    times = []
    for _ in range(repeats):
        start = time.process_time()
        value = call()
        times.append(time.process_time() - start)
    pipe.send((min(times), (memory_kb("VmHWM") - before) / 1024, value))


def measure(call: Callable[[], Any], repeats: int) -> Measurement:
    """Runs `call` in a forked process."""
    context = multiprocessing.get_context("fork")
    receiving, sending = context.Pipe(duplex=False)
    process = context.Process(target=_measured, args=(call, repeats, sending))
    process.start()
    sending.close()
    try:
        result = Measurement(*receiving.recv())
    except EOFError:
        raise SystemExit("a measurement ended without a result") from None
    process.join()
    return result


def smooth_field(size: tuple[int, ...], amplitude: float, rng: np.random.Generator) -> np.ndarray:
    """`(D, *S)` float32: random displacements on a coarse grid, blown up by cubic splines."""
    coarse = [max(4, n // 24) for n in size]
    zoom = [n / c for n, c in zip(size, coarse, strict=True)]
    field = np.stack([ndimage.zoom(rng.standard_normal(coarse), zoom, order=3) for _ in size])
    return (field * amplitude / np.abs(field).max()).astype(np.float32)


def parcellation(size: tuple[int, ...], labels: int, rng: np.random.Generator) -> np.ndarray:
    """uint8 map: an ellipsoid divided into cells with curved walls, background around it."""
    grid = np.stack(np.meshgrid(*(np.linspace(-1, 1, n) for n in size), indexing="ij"), -1)
    bent = grid + np.moveaxis(smooth_field(size, 0.15, rng), 0, -1)
    seeds = rng.uniform(-0.75, 0.75, (labels, len(size)))
    cells = cKDTree(seeds).query(bent.reshape(-1, len(size)))[1].reshape(size) + 1
    return np.where((grid**2).sum(-1) < 0.8, cells, 0).astype(np.uint8)


def make_case(
    size: tuple[int, ...], labels: int, points: int, amplitude: float, seed: int
) -> tuple[RegistrationPair, DisplacementField]:
    """A pair with everything that can be scored, and an estimate that is a little wrong."""
    rng = np.random.default_rng(seed)
    moving_labels = parcellation(size, labels, rng)
    truth = smooth_field(size, amplitude, rng)
    estimate = truth + smooth_field(size, amplitude / 3, rng)
    fixed_labels = warp_nearest(moving_labels, truth)
    batch = lambda a: torch.from_numpy(np.ascontiguousarray(a))[None]  # noqa: E731
    moving = moving_labels * np.float32(7) + rng.standard_normal(size, np.float32)
    fixed = fixed_labels * np.float32(7) + rng.standard_normal(size, np.float32)
    corners = rng.uniform(5, np.array(size) - 6, (points, len(size)))
    at = torch.from_numpy(corners)
    pair = RegistrationPair(
        ("speed",),
        batch(fixed[None]),
        batch(moving[None]),
        torch.tensor([SPACING[: len(size)]]),
        torch.tensor([SPACING[: len(size)]]),
        fixed_labels=batch(fixed_labels[None]),
        moving_labels=batch(moving_labels[None]),
        points={"landmarks": PointPairs((at,), (at + torch.from_numpy(rng.standard_normal(corners.shape)),))},
        mask=batch((fixed_labels > 0)[None]),
        true_displacement=batch(truth),
    )
    return pair, DisplacementField(batch(estimate))


class Table:
    """Rows of measurements; the first of a group is ours, to which the peers are compared."""

    def __init__(self, repeats: int) -> None:
        self.repeats = repeats
        print(f"{'':44}{'CPU s':>10}{'ratio':>8}{'peak MB':>10}  largest difference of the values")

    def group(self, title: str, ours: Callable[[], Any], peers: dict[str, Callable[[], Any]]) -> Measurement:
        """Measures ours and its peers and prints them."""
        mine = measure(ours, max(3, self.repeats))
        print(f"{title}\n  {'reg_bench':42}{mine.cpu_s:10.4f}{'':8}{mine.peak_mb:10.1f}")
        for name, call in peers.items():
            peer = measure(call, self.repeats)
            difference = "" if peer.value is None else f"{self._difference(mine.value, peer.value):.1e}"
            ratio = peer.cpu_s / max(mine.cpu_s, 1e-9)
            print(f"  {name:42}{peer.cpu_s:10.4f}{ratio:7.1f}x{peer.peak_mb:10.1f}  {difference}", flush=True)
        return mine

    @staticmethod
    def _difference(a: Any, b: Any) -> float:
        return float(np.abs(np.asarray(a, float) - np.asarray(b, float)).max())


def compare_dice(table: Table, fixed: np.ndarray, warped: np.ndarray, labels: int) -> None:
    """Dice of all labels."""
    from monai.metrics import compute_dice
    from monai.networks.utils import one_hot

    a, b = torch.from_numpy(fixed)[None, None], torch.from_numpy(warped)[None, None]

    def with_one_hot() -> list[float]:
        hot = [one_hot(x.long(), labels + 1) for x in (b, a)]
        return compute_dice(*hot, include_background=False)[0].tolist()

    hot = [one_hot(x.long(), labels + 1) for x in (b, a)]
    table.group(
        "Dice",
        lambda: list(metrics.dice(fixed, warped, labels=range(1, labels + 1)).values()),
        {
            "MONAI compute_dice, one-hot included": with_one_hot,
            "MONAI compute_dice, one-hot before": lambda: compute_dice(*hot, include_background=False)[0].tolist(),
            "SimpleITK LabelOverlapMeasures": lambda: sitk_dice(fixed, warped, labels),
        },
    )


def sitk_dice(fixed: np.ndarray, warped: np.ndarray, labels: int) -> list[float]:
    """Dice of SimpleITK."""
    import SimpleITK as sitk  # noqa: N813

    images = [sitk.GetImageFromArray(x) for x in (fixed, warped)]
    measures = sitk.LabelOverlapMeasuresImageFilter()
    measures.SetNumberOfThreads(1)
    measures.Execute(*images)
    return [measures.GetDiceCoefficient(k) for k in range(1, labels + 1)]


def compare_hd95(table: Table, fixed: np.ndarray, warped: np.ndarray, labels: int) -> None:
    """Both definitions of HD95."""
    from monai.metrics import compute_hausdorff_distance
    from monai.networks.utils import one_hot

    a, b = torch.from_numpy(fixed)[None, None], torch.from_numpy(warped)[None, None]
    spacing = SPACING[: fixed.ndim]
    options: dict[str, Any] = {"include_background": False, "percentile": 95, "spacing": spacing}

    def with_one_hot() -> list[float]:
        hot = [one_hot(x.long(), labels + 1) for x in (b, a)]
        return compute_hausdorff_distance(*hot, **options)[0].tolist()

    hot = [one_hot(x.long(), labels + 1) for x in (b, a)]
    table.group(
        f"HD95, surface voxels, spacing {spacing}",
        lambda: list(metrics.hd95(fixed, warped, spacing, range(1, labels + 1)).values()),
        {
            "MONAI, one-hot included": with_one_hot,
            "MONAI, one-hot before": lambda: compute_hausdorff_distance(*hot, **options)[0].tolist(),
        },
    )

    def surface_distance_package() -> list[float]:
        import surface_distance as sd

        result = []
        for k in range(1, labels + 1):
            found = sd.compute_surface_distances(fixed == k, warped == k, np.ones(fixed.ndim))
            result.append(sd.compute_robust_hausdorff(found, 95))
        return result

    table.group(
        "HD95, surface elements, voxels (Learn2Reg)",
        lambda: list(metrics.hd95(fixed, warped, None, range(1, labels + 1), "elements").values()),
        {"surface-distance": surface_distance_package},
    )


def compare_jacobian(table: Table, u: np.ndarray) -> None:
    """SDlogJ and the fraction of foldings, borders included."""

    def with_numpy() -> list[float]:
        rows = [np.gradient(component) for component in u]
        if len(u) == 3:
            (a, b, c), (d, e, f), (g, h, i) = rows
            a, e, i = a + 1, e + 1, i + 1
            det = a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g)
        else:
            (a, b), (c, d) = rows
            det = (a + 1) * (d + 1) - b * c
        return [float(np.log(np.maximum(det, 1e-9)).std(dtype=np.float64)), float((det <= 0).mean())]

    def with_sitk() -> None:
        import SimpleITK as sitk  # noqa: N813

        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
        image = sitk.GetImageFromArray(np.ascontiguousarray(np.moveaxis(u, 0, -1)[..., ::-1]), isVector=True)
        det = sitk.GetArrayFromImage(sitk.DisplacementFieldJacobianDeterminant(image))
        np.log(np.maximum(det, 1e-9)).std()
        (det <= 0).mean()

    tensor = torch.from_numpy(u)

    def ours() -> list[float]:
        found = jacobian_statistics(tensor)
        return [found.log.std, found.nonpositive_fraction]

    peers = {"np.gradient, float32": with_numpy, "SimpleITK (other borders)": with_sitk}
    table.group("SDlogJ and folding, borders included", ours, peers)
    table.group("  the same with Learn2Reg's SDlogJ", lambda: jacobian_statistics(tensor, shifted=True).log.std, {})


def compare_warp(table: Table, moving: np.ndarray, u: np.ndarray) -> None:
    """Warp of the label map."""
    grid = np.meshgrid(*map(np.arange, u.shape[1:]), indexing="ij")
    tensor, image = torch.from_numpy(u)[None], torch.from_numpy(moving)[None, None]

    def with_grid_sample() -> np.ndarray:
        size = torch.tensor(moving.shape, dtype=torch.float32)
        grid = torch.stack(torch.meshgrid(*map(torch.arange, moving.shape), indexing="ij"), -1)
        where = ((grid + tensor[0].movedim(0, -1)) * 2 / (size - 1) - 1).flip(-1)[None]
        found = torch.nn.functional.grid_sample(image.float(), where, mode="nearest", align_corners=True)
        return found.to(torch.uint8)[0, 0].numpy()

    mine = table.group(
        "label warp, nearest",
        lambda: warp_nearest(moving, u),
        {"SciPy map_coordinates, order 0": lambda: ndimage.map_coordinates(moving, grid + u, order=0)},
    )
    nearest = measure(with_grid_sample, table.repeats)
    share = float((nearest.value != mine.value).mean())
    print(
        f"  {'grid_sample nearest, grid and cast included':42}{nearest.cpu_s:10.4f}"
        f"{nearest.cpu_s / mine.cpu_s:7.1f}x{nearest.peak_mb:10.1f}  {share:.1e} of the voxels differ"
    )


def compare_tre(table: Table, u: np.ndarray, count: int) -> None:
    """Displacement at points, linear and cubic."""
    rng = np.random.default_rng(1)
    points = rng.uniform(0, np.array(u.shape[1:]) - 1, (count, len(u)))
    tensor = torch.from_numpy(u)[None]

    def with_scipy(order: int) -> np.ndarray:
        found = np.stack([ndimage.map_coordinates(c.astype(np.float64), points.T, order=order) for c in u], -1)
        return np.linalg.norm(found, axis=1)

    def with_sitk() -> list[float]:
        import SimpleITK as sitk  # noqa: N813

        # SimpleITK counts axes from the fastest one: both the array and the components turn round.
        reversed_u = np.ascontiguousarray(np.moveaxis(u, 0, -1)[..., ::-1])
        image = sitk.GetImageFromArray(reversed_u, isVector=True)
        transform = sitk.DisplacementFieldTransform(sitk.Cast(image, sitk.sitkVectorFloat64))
        start = time.process_time()
        found = [transform.TransformPoint(p[::-1].tolist()) for p in points]
        seconds = time.process_time() - start
        print(f"  {'SimpleITK, the loop over points alone':42}{seconds:10.4f}", flush=True)
        return np.linalg.norm(np.array(found)[:, ::-1] - points, axis=1).tolist()

    for order, interpolation in ((1, "linear"), (3, "cubic")):
        peers: dict[str, Callable[[], Any]] = {f"SciPy map_coordinates, order {order}": lambda o=order: with_scipy(o)}
        if order == 1:
            peers["SimpleITK, its transform included"] = with_sitk
        table.group(
            f"TRE of {count} points, {interpolation}",
            lambda how=interpolation: metrics.tre(tensor, points, points, interpolation=how),
            peers,
        )


def main() -> None:
    """Parses the options and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, nargs="+", default=[160, 192, 224], help="2 or 3 numbers")
    parser.add_argument("--labels", type=int, default=35, help="at most 255")
    parser.add_argument("--points", type=int, default=100)
    parser.add_argument("--amplitude", type=float, default=8.0, help="largest displacement, voxels")
    parser.add_argument("--repeats", type=int, default=1, help="of the peers; ours runs at least three times")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", choices=["dice", "hd95", "jacobian", "warp", "tre", "all"])
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    np.Inf = np.inf  # surface-distance 0.1 still asks for it
    size = tuple(options.size)
    pair, field = make_case(size, options.labels, options.points, options.amplitude, options.seed)
    u, moving, fixed = field.u[0].numpy(), pair.moving_labels[0, 0].numpy(), pair.fixed_labels[0, 0].numpy()
    warped = warp_nearest(moving, u)
    print(f"size {size}, {options.labels} labels, {options.points} points, 1 thread")
    table = Table(options.repeats)
    chosen = options.only or ["dice", "hd95", "jacobian", "warp", "tre", "all"]
    with contextlib.suppress(KeyboardInterrupt):
        if "dice" in chosen:
            compare_dice(table, fixed, warped, options.labels)
        if "hd95" in chosen:
            compare_hd95(table, fixed, warped, options.labels)
        if "jacobian" in chosen:
            compare_jacobian(table, u)
        if "warp" in chosen:
            compare_warp(table, moving, u)
        if "tre" in chosen:
            compare_tre(table, u, options.points)
        if "all" in chosen:
            backward = DisplacementField(-field.u)
            table.group("everything, both profiles", lambda: len(metrics.score(pair, field, backward=backward)), {})


if __name__ == "__main__":
    main()
