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
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import IO, Any, Protocol, TypeVar, cast

import torch
from torch import nn
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments
from transformers.trainer import OPTIMIZER_NAME, SCHEDULER_NAME

from kore_bench.card import TrainSettings
from kore_bench.checkpoint import PREFIX, Checkpoint, Due, Progress, load_trained, save_trained, seal
from kore_bench.component import Component, Run
from kore_bench.distributed import everyone, first, summed, wait_for_all, whole, world
from kore_bench.errors import UserError
from kore_bench.launch import ALONE, Launch
from kore_bench.lmm import IGNORED, LMM
from kore_bench.recipe import optimizer, training_arguments
from kore_bench.reporters import reporters
from kore_bench.sharding import in_shards, load_whole_state, whole_state

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
    launch: Launch = ALONE,
) -> Trained:
    """Train ``model`` in place on rows of ``input_ids``, ``labels`` and ``images``; one JSON row a step goes to ``log``.

    The order of the data depends on the seed and the number of rows alone. Processes that share a cell share each
    batch: the gradients are those of one process with the whole batch, whatever the strategy of ``launch``. With ``keeping``, checkpoints are written
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
    cell = keeping.folder.parent if keeping else None
    step = resume.progress.step if resume else 0
    with (
        tempfile.TemporaryDirectory() as scratch,
        in_shards(model) if launch.sharded else nullcontext(),
        reporters(launch.report_to if first() else (), cell or Path(scratch), step) as callbacks,
    ):
        trainer = _Trainer(
            model, settings, components, run, log, keeping,
            args=training_arguments(settings, run.seed, str(keeping.folder) if keeping else scratch, model),
            train_dataset=rows, launch=launch,
        )  # fmt: skip
        trainer.remove_callback(PrinterCallback)
        for callback in (_Hooks(trainer, progress), *callbacks):
            trainer.add_callback(callback)
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
        launch: Launch,
    ) -> None:
        self.lmm, self.components, self.run, self.log_file, self.keeping = lmm, components, run, log, keeping
        self.parts: dict[str, float] = {}
        self.earlier = _earlier(keeping)
        self.samples = self.tokens = 0
        self.last_loss = self.earlier.loss
        self.began = time.monotonic() - self.earlier.seconds
        self.due = Due(float(os.environ.get(_INTERVAL, "60")))
        self.stop = False
        self.num_parts, self.least_parts = 1, launch.parts
        super().__init__(
            model=lmm.model,
            args=args,
            train_dataset=cast(Any, train_dataset),
            data_collator=self._collate,
            optimizers=(optimizer(lmm, settings), None),
        )
        # Losses are divided below: by the step's answer tokens, penalties by the step's batches.
        self.model_accepts_loss_kwargs = True
        self.loss_is_scaled_for_ga = True
        # Where it is set, nothing else shards the model or wraps it in DDP.
        self.is_distributed_loading_by_transformers = launch.sharded

    def _move_model_to_device(self, model: nn.Module, device: torch.device) -> None:
        """Do nothing: the model lies where it is used, and shards must not be moved."""

    def _collate(self, rows: list[dict[str, Any]]) -> dict[str, list[dict[str, torch.Tensor]]]:
        """Pad a batch in one part, or in a short and a long one where that saves much padding or memory.

        Processes that share a cell exchange gradients part by part, and so must have as many.
        """
        parts = split_by_length(rows) if world() == 1 else [rows]
        if len(parts) < self.least_parts:
            parts = split_evenly(rows, self.least_parts)
        return {"parts": [self.lmm.collate(part) for part in parts]}

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

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Do nothing: `write_step` logs, and the Trainer's own loss is not the one that is trained on."""

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
                batches = self.current_gradient_accumulation_steps * self.num_parts
                penalty = whole(penalty) / (num_items_in_batch / world() if component.by_token else batches)
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
        self.callback_handler.on_log(self.args, self.state, self.control, {"learning_rate": rate, **parts})
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
        save_trained(Path(str(output_dir)), self.lmm.model, self.run.states)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        """Write the optimizer's state whole, so that any number of processes, sharded or not, can go on from it."""
        assert self.optimizer is not None
        assert self.lr_scheduler is not None
        state = whole_state(self.optimizer)
        if first():
            torch.save(state, Path(output_dir) / OPTIMIZER_NAME)
            torch.save(self.lr_scheduler.state_dict(), Path(output_dir) / SCHEDULER_NAME)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            assert self.optimizer is not None
            assert self.lr_scheduler is not None
            folder = Path(checkpoint)
            load_whole_state(self.optimizer, torch.load(folder / OPTIMIZER_NAME, map_location="cpu", weights_only=True))
            self.lr_scheduler.load_state_dict(torch.load(folder / SCHEDULER_NAME, weights_only=True))

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
        if first():
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


def split_evenly(rows: Sequence[R], parts: int) -> list[Sequence[R]]:
    """Return rows of ``input_ids`` sorted by length, in ``parts`` parts of (nearly) as many rows; none is empty."""
    ordered = sorted(rows, key=lambda row: len(row["input_ids"]))
    size = -(-len(ordered) // parts)
    return [ordered[start : start + size] for start in range(0, len(ordered), size)]


def answer_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the summed cross-entropy (nats, fp32) of the labelled tokens: logits ``[b, t, v]``, labels ``[b, t]``.

    The logits at position t answer for the label at t + 1.
    """
    wanted = labels[:, 1:] != IGNORED
    return nn.functional.cross_entropy(logits[:, :-1][wanted].float(), labels[:, 1:][wanted], reduction="sum")
