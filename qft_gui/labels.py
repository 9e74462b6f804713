"""What the inputs of the Setup page are called, by their names."""

from __future__ import annotations

from qft_gui.spec_fields import SETTING_FIELDS

LABELS = {
    "model": "Model",
    "model_path": "Folder or hub id",
    "data": "Data",
    "data_path": "File",
    **{key: setting.label for key, setting in SETTING_FIELDS.items()},
    "steps": "Steps",
    "batch_size": "Batch size",
    "batching": "Batching",
    "grad_accumulation": "Accumulation",
    "sequence_length": "Sequence length",
    "learning_rate": "Learning rate",
    "schedule": "Schedule",
    "weight_decay": "Weight decay",
    "max_grad_norm": "Max gradient norm",
    "activation_checkpointing": "Recompute activations",
    "eval_percent": "Held-out percent",
    "device": "Device",
    "seed": "Seed",
    "name": "Run name",
}
