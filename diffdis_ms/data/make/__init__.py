"""What writes data sets: from other sources, the demo set, COCO for FID."""
