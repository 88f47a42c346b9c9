"""Second round: predictions of networks that did not see a case, and its raters, become a better label."""

from nnunet_softlabel.refinement.run import FirstRound, refine

__all__ = ["FirstRound", "refine"]
