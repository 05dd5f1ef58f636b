"""Read result files, and make pages, tables and plots from them."""
