"""How a process runs: MindSpore's context (context), graphs on disk (compile_cache), end of a command (cli)."""

_CONTEXT = ('setup', 'setup_once', 'this_world', 'ascend_chip', 'ascend_environment', 'FLASH_CHIPS')


def __getattr__(name):
    """Import `runtime.setup` and the like on first use, so that `runtime.cli` alone does not import MindSpore."""
    if name in _CONTEXT:
        from diffdis_ms.runtime import context

        return getattr(context, name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
