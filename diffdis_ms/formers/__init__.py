"""DiffDis for MindSpore Transformers (MindFormers): its config, model, dataset, one-step cell and trainer under
MindFormers' registry.

`import diffdis_ms.formers.register` registers them; a YAML file does so by `auto_register: register.<Class>` with
REGISTER_PATH (or run_mindformer.py's --register_path) = diffdis_ms/formers.
"""
