"""Draws docs/phantom.png: a generated knee, its raters, their soft label and the truth."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from nnunet_softlabel.fusion import FUSIONS, RaterVotes
from nnunet_softlabel.simulation.knee_phantom import KneeLesions, make_knee_phantom, phantom_raters


def main() -> None:
    knee = make_knee_phantom(5, shape=(24, 192, 192), lesions=KneeLesions(number=3))
    drawn = phantom_raters(knee, "all", seed=5)
    votes = RaterVotes(drawn[:, None] > 0, ("1", "2", "3"), knee.spacing_mm)
    soft = FUSIONS["mean"](votes)[0]
    level = int((drawn > 0).sum(axis=(0, 2, 3)).argmax())
    figure, axes = plt.subplots(1, 3, figsize=(9, 3.2))
    axes[0].imshow(knee.image[level], cmap="gray")
    for rater, colour in zip(drawn, ("tab:red", "tab:cyan", "tab:orange"), strict=True):
        axes[0].contour(rater[level] > 0, [0.5], colors=colour, linewidths=1)
    axes[1].imshow(knee.image[level], cmap="gray")
    axes[1].imshow(np.ma.masked_equal(soft[level], 0), cmap="viridis", vmin=0, vmax=1, alpha=0.85)
    axes[2].imshow(knee.image[level], cmap="gray")
    axes[2].contour(knee.truth[level], [0.5], colors="tab:green", linewidths=1.5)
    for axis, title in zip(axes, ("three raters", "soft label (mean)", "truth"), strict=True):
        axis.set_title(title, fontsize=10)
        axis.axis("off")
    figure.tight_layout()
    figure.savefig(Path(__file__).with_name("phantom.png"), dpi=80)


if __name__ == "__main__":
    main()
