"""Check whether Ascend has every operator of a graph, without an NPU and without CANN.

Graphs are compared with a table of MindSpore's registrations for Ascend (mindspore_VERSION.json, written by
tools/ascend_table.py).
"""
