"""Bytes in and out, safely: files written whole or not at all, model directories, any checkpoint file read without
running it."""
