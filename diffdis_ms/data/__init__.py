"""Read, write and batch image-caption pairs. Imports neither mindspore nor the rest of the package."""
