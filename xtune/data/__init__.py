"""Data: sources -> map functions -> conversations -> tokens and trained spans -> packing plan -> batches."""
