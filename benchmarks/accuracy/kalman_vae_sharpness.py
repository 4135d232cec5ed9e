"""How sharp the frames are that Kalman VAEs make: those of displacements, which warp a frame, and those of images.

    python benchmarks/accuracy/kalman_vae_sharpness.py [--sequences 8]

Both networks are shipped, and were trained on the same generated echocardiograms for equally many steps. Of held-out
sequences the mean squared gradient of the frames within the field of view is given, as a share of that of the real
frames, beside the mean squared difference to them. Speckle that decorrelates cannot be foretold from the reference: a
warped frame has a speckle of its own and pays for it in the difference.
"""

from __future__ import annotations

import argparse
from typing import Any

import torch
from torch import Tensor

from reg_bench.discovery import build_datamodule, build_method

NAMES = ("kalman-vae-small", "kalman-vae-image-small")


def energy(frames: Tensor, inside: Tensor) -> float:
    """Mean squared forward differences of `(T, 1, H, W)` where both pixels are `inside`."""
    total, count = 0.0, 0
    for axis in (2, 3):
        length = frames.shape[axis] - 1
        both = inside.narrow(axis, 0, length) & inside.narrow(axis, 1, length)
        squares = frames.diff(dim=axis).square()[both]
        total, count = total + float(squares.sum()), count + int(both.sum())
    return total / count


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sequences", type=int, default=8)
    args = parser.parse_args()
    data = build_datamodule({"class_path": "phantom-echo", "init_args": {"sequences": args.sequences}})
    built: dict[str, Any] = {name: build_method(name) for name in NAMES}
    methods = {name: method.stream.eval() for name, method in built.items()}
    rows: dict[str, list[tuple[float, float]]] = {name: [] for name in NAMES}
    for record in data.sequence_records("test"):
        sequence = data.sequence(record)
        assert sequence.mask is not None
        frames, inside = sequence.frames[0, 1:], sequence.mask[0, 1:]
        real = energy(frames, inside)
        for name, method in methods.items():
            made = method.reconstructed(sequence.frames)[0, 1:]
            rows[name].append((energy(made, inside) / real, float((made - frames)[inside].square().mean())))
    print(f"{'':26}{'gradient energy':>17}{'squared difference':>20}")
    for name, found in rows.items():
        share, difference = (sum(column) / len(column) for column in zip(*found, strict=True))
        print(f"{name:26}{share:>17.3f}{difference:>20.5f}")


if __name__ == "__main__":
    main()
