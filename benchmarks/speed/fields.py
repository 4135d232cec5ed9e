"""Field operations beside MONAI, SciPy, SimpleITK and NumPy: CPU seconds, extra memory, and whether values agree.

Every row is one process of its own, so that the peak memory is that of the operation; one thread. Run as
`python benchmarks/speed/fields.py`, or with `--only warp` for some rows.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch

from reg_bench import field, metrics

Task = tuple[Callable[[], Any], Callable[[], Any]]  # ours, peer
VOLUME, CUBE, SMALL_CUBE, PLANE = (192, 160, 224), (128, 128, 128), (64, 64, 64), (256, 256)


def smooth(spatial: tuple[int, ...], amplitude: float, nodes: int = 8) -> torch.Tensor:
    torch.manual_seed(0)
    return field.resize_image(torch.randn(1, len(spatial), *(nodes,) * len(spatial)), spatial) * amplitude


def warp_linear() -> Task:
    """MONAI Warp, float32 image, border."""
    from monai.networks.blocks import Warp

    image, u, peer = torch.rand(1, 1, *VOLUME), smooth(VOLUME, 3.0), Warp(padding_mode="border")
    return lambda: field.warp(image, u), lambda: peer(image, u)


def warp_simpleitk() -> Task:
    """SimpleITK WarpImageFilter, float32 field."""
    import SimpleITK as sitk  # noqa: N813

    image, u = torch.rand(1, 1, *VOLUME), smooth(VOLUME, 3.0)
    moving = sitk.GetImageFromArray(image[0, 0].numpy())
    vectors = sitk.GetImageFromArray(u[0].flip(0).movedim(0, -1).contiguous().numpy(), isVector=True)
    peer = sitk.WarpImageFilter()
    peer.SetOutputParameteresFromImage(moving)
    return lambda: field.warp(image, u), lambda: sitk.GetArrayFromImage(peer.Execute(moving, vectors))


def warp_labels() -> Task:
    """grid_sample nearest and cast, uint8 labels."""
    labels, u = torch.randint(0, 36, (1, 1, *VOLUME), dtype=torch.uint8), smooth(VOLUME, 3.0)

    def peer() -> torch.Tensor:
        half = (torch.tensor(VOLUME) - 1) / 2
        grid = ((field.identity_grid(VOLUME) + u[0]).movedim(0, -1) / half - 1).flip(-1)[None]
        options = {"mode": "nearest", "padding_mode": "border", "align_corners": True}
        return torch.nn.functional.grid_sample(labels.float(), grid, **options).to(torch.uint8)

    return lambda: field.warp(labels, u, mode="nearest"), peer


def warp_labels_scipy() -> Task:
    """scipy map_coordinates of order 0, zeros outside, uint8 labels at 64^3."""
    from scipy.ndimage import map_coordinates

    shape = (64, 64, 64)
    labels, u = torch.randint(0, 36, (1, 1, *shape), dtype=torch.uint8), smooth(shape, 3.0)
    identity = field.identity_grid(shape, dtype=torch.float64).numpy()
    return (
        lambda: field.warp(labels, u, mode="nearest", padding="zeros"),
        lambda: map_coordinates(labels[0, 0].numpy(), identity + u[0].numpy(), order=0, mode="constant"),
    )


def points(count: int) -> Task:
    """TRE through scipy map_coordinates of order 1."""
    from scipy.ndimage import map_coordinates

    u = smooth(VOLUME, 3.0)
    fixed = (torch.rand(count, 3) * (torch.tensor(VOLUME) - 1)).double().numpy()
    moving = fixed + 1

    def peer() -> np.ndarray:
        at = [map_coordinates(c.numpy(), fixed.T, order=1, mode="nearest") for c in u[0]]
        return np.linalg.norm(fixed + np.stack(at, axis=-1) - moving, axis=1)

    return lambda: metrics.tre(u, fixed, moving), peer


def with_gradient(
    call: Callable[[torch.Tensor], torch.Tensor], leaf: torch.Tensor, channels: int
) -> Callable[[], torch.Tensor]:
    """The gradient of a random weighting of the result, which has so many channels; `leaf` is what it is taken of."""
    leaf = leaf.clone().requires_grad_()
    weight = torch.randn(1, channels, *leaf.shape[2:], generator=torch.Generator().manual_seed(1))

    def run() -> torch.Tensor:
        return torch.autograd.grad(call(leaf), leaf, weight)[0]

    return run


def warp_gradient(spatial: tuple[int, ...]) -> Task:
    """MONAI Warp, forward and backward to the field."""
    from monai.networks.blocks import Warp

    image, u, peer = smooth(spatial, 1.0)[:, :1], smooth(spatial, 2.0), Warp(padding_mode="border")
    return with_gradient(lambda x: field.warp(image, x), u, 1), with_gradient(lambda x: peer(image, x), u, 1)


def exponential(spatial: tuple[int, ...]) -> Task:
    """MONAI DVF2DDF, 7 steps."""
    from monai.networks.blocks import DVF2DDF

    velocity, peer = smooth(spatial, 2.0), DVF2DDF(num_steps=7, padding_mode="border")
    return lambda: field.exponential(velocity), lambda: peer(velocity)


def exponential_gradient(spatial: tuple[int, ...]) -> Task:
    """MONAI DVF2DDF, 7 steps, forward and backward."""
    from monai.networks.blocks import DVF2DDF

    velocity, peer = smooth(spatial, 2.0), DVF2DDF(num_steps=7, padding_mode="border")
    ours, theirs = (with_gradient(call, velocity, len(spatial)) for call in (field.exponential, peer))
    return ours, theirs


def exponential_half() -> Task:
    """MONAI DVF2DDF, 7 steps, at full resolution; ours at half, with the estimate of its error."""
    from monai.networks.blocks import DVF2DDF

    velocity, peer = smooth(CUBE, 2.0), DVF2DDF(num_steps=7, padding_mode="border")
    return lambda: field.exponential_coarse(velocity)[0], lambda: peer(velocity)


def jacobian() -> Task:
    """numpy.gradient in float32 and the determinant."""
    u = smooth(VOLUME, 3.0)

    def peer() -> np.ndarray:
        (a, b, c), (d, e, f), (g, h, i) = (np.gradient(component) for component in u[0].numpy())
        a, e, i = a + 1, e + 1, i + 1
        return a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g)

    return lambda: field.jacobian_determinant(u), peer


def jacobian_simpleitk() -> Task:
    """SimpleITK DisplacementFieldJacobianDeterminant (interior voxels compared by their mean)."""
    import SimpleITK as sitk  # noqa: N813

    u = smooth(VOLUME, 3.0)
    vectors = sitk.GetImageFromArray(u[0].flip(0).movedim(0, -1).contiguous().numpy(), isVector=True)
    return (
        lambda: field.jacobian_determinant(u, interior=True),
        lambda: sitk.GetArrayFromImage(sitk.DisplacementFieldJacobianDeterminant(vectors))[1:-1, 1:-1, 1:-1],
    )


ROWS: dict[str, tuple[str, Callable[[], Task]]] = {
    "warp": ("T5 warp, linear, 192x160x224", warp_linear),
    "warp-itk": ("   the same beside SimpleITK", warp_simpleitk),
    "labels": ("T6 warp, uint8 labels", warp_labels),
    "labels-scipy": ("   the same beside SciPy, 64^3", warp_labels_scipy),
    "points-100": ("T7 TRE of 100 points", partial(points, 100)),
    "points-10000": ("T7 TRE of 10,000 points", partial(points, 10_000)),
    "warp-gradient-2d": ("   warp with gradient, 256^2", partial(warp_gradient, PLANE)),
    "warp-gradient-64": ("   warp with gradient, 64^3", partial(warp_gradient, SMALL_CUBE)),
    "warp-gradient": ("   warp with gradient, 128^3", partial(warp_gradient, CUBE)),
    "exponential-2d": ("    exp(v), 7 steps, 256^2", partial(exponential, PLANE)),
    "exponential-64": ("    exp(v), 7 steps, 64^3", partial(exponential, SMALL_CUBE)),
    "exponential": ("T10 exp(v), 7 steps, 128^3", partial(exponential, CUBE)),
    "exponential-half": ("T10 exp(v) at half resolution", exponential_half),
    "exponential-gradient-2d": ("    exp(v) with gradient, 256^2", partial(exponential_gradient, PLANE)),
    "exponential-gradient-64": ("    exp(v) with gradient, 64^3", partial(exponential_gradient, SMALL_CUBE)),
    "exponential-gradient": ("T10 exp(v) with gradient, 128^3", partial(exponential_gradient, CUBE)),
    "jacobian": ("T4 Jacobian determinant", jacobian),
    "jacobian-itk": ("   the same beside SimpleITK", jacobian_simpleitk),
}


# Rows whose results are displacements of a velocity of which the true flow is known.
FLOWS = {"exponential-2d": PLANE, "exponential-64": SMALL_CUBE, "exponential": CUBE, "exponential-half": CUBE}


def memory_mb(key: str) -> float:
    """`VmHWM` (highest so far) or `VmRSS` (now) of this process; 0 where there is no /proc."""
    try:
        with open("/proc/self/status") as status:
            return next(int(line.split()[1]) / 1024 for line in status if line.startswith(key))
    except OSError:
        return 0.0


def forget_high_water() -> None:
    with contextlib.suppress(OSError), open("/proc/self/clear_refs", "w") as file:
        file.write("5")


def measure(work: Callable[[], Any], repeats: int) -> tuple[float, float]:
    """Median CPU seconds, and MB at the highest above what was resident before."""
    forget_high_water()
    before = memory_mb("VmRSS")
    work()
    extra = memory_mb("VmHWM") - before
    seconds = []
    for _ in range(repeats):
        start = time.process_time()
        for _ in range(inner := 1 if seconds and seconds[-1] > 0.01 else 10):
            work()
        seconds.append((time.process_time() - start) / inner)
    return sorted(seconds)[len(seconds) // 2], extra


def as_array(value: Any) -> np.ndarray:
    array = value.numpy() if isinstance(value, torch.Tensor) else np.asarray(value)
    return array.squeeze()


def run_row(name: str, side: str, repeats: int) -> str:
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    ours, peer = ROWS[name][1]()
    if side == "values":
        a, b = as_array(ours()).astype(np.float64), as_array(peer()).astype(np.float64)
        difference = np.abs(a - b)
        if name in FLOWS:
            velocity = smooth(FLOWS[name], 2.0)
            errors = [float(field.flow_error(velocity, call())) for call in (ours, peer)]
            print("{}: largest error in voxels, ours {:.3f}, peer {:.3f}".format(name, *errors), file=sys.stderr)
        return f"{np.median(difference):.1e} {difference.max():.1e} {(difference > 1e-3).mean():.1e}"
    seconds, extra = measure(ours if side == "ours" else peer, repeats)
    return f"{seconds} {extra}"


def child(name: str, side: str, repeats: int) -> list[str]:
    command = [sys.executable, __file__, "--row", name, "--side", side, "--repeats", str(repeats)]
    result = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    if result.returncode != 0:
        raise SystemExit(result.stderr)
    if side == "values" and result.stderr:
        print(result.stderr, end="", file=sys.stderr)
    return result.stdout.split()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=list(ROWS), choices=list(ROWS), help="rows to run")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--row", help=argparse.SUPPRESS)
    parser.add_argument("--side", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.row:
        print(run_row(arguments.row, arguments.side, arguments.repeats))
        return
    print(f"{'':32} {'ours':>17} {'peer':>17} {'ratio':>6}  {'difference: median, max, share > 1e-3'}")
    for name in arguments.only:
        ours, peer = ([float(v) for v in child(name, side, arguments.repeats)] for side in ("ours", "peer"))
        values = ", ".join(child(name, "values", 1))
        numbers = " ".join(f"{s * 1000:8.2f} ms {m:4.0f} MB" for s, m in (ours, peer))
        about = getattr(ROWS[name][1], "func", ROWS[name][1]).__doc__
        print(f"{ROWS[name][0]:32} {numbers} {peer[0] / ours[0]:5.1f}x  {values}  [{about}]")


if __name__ == "__main__":
    main()
