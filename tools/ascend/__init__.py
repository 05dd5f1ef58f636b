"""Readers for tools/ascend_table.py: shared libraries (elf) and the registrations in them (registrations)."""
