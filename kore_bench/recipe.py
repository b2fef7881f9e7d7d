"""A cell's training settings in the words of transformers and PyTorch: the Trainer's arguments and the optimizer."""

from __future__ import annotations

import torch
from transformers import TrainingArguments

from kore_bench.card import TrainSettings
from kore_bench.distributed import world
from kore_bench.lmm import LMM


def training_arguments(settings: TrainSettings, seed: int, folder: str, model: LMM) -> TrainingArguments:
    """Return the Trainer's arguments: what is saved, logged and reported is decided in `training`.

    ``folder`` is where checkpoints go; the batch is shared among the processes of the cell.
    """
    steps = settings.steps if settings.steps else -1
    return TrainingArguments(
        output_dir=folder,
        max_steps=steps,
        num_train_epochs=settings.epochs or 1.0,
        per_device_train_batch_size=settings.batch_size // world(),
        gradient_accumulation_steps=settings.accumulation,
        learning_rate=settings.learning_rate,
        lr_scheduler_type="constant_with_warmup" if settings.schedule == "constant" else settings.schedule,
        warmup_steps=settings.warmup,  # below 1: a share of all steps
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm,
        bf16=model.card.dtype == "bfloat16",
        use_cpu=model.device.type == "cpu",
        seed=seed,
        data_seed=seed,
        ddp_find_unused_parameters=False,
        logging_strategy="no",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=model.device.type == "cuda",
    )


def optimizer(model: LMM, settings: TrainSettings) -> torch.optim.Optimizer:
    """Return AdamW in two groups: the projector at its own rate, everything else at the run's."""
    projector = model.projector()
    inside = {id(value) for value in projector.parameters()} if projector is not None else set()
    trained = [value for value in model.model.parameters() if value.requires_grad]
    groups = [
        {"params": [value for value in trained if id(value) not in inside], "lr": settings.learning_rate},
        {"params": [value for value in trained if id(value) in inside], "lr": settings.projector_learning_rate},
    ]
    return torch.optim.AdamW([group for group in groups if group["params"]], weight_decay=settings.weight_decay)
