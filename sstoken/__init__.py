"""sstoken: does selecting tokens during supervised fine-tuning help, how much, and at what cost?"""

import os
from pathlib import Path

__version__ = "0.1.0"
__all__ = ["SelectionTrainer", "load_method"]


def __getattr__(name: str):
    # lazily: planning a grid must not pay seconds for importing transformers
    if name == "SelectionTrainer":
        from sstoken.training.trainer import SelectionTrainer

        return SelectionTrainer
    if name == "load_method":
        from sstoken.selection.methods import load_method

        return load_method
    raise AttributeError(f"module 'sstoken' has no attribute {name!r}")


def show_to_subprocesses() -> None:
    """Let Python processes started from here import this package from where it lies, installed or not."""
    paths = [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH")]
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, paths))


SETTING = (
    "ACCELERATE_",
    "FSDP_",
    "NVIDIA_TF32",
    "TORCH_ALLOW_TF32",
    "ONEDNN_DEFAULT_FPMATH",
    "DNNL_DEFAULT_FPMATH",
    "XLA_",
)
"""How environment variables begin by which libraries take other precisions, or another way of training, in silence."""


def drop_settings_of_the_environment() -> list[str]:
    """Take away what would move numbers beside the configuration, from every process started from here: their names."""
    found = sorted(name for name in os.environ if name.startswith(SETTING))
    for name in found:
        del os.environ[name]
    return found


def switch_hub_off() -> None:
    """Set HF_HUB_OFFLINE for every process started from here; what its user had set is kept for the jobs that fetch."""
    os.environ.setdefault("SSTOKEN_HUB_OFFLINE", os.environ.get("HF_HUB_OFFLINE", "0"))
    os.environ["HF_HUB_OFFLINE"] = "1"
