"""What the installed MindSpore has for Ascend, found without an NPU and without CANN."""
