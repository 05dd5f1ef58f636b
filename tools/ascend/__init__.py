"""What tools/ascend_table.py reads: shared libraries (elf) and the registrations in them (registrations)."""
