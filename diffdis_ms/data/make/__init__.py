"""Write data sets: from other sources, the demo set, and COCO for FID."""
