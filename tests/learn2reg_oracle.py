"""The formulas of the official evaluation (LEARN2REG.md sections 4 to 6) from SciPy, nibabel and surface-distance.

For tests: shares no code with the package.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import surface_distance
from scipy.ndimage import correlate, map_coordinates, zoom


def voxels(path: Path) -> np.ndarray:
    return np.asarray(nib.load(str(path)).dataobj)


def jacobian(u: np.ndarray) -> np.ndarray:
    """Determinants of `u (3, X, Y, Z)`, cropped by two voxels."""
    slopes = np.zeros((3, 3, *u.shape[1:]))
    for component in range(3):
        for axis in range(3):
            shape = [1, 1, 1]
            shape[axis] = 3
            kernel = np.array([-0.5, 0.0, 0.5]).reshape(shape)
            slopes[component, axis] = correlate(u[component].astype(np.float64), kernel, mode="constant")
    slopes += np.eye(3)[:, :, None, None, None]
    return np.linalg.det(slopes.transpose(2, 3, 4, 0, 1))[2:-2, 2:-2, 2:-2]


def sdlogj(u: np.ndarray, mask: np.ndarray | None) -> float:
    logs = np.log((jacobian(u) + 3).clip(1e-9, 1e9))
    if mask is None:
        return float(logs.std())
    return float(np.ma.MaskedArray(logs, 1 - mask[2:-2, 2:-2, 2:-2].astype(float)).std())


def warped(labels: np.ndarray, u: np.ndarray) -> np.ndarray:
    index = np.stack(np.meshgrid(*(np.arange(n) for n in labels.shape), indexing="ij"))
    return map_coordinates(labels, index + u, order=0)


def per_label(fixed: np.ndarray, moving: np.ndarray, u: np.ndarray, labels: list[int]) -> dict[str, list[float]]:
    moved = warped(moving, u)
    found: dict[str, list[float]] = {"dice": [], "hd95": []}
    for label in labels:
        a, b = fixed == label, moved == label
        if not a.any() or not (moving == label).any():
            found["dice"].append(np.nan)
            found["hd95"].append(np.nan)
            continue
        found["dice"].append(2 * (a & b).sum() / (a.sum() + b.sum()))
        if not b.any():
            # What surface-distance returns, in words that NumPy 2 has no longer.
            found["hd95"].append(np.inf)
            continue
        distances = surface_distance.compute_surface_distances(a, b, np.ones(3))
        found["hd95"].append(surface_distance.compute_robust_hausdorff(distances, 95.0))
    return found


def tre(fixed: np.ndarray, moving: np.ndarray, u: np.ndarray, spacing: Any) -> np.ndarray:
    at_points = np.stack([map_coordinates(c, fixed.T) for c in u]).T
    return np.linalg.norm((fixed + at_points - moving) * np.asarray(spacing)[:3], axis=1)


def evaluate_2022(folder: Path, data: Path, config: dict[str, Any]) -> dict[str, Any]:
    """The results of the script at the head of the organisers' repository."""
    cases: dict[str, Any] = {}
    for pair in config["eval_pairs"]:
        ids = [pair[role][-16:-7] for role in ("fixed", "moving")]
        names = [f"disp_{ids[0]}_{ids[1]}"] + [f"disp_{ids[0][:4]}_{ids[1][:4]}"] * (
            ids[0][5:] == "0000" and ids[1][5:] == "0001"
        )
        path = next(p for n in names for e in (".npz", ".nii.gz") if (p := folder / (n + e)).is_file())
        stored = np.load(path)["arr_0"].astype(np.float32) if path.suffix == ".npz" else voxels(path)
        assert list(stored.shape) == config["expected_shape"]
        u = stored.transpose(3, 0, 1, 2)
        beside = {role: pair[role].replace("images", "{}") for role in ("fixed", "moving")}
        case: dict[str, Any] = {}
        for method in config["evaluation_methods"]:
            if method["metric"] == "sdlogj":
                path = data / beside["fixed"].format("masks")
                mask = voxels(path) if config["masked_evaluation"] and path.is_file() else None
                value = sdlogj(u, mask)
                case[method["name"]] = {"mean": value, "detailed": value}
                case["num_foldings"] = {"mean": 0.0, "detailed": 0.0}
            elif method["metric"] == "tre":
                points = [
                    np.loadtxt(
                        data / beside[r].format(method["dest"]).replace(".nii.gz", ".csv"), delimiter=",", ndmin=2
                    )
                    for r in ("fixed", "moving")
                ]
                spacing = nib.load(str(data / pair["moving"])).header.get_zooms()
                values = tre(points[0], points[1], u, spacing)
                case[method["name"]] = {"mean": values.mean(), "detailed": values.tolist()}
            else:
                maps = [voxels(data / beside[r].format("labels")) for r in ("fixed", "moving")]
                found = per_label(maps[0], maps[1], u, method["labels"])[method["metric"]]
                case[method["name"]] = {"mean": np.nanmean(found), "detailed": found}
        cases["<--".join(ids)] = case
    aggregates = {}
    for method in config["evaluation_methods"]:
        means = np.array([case[method["name"]]["mean"] for case in cases.values()])
        share = 0.7 if method["metric"] in ("sdlogj", "tre") else 0.3
        with np.errstate(invalid="ignore"):
            aggregates[method["name"]] = {"mean": means.mean(), "std": means.std(), "30": np.quantile(means, share)}
    return {"name": config["task_name"], "aggregates": aggregates, "cases": cases, "eval_version": "2.0"}


