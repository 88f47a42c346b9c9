"""What nnU-Net's search finds: this file only re-exports.

nnU-Net imports every module of the folder ``nnUNet_extTrainer`` as a top-level module, again on each look-up.
The classes themselves live in the package, where they are imported once and can be pickled.
"""

from nnunet_softlabel.training.recipes import TRAINERS

globals().update(TRAINERS)
