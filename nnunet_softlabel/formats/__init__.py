"""What is on disk: images, label maps and probabilities, the soft-label data set, nnU-Net's folders, JSON."""
