"""Does Ascend have every operator of a graph? Graphs are checked against a table of what MindSpore registers for Ascend
(mindspore_VERSION.json, written by tools/ascend_table.py), without an NPU and without CANN."""
