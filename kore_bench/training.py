"""Training: the Hugging Face Trainer with the task loss on answer tokens, the components' penalties, and a log."""

from __future__ import annotations

import json
import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import IO, Any, Protocol, TypeVar, cast

import torch
from torch import nn
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from kore_bench.card import TrainSettings
from kore_bench.checkpoint import PREFIX, Checkpoint, Due, Progress, load_trained, save_trained, seal
from kore_bench.component import Component, Run
from kore_bench.distributed import everyone, first, summed, wait_for_all, world
from kore_bench.errors import UserError
from kore_bench.lmm import IGNORED, LMM

R = TypeVar("R", bound=Mapping[str, Any])
_WORTH_SPLITTING = 2 / 3
_INTERVAL = "KORE_BENCH_CHECKPOINT_SECONDS"


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What training did: optimizer steps, samples seen, tokens seen (padding not counted), the last loss, seconds.

    ``resumed_at`` is the step of the checkpoint that it went on from (0: none); everything else counts from step one.
    """

    steps: int
    samples: int
    tokens: int
    loss: float
    seconds: float
    resumed_at: int = 0


@dataclass(frozen=True, kw_only=True)
class Keeping:
    """Where a training leaves its checkpoints, the cell's key, and the one to go on from."""

    folder: Path
    key: str
    resume: Checkpoint | None = None


class Stopped(SystemExit):
    """The process was told to end (SIGTERM) while training; a checkpoint of the last step has been written."""


def train(
    model: LMM,
    rows: Sequence[Mapping[str, Any]],
    settings: TrainSettings,
    components: Sequence[Component],
    run: CheckpointedRun,
    log: IO[str],
    progress: Callable[[int, int], None],
    keeping: Keeping | None = None,
) -> Trained:
    """Train ``model`` in place on rows of ``input_ids``, ``labels`` and ``images``; one JSON row a step goes to ``log``.

    The order of the data depends on the seed and the number of rows alone. Processes that share a cell (DDP) share
    each batch: the gradients are those of one process with the whole batch. With ``keeping``, checkpoints are written
    about every minute of training (``KORE_BENCH_CHECKPOINT_SECONDS``) and at its end; one that is resumed restores
    weights, optimizer, random state, data order and what the components remember, so that the numbers are those of an
    undisturbed training. Raises UserError where there is nothing to train, FloatingPointError where the loss or a
    penalty is no longer finite, and Stopped where SIGTERM came.
    """
    trained = [value for value in model.model.parameters() if value.requires_grad]
    if not trained or not rows:
        raise UserError("there is nothing to train: no parameter or no example")
    resume = keeping.resume if keeping else None
    if resume:
        load_trained(resume.folder, model.model, run.states)
    if resume and resume.progress.finished:
        done = resume.progress
        model.model.eval()
        return Trained(
            steps=done.step, samples=done.samples, tokens=done.tokens, loss=done.loss, seconds=done.seconds,
            resumed_at=done.step,
        )  # fmt: skip
    if settings.gradient_checkpointing:
        model.base.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
    with tempfile.TemporaryDirectory() as scratch:
        trainer = _Trainer(
            model, settings, components, run, log, keeping,
            args=_arguments(settings, run.seed, str(keeping.folder) if keeping else scratch, model),
            train_dataset=rows,
        )  # fmt: skip
        trainer.remove_callback(PrinterCallback)
        trainer.add_callback(_Hooks(trainer, progress))
        with _asked_to_stop(trainer):
            trainer.train(resume_from_checkpoint=str(resume.folder) if resume else None)
    model.model.eval()
    done = trainer.progress(finished=True)
    if keeping:
        trainer.save_finished(done)
        if any(everyone(trainer.stop)):
            raise Stopped(128 + signal.SIGTERM)
    return Trained(
        steps=done.step, samples=done.samples, tokens=done.tokens, loss=done.loss, seconds=done.seconds,
        resumed_at=resume.progress.step if resume else 0,
    )  # fmt: skip


def _earlier(keeping: Keeping | None) -> Progress:
    """Return how far the training was when this process took it up."""
    if keeping and keeping.resume:
        return keeping.resume.progress
    key = keeping.key if keeping else ""
    return Progress(key=key, step=0, samples=0, tokens=0, loss=float("nan"), seconds=0.0)