def evaluate_2020(folder: Path, data: Path, number: int, pairs: list[tuple[int, int]]) -> dict[str, Any]:
    """One task of the organisers' script of 2020."""
    rows = []
    for fixed, moving in pairs:
        with np.load(folder / f"task_{number:02d}" / f"disp_{fixed:04d}_{moving:04d}.npz") as archive:
            stored = archive["arr_0"]
        assert stored.dtype == np.float16
        u = stored.astype(np.float32)
        if number != 4:
            u = np.stack([zoom(component, 2, order=2) for component in u])
        if number == 2:
            mask = nib.load(str(data / "training" / "lungMasks" / f"case_{fixed:03d}_exp.nii.gz"))
            both = np.loadtxt(data / "training" / "lms" / f"case_{fixed:03d}.txt", delimiter=",")
            errors = tre(both[:, :3], both[:, 3:], u, mask.header.get_zooms())
            rows.append({"TRE": errors.mean(), "LogJacDetStd": sdlogj(u, np.asarray(mask.dataobj))})
            continue
        name = "hippocampus_{:03d}.nii.gz" if number == 4 else "label{:04d}.nii.gz"
        maps = [voxels(data / "Training" / "label" / name.format(n)) for n in (fixed, moving)]
        found = per_label(maps[0], maps[1], u, list(range(1, 3 if number == 4 else 14)))
        rows.append(
            {
                "DiceCoefficient": np.nanmean(found["dice"]),
                "HausdorffDistance95": np.nanmean(found["hd95"]),
                "LogJacDetStd": sdlogj(u, None),
            }
        )
    frame = pd.DataFrame(rows)
    with np.errstate(invalid="ignore"):
        aggregates = {c: {"mean": frame[c].mean(), "std": frame[c].std()} for c in frame.columns}
    if number != 2:
        for column, entry in aggregates.items():
            entry["30"] = frame[column].quantile(0.3)
    return {f"task_{number:02d}": {"case": json.loads(_text(frame)), "aggregates": aggregates}}


def _text(frame: pd.DataFrame) -> str:
    return json.dumps({c: {str(i): float(v) for i, v in frame[c].items()} for c in frame.columns})


def assert_same(found: Any, expected: Any, where: str = "", tolerance: float = 1e-5) -> None:
    """Equal keys, order of lists and numbers; NaN and infinities alike."""
    if isinstance(expected, dict):
        assert isinstance(found, dict), where
        assert set(found) == set(expected), f"{where}: {sorted(found)} instead of {sorted(expected)}"
        for key in expected:
            assert_same(found[key], expected[key], f"{where}/{key}", tolerance)
    elif isinstance(expected, list):
        assert len(found) == len(expected), where
        for i, (a, b) in enumerate(zip(found, expected, strict=True)):
            assert_same(a, b, f"{where}[{i}]", tolerance)
    elif isinstance(expected, str):
        assert found == expected, where
    else:
        np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance, equal_nan=True, err_msg=where)
