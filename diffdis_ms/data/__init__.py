"""Reading, writing and batching of image-caption pairs; imports neither mindspore nor the rest of the package."""
