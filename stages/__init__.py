"""The stages of dvc.yaml: a module each, or a package whose `stage.py` is what the stage does. No stage imports another."""

import tunepress.core  # noqa: F401  (pins the float kernels before anything imports torch)