class CheckpointedRun(Run, Protocol):
    """A run whose components' memories can be saved and put back."""

    states: dict[str, dict[str, Any]]


@contextmanager
def _asked_to_stop(trainer: _Trainer) -> Iterator[None]:
    """Let SIGTERM end the training after its step, with a checkpoint, where there is a place for one."""
    if trainer.keeping is None or threading.current_thread() is not threading.main_thread():
        yield
        return

    def ask(number: int, frame: FrameType | None) -> None:
        trainer.stop = True

    before = signal.signal(signal.SIGTERM, ask)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _arguments(settings: TrainSettings, seed: int, folder: str, model: LMM) -> TrainingArguments:
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


class _Trainer(Trainer):
    """Adds the penalties in one place, scaled so that gradient accumulation changes nothing."""

    def __init__(
        self,
        lmm: LMM,
        settings: TrainSettings,
        components: Sequence[Component],
        run: CheckpointedRun,
        log: IO[str],
        keeping: Keeping | None,
        args: TrainingArguments,
        train_dataset: Sequence[Mapping[str, Any]],
    ) -> None:
        self.lmm, self.components, self.run, self.log_file, self.keeping = lmm, components, run, log, keeping
        self.parts: dict[str, float] = {}
        self.earlier = _earlier(keeping)
        self.samples = self.tokens = 0
        self.last_loss = self.earlier.loss
        self.began = time.monotonic() - self.earlier.seconds
        self.due = Due(float(os.environ.get(_INTERVAL, "60")))
        self.stop = False
        self.num_parts = 1
        super().__init__(
            model=lmm.model,
            args=args,
            train_dataset=cast(Any, train_dataset),
            data_collator=self._collate,
            optimizers=(_optimizer(lmm, settings), None),
        )
        # Losses are divided below: by the step's answer tokens, penalties by the step's batches.
        self.model_accepts_loss_kwargs = True
        self.loss_is_scaled_for_ga = True

    def _collate(self, rows: list[dict[str, Any]]) -> dict[str, list[dict[str, torch.Tensor]]]:
        """Pad a batch in one part, or in a short and a long one where that saves much padding."""
        return {"parts": [self.lmm.collate(part) for part in split_by_length(rows)]}

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], torch.Tensor | int | None]:
        """Return this process's batches of one step with the number of answer tokens in all processes' batches."""
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        own = sum(int((part["labels"] != IGNORED).sum()) for batch in batches for part in batch["parts"])
        return batches, sum(everyone(own))

    def training_step(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: torch.Tensor | int | None = None
    ) -> torch.Tensor:
        """Run a batch part by part; the gradients add up to the whole batch's."""
        self.num_parts = len(inputs["parts"])
        losses = [super(_Trainer, self).training_step(model, part, num_items_in_batch) for part in inputs["parts"]]
        return torch.stack(losses).sum()

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Return 0: nothing here reads the Trainer's estimate, which knows no batches in parts."""
        return 0

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """Return the batch's share of the step's loss: answer cross-entropy plus the components' penalties."""
        labels = inputs.pop("labels")
        outputs = model(**inputs)
        assert num_items_in_batch is not None  # from get_batch_samples
        loss = answer_loss(outputs.logits, labels) / num_items_in_batch
        self._add("loss", loss)
        loss = loss * world()  # gradients are averaged over processes, and the count is all processes'
        for component in self.components:
            penalty = component.penalty(self.lmm, {**inputs, "labels": labels}, outputs, self.run)
            if penalty is not None:
                penalty = penalty / (self.current_gradient_accumulation_steps * self.num_parts)
                self._add(f"penalty/{component.name}", penalty / world())
                loss = loss + penalty
        self.samples += len(labels)
        self.tokens += int(inputs["attention_mask"].sum())
        return (loss, outputs) if return_outputs else loss

    def _add(self, name: str, value: torch.Tensor) -> None:
        number = float(value.detach())
        if not torch.isfinite(value.detach()).all():
            raise FloatingPointError(f"{name} is {number} at step {self.state.global_step + 1}: the training diverged")
        self.parts[name] = self.parts.get(name, 0.0) + number

    def write_step(self) -> None:
        """Write the step's row to the log and begin the next step's."""
        assert self.lr_scheduler is not None  # made by train()
        rate = self.lr_scheduler.get_last_lr()[0]
        parts = summed(self.parts)
        row = {"step": self.state.global_step, "learning_rate": rate, **parts}
        if first():
            self.log_file.write(json.dumps(row) + "\n")
            self.log_file.flush()
        self.last_loss = parts.get("loss", float("nan"))
        self.parts = {}

    def wants_checkpoint(self) -> bool:
        """Return whether the step that is done should leave a checkpoint; the same on every process."""
        told = everyone((self.stop, self.due()))
        self.stop = any(stop for stop, _ in told)
        return self.stop or told[0][1]

    def progress(self, *, finished: bool = False) -> Progress:
        """Return how far the training is; every process must call it."""
        counted = {
            name: round(value) for name, value in summed({"samples": self.samples, "tokens": self.tokens}).items()
        }
        return Progress(
            key=self.earlier.key, step=self.state.global_step, samples=self.earlier.samples + counted["samples"],
            tokens=self.earlier.tokens + counted["tokens"], loss=self.last_loss,
            seconds=time.monotonic() - self.began, finished=finished,
        )  # fmt: skip

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Write what is trained and what the components remember, for a checkpoint."""
        if first():
            save_trained(Path(str(output_dir)), self.lmm.model, self.run.states)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        """Do nothing: `train` has put back what `save_model` wrote."""

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        assert self.keeping is not None  # a checkpoint is asked for only then
        begin = time.monotonic()
        super()._save_checkpoint(model, trial)
        progress = self.progress()  # waits for all: every process has written its random state
        if first():
            seal(self.keeping.folder / f"{PREFIX}{self.state.global_step}", progress)
        self.due.saved(time.monotonic() - begin)
        if self.stop:
            raise Stopped(128 + signal.SIGTERM)

    def save_finished(self, progress: Progress) -> None:
        """Write the last checkpoint, from which a killed evaluation goes on: no optimizer."""
        assert self.keeping is not None
        folder = self.keeping.folder / f"{PREFIX}{self.state.global_step}"
        if first():
            shutil.rmtree(folder, ignore_errors=True)
            save_trained(folder, self.lmm.model, self.run.states)
            seal(folder, progress)
        wait_for_all()


class _Hooks(TrainerCallback):
    def __init__(self, trainer: _Trainer, progress: Callable[[int, int], None]) -> None:
        self.trainer, self.progress = trainer, progress

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        for component in self.trainer.components:
            component.step(self.trainer.lmm, self.trainer.run)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.trainer.write_step()
        self.progress(state.global_step, state.max_steps)
        last = state.global_step >= state.max_steps  # then the finished training is saved instead
        control.should_save = bool(self.trainer.keeping) and not last and self.trainer.wants_checkpoint()


def split_by_length(rows: Sequence[R]) -> list[Sequence[R]]:
    """Return rows of ``input_ids`` in one part, or sorted in two where that saves over a third of the padded tokens."""
    ordered = sorted(rows, key=lambda row: len(row["input_ids"]))
    lengths = [len(row["input_ids"]) for row in ordered]
    longest = lengths[-1]
    costs = {cut: lengths[cut - 1] * cut + longest * (len(rows) - cut) for cut in range(1, len(rows))}
    cut = min(costs, key=lambda cut: costs[cut], default=0)
    if not cut or costs[cut] > _WORTH_SPLITTING * longest * len(rows):
        return [rows]
    return [ordered[:cut], ordered[cut:]]


def answer_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the summed cross-entropy (nats, fp32) of the labelled tokens: logits ``[b, t, v]``, labels ``[b, t]``.

    The logits at position t answer for the label at t + 1.
    """
    wanted = labels[:, 1:] != IGNORED
    return nn.functional.cross_entropy(logits[:, :-1][wanted].float(), labels[:, 1:][wanted], reduction="sum")


def _optimizer(model: LMM, settings: TrainSettings) -> torch.optim.Optimizer:
    """AdamW in two groups: the projector at its own rate, everything else at the run's."""
    projector = model.projector()
    inside = {id(value) for value in projector.parameters()} if projector is not None else set()
    trained = [value for value in model.model.parameters() if value.requires_grad]
    groups = [
        {"params": [value for value in trained if id(value) not in inside], "lr": settings.learning_rate},
        {"params": [value for value in trained if id(value) in inside], "lr": settings.projector_learning_rate},
    ]
    return torch.optim.AdamW([group for group in groups if group["params"]], weight_decay=settings.weight_decay)
