"""Safe reading and writing: files written completely or not at all, model directories, and checkpoint files, which are
read without executing anything in them."""
