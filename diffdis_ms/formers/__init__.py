"""DiffDis for MindSpore Transformers (MindFormers): config, model, dataset, one-step cell and trainer.

`import diffdis_ms.formers.register` adds them to MindFormers' registry. A YAML file does the same with `auto_register:
register.<Class>`, if REGISTER_PATH (or run_mindformer.py's --register_path) is diffdis_ms/formers.
"""
