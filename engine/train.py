"""The loop: what the spec says, step by step, until done or stopped."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import torch

from engine.checkpoint import save_checkpoint
from engine.contract.events import EventWriter
from engine.contract.run_dir import RunDir
from engine.evaluate import held_out_loss, sample_replies
from engine.export import export_model
from engine.fingerprint import record_result
from engine.forecast_check import ForecastCheck
from engine.meter import StepPeak
from engine.methods.protocol import StepReport
from engine.preparation import Prepared
from engine.schedule import learning_rate


class Stopped(Exception):
    """Somebody asked for a stop; the step that was going on is whole."""


class Trainer:
    """One attempt at a run.

    Args:
        run: The run folder.
        prepared: Model, data and method, restored where there was a checkpoint.
        events: Where to tell.
        attempt: Number of this attempt.
        stop_requested: Asked between steps and inside long evaluations.
    """

    def __init__(
        self,
        run: RunDir,
        prepared: Prepared,
        events: EventWriter,
        attempt: int,
        stop_requested: Callable[[], bool],
    ) -> None:
        self.run = run
        self.prepared = prepared
        self.events = events
        self.attempt = attempt
        self.stop_requested = stop_requested
        self.progress = prepared.progress
        self.train_loss_last: float | None = None
        self.eval_loss_last: float | None = None
        self.eval_step: int | None = None
        self.check = ForecastCheck(prepared, events)
        self.peak = StepPeak(
            prepared.device,
            prepared.live_tensors,
            lambda _: self.check.tell(self.peak),
            self.progress.step,
            self.progress.peak_bytes,
        )
        self.saved_step = prepared.progress.step
        self._started = time.monotonic() - prepared.progress.elapsed_s

    def train(self) -> None:
        """All steps that are left, then the export.

        Raises:
            Stopped: On request; the state is at the end of a step.
            NonFiniteError: Loss or gradient is NaN or infinite.
        """
        if self.progress.step == 0:
            self._evaluate(0)
        self._phase("training")
        while self.progress.step < self.prepared.num_steps:
            if self.stop_requested():
                raise Stopped
            self._step(self.progress.step + 1)
            self._after_step(self.progress.step)

    def _step(self, step: int) -> None:
        prepared, train = self.prepared, self.prepared.spec.train
        started = time.perf_counter()
        batches = prepared.batches(step)
        rate = learning_rate(step, prepared.num_steps, train)
        # Dropout draws from torch's own generator: seeded per step, a resume draws the same.
        torch.manual_seed((train.seed << 24) + step & (1 << 63) - 1)
        with self.peak.around_step():
            if prepared.begins_epoch(step):
                prepared.method.new_epoch(step)
            report = prepared.method.step(batches, rate, step)
        tokens = sum(batch.num_tokens for batch in batches)
        self.progress = replace(
            self.progress,
            step=step,
            tokens_seen=self.progress.tokens_seen + tokens,
            elapsed_s=time.monotonic() - self._started,
            peak_bytes=self.peak.peak_bytes,
        )
        seconds = time.perf_counter() - started
        self._tell_step(step, report, rate, tokens, seconds)

    def _tell_step(
        self, step: int, report: StepReport, rate: float, tokens: int, seconds: float
    ) -> None:
        self.train_loss_last = report.loss_nats / max(1, report.num_target_tokens)
        self.events.emit(
            "step",
            step=step,
            loss_nats=self.train_loss_last,
            num_target_tokens=report.num_target_tokens,
            learning_rate=rate,
            grad_norm=report.grad_norm,
            step_s=round(seconds, 4),
            tokens_per_s=round(tokens / seconds, 1),
            **report.metrics,
        )

    def _after_step(self, step: int) -> None:
        train = self.prepared.spec.train
        last = step == self.prepared.num_steps
        if step % train.eval_every == 0 or last:
            self._evaluate(step)
            self._phase("training")
        if step % train.checkpoint_every == 0 and not last:
            self.save()
            self._phase("training")

    def _evaluate(self, step: int) -> None:
        prepared = self.prepared
        self._phase("evaluating")
        if prepared.evaluation:
            measured = held_out_loss(
                prepared.loaded,
                prepared.evaluation,
                prepared.spec.train.batch_size,
                prepared.device,
                self.stop_requested,
            )
            if measured:
                self._tell_evaluation(step, *measured)
        items = sample_replies(prepared.loaded, prepared.prompts, self.stop_requested)
        if items:
            self.events.emit("sample", step=step, items=items)

    def _tell_evaluation(self, step: int, loss_nats: float, count: int) -> None:
        loss = loss_nats / count
        self.eval_loss_last, self.eval_step = loss, step
        if step == 0:
            self.progress = replace(self.progress, eval_loss_before=loss)
        self.events.emit("eval", step=step, loss_nats=loss, num_target_tokens=count)

    def save(self) -> None:
        """Commit a checkpoint of the last whole step; a full disk is told, training goes on."""
        if self.saved_step == self.progress.step:
            return
        self._phase("saving")
        try:
            save_checkpoint(
                self.run,
                self.attempt,
                self.progress,
                self.prepared.method.state_dict(),
                lambda folder: record_result(folder, self.prepared.loaded),
            )
        except OSError as error:
            self.events.emit(
                "notice",
                message=f"The checkpoint of step {self.progress.step} could not be saved: "
                f"{error.strerror}. Older checkpoints are kept.",
            )
            return
        self.saved_step = self.progress.step
        self.events.emit("checkpoint", step=self.progress.step)

    def export(self) -> None:
        """Write the result as a model folder."""
        self._phase("exporting")
        export_model(self.run, self.prepared.loaded, self.prepared.method)

    def _phase(self, phase: str) -> None:
        self.events.emit("phase", phase=phase, steps=self.prepared.num_steps)
