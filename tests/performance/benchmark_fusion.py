"""Speed and memory of the fusions on generated knees, three raters each.

    python tests/performance/benchmark_fusion.py [--knees 3] [--shape 48 256 256]

Speed is voxels times raters per second on one core, goal 5 million; memory is the peak of what a fusion
allocates, as a multiple of the raters' arrays (one byte per voxel and rater), goal 4.
"""

import argparse
import os
import time
import tracemalloc

os.environ["ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"] = "1"

import numpy as np

from nnunet_softlabel.fusion import FUSIONS, RaterVotes, estimate_rater_rates
from nnunet_softlabel.simulation.knee_phantom import KneeLesions, make_knee_phantom, phantom_raters


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--knees", type=int, default=3)
    parser.add_argument("--shape", type=int, nargs=3, default=[48, 256, 256])
    args = parser.parse_args()
    cases = [make_votes(seed, tuple(args.shape)) for seed in range(args.knees)]
    rates = estimate_rater_rates(cases)
    print("| fusion | million voxels x raters per second | peak memory / raters' arrays |")
    print("|---|---|---|")
    for name, fusion in FUSIONS.items():
        print(f"| {name} | " + " | ".join(measure(fusion, select(name, cases), {})) + " |", flush=True)
    print(
        "| staple, pooled rates | " + " | ".join(measure(FUSIONS["staple"], cases, {"rates": rates})) + " |"
    )


def make_votes(seed: int, shape: tuple[int, ...]) -> RaterVotes:
    knee = make_knee_phantom(seed, shape=shape, lesions=KneeLesions(number=3))
    drawn = phantom_raters(knee, "all", seed=seed)
    return RaterVotes(drawn[:, None] > 0, ("1", "2", "3"), knee.spacing_mm)


def select(name: str, cases: list[RaterVotes]) -> list[RaterVotes]:
    """Label smoothing takes a single rater."""
    if name != "svls":
        return cases
    return [RaterVotes(case.votes[:1], case.names[:1], case.spacing_mm) for case in cases]


def measure(fusion, cases: list[RaterVotes], options: dict) -> tuple[str, str]:
    speeds, peaks = [], []
    for case in cases:
        start = time.perf_counter()
        fusion(case, **options)
        speeds.append(case.votes.size / (time.perf_counter() - start) / 1e6)
        tracemalloc.start()
        fusion(case, **options)
        peaks.append(tracemalloc.get_traced_memory()[1] / case.votes.nbytes)
        tracemalloc.stop()
    return f"{np.median(speeds):.0f}", f"{max(peaks):.1f}"


if __name__ == "__main__":
    main()
