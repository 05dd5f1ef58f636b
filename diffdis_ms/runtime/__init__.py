"""How a process runs: MindSpore's context (context), graphs kept on the disk (compile_cache), how a command ends
(cli)."""

_CONTEXT = ('setup', 'setup_once', 'this_world', 'ascend_chip', 'ascend_environment', 'FLASH_CHIPS')


def __getattr__(name):
    """`runtime.setup` and its like on first use: who only needs `runtime.cli` does not wait for MindSpore."""
    if name in _CONTEXT:
        from diffdis_ms.runtime import context

        return getattr(context, name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
