"""Training on soft labels: how they travel (`data`, `transforms`), the trainer, and the recipes."""
