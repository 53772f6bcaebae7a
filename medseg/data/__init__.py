"""Training data: cases on disk, splits by group, random samples and their augmentation. No torch here."""
