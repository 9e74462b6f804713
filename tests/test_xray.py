"""X-ray: the numbers are what they are called, and looking changes nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from engine.checkpoint import Progress, save_checkpoint
from engine.commands.parser import main
from engine.contract.errors import RequestError, RequestErrors
from engine.contract.events import EventWriter
from engine.contract.run_dir import RunDir, create_run
from engine.contract.spec import RunSpec
from engine.data.batching import BatchOrder, collate
from engine.distribution import (
    BIN_CENTRES,
    SAMPLED_VALUES,
    Distribution,
    distribution_of,
    merged,
    sampled_rows,
)
from engine.export import export_model
from engine.model import load_model
from engine.preparation import Prepared, prepare, tokenized
from engine.roles import named_weights
from engine.xray import Xray, xray_model, xray_run
from tests.tiny import tiny_spec
from tests.workshop import tree


def say_nothing(what: str) -> None:
    pass


def gaussian(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def heavy_tailed(*shape: int) -> Tensor:
    """Student's t with 3 degrees of freedom: a normal value over the root of a chi-square."""
    squares = torch.stack([gaussian(*shape, seed=seed).square() for seed in (1, 2, 3)])
    return gaussian(*shape) / (squares.sum(0) / 3).sqrt()


def seen_in(tensor: Tensor) -> Distribution:
    found = distribution_of(tensor)
    assert found is not None
    return found


# ------------------------------------------------------------------------------ one tensor


@pytest.mark.parametrize(
    "tensor",
    [gaussian(64, 64), heavy_tailed(64, 96), torch.zeros(4, 8), torch.ones(7), gaussian(3, 8, 16)],
    ids=["gaussian", "heavy", "zeros", "ones", "experts"],
)
def test_every_value_is_in_one_bin_or_outside(tensor: Tensor) -> None:
    seen = seen_in(tensor)
    counts = [share * seen.num_sampled for share in (*seen.shares, seen.outside_share)]
    assert sum(counts) == pytest.approx(tensor.numel())
    assert all(count == pytest.approx(round(count)) for count in counts)
    assert len(seen.shares) == len(BIN_CENTRES)


def test_a_normal_distribution_is_known_by_its_numbers() -> None:
    seen = seen_in(3 * gaussian(1000, 1000))
    assert seen.rms == pytest.approx(3, rel=0.01)
    assert seen.kurtosis == pytest.approx(0, abs=0.02)
    assert seen.outlier_share == pytest.approx(6.33e-5, rel=0.3)
    assert seen.top_share == pytest.approx(0.0846, rel=0.02)
    assert seen.shares[BIN_CENTRES.index(0)] == pytest.approx(0.0995, rel=0.02)
    assert seen.outside_share == 0


def test_heavy_tails_are_told_from_a_normal_distribution() -> None:
    heavy, normal = seen_in(heavy_tailed(256, 256)), seen_in(gaussian(256, 256))
    assert heavy.kurtosis is not None
    assert normal.kurtosis is not None
    assert heavy.kurtosis > normal.kurtosis + 10
    assert heavy.outlier_share > 30 * normal.outlier_share
    assert heavy.top_share > 3 * normal.top_share
    assert heavy.outside_share > 0


def test_one_large_value_is_the_outlier() -> None:
    values = torch.ones(10, 10)
    values[3, 4] = -50
    seen = seen_in(values)
    assert seen.largest == 50
    assert seen.outlier_share == pytest.approx(0.01)
    assert seen.top_share == pytest.approx(2500 / 2599)
    assert seen.outside_share == pytest.approx(0.01)


def test_equal_values_have_no_kurtosis_and_zeros_no_errors() -> None:
    assert seen_in(torch.full((5, 5), 0.1)).kurtosis is None
    zeros = seen_in(torch.zeros(3, 64))
    assert (zeros.rms, zeros.errors, zeros.shares[BIN_CENTRES.index(0)]) == (0, None, 1)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_has_no_distribution(bad: float) -> None:
    values = gaussian(8, 8)
    values[2, 2] = bad
    assert distribution_of(values) is None
    assert distribution_of(torch.empty(0, 4)) is None


@pytest.mark.parametrize("make", [gaussian, heavy_tailed])
def test_finer_scales_and_kept_outliers_lose_less(make: Callable[..., Tensor]) -> None:
    errors = seen_in(make(64, 256)).errors
    assert errors is not None
    assert errors.row > errors.group > errors.hybrid > 0


def test_what_codes_can_hold_loses_nothing() -> None:
    values = torch.arange(-127.0, 129.0).clamp(max=127).repeat(4, 1)
    errors = seen_in(values).errors
    assert errors is not None
    assert errors.row == 0


def test_a_vector_is_not_rounded_and_odd_rows_keep_one_scale() -> None:
    assert seen_in(gaussian(64)).errors is None
    odd = seen_in(gaussian(8, 33)).errors
    assert odd is not None
    assert odd.group == odd.row


def test_large_tensors_are_sampled_always_alike() -> None:
    values = gaussian(3000, 1024)
    values[2999, 1023] = 100
    seen = seen_in(values)
    assert seen.num_elements == values.numel()
    assert SAMPLED_VALUES // 2 < seen.num_sampled <= SAMPLED_VALUES
    assert seen.largest == 100
    assert seen == seen_in(values.clone())
    assert sampled_rows(torch.zeros(2, 2 * SAMPLED_VALUES)).shape[0] == 1


def test_parts_taken_together_are_weighted_by_size() -> None:
    whole = heavy_tailed(96, 64)
    parts = [seen_in(whole[:32]), seen_in(whole[32:])]
    both, expected = merged(parts), seen_in(whole)
    assert both.num_elements == expected.num_elements
    assert both.rms == pytest.approx(expected.rms)
    assert both.largest == expected.largest
    assert sum(both.shares) + both.outside_share == pytest.approx(1)
    assert both.errors is not None
    assert expected.errors is not None
    # The outliers are chosen for the whole there and for each part here.
    assert both.errors.row == pytest.approx(expected.errors.row)
    assert both.errors.group == pytest.approx(expected.errors.group)
    assert merged([seen_in(torch.zeros(2, 32))]).errors is None


# ------------------------------------------------------------------------------------ models


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "gpt2", "mixtral"])
def test_a_models_gradients_are_autograds(
    architecture: str, tiny_folder: Callable[[str], Path], chats_file: Path
) -> None:
    folder = tiny_folder(architecture)
    seen = xray_model(str(folder), str(chats_file), say_nothing)
    expected = gradients_by_hand(folder, chats_file)
    assert list(seen.kinds) == ["weights", "gradients"]
    assert list(seen.kinds["gradients"]) == list(expected)
    for name, gradient in expected.items():
        found, true = seen.kinds["gradients"][name].seen, seen_in(gradient)
        assert found.rms == pytest.approx(true.rms, rel=1e-4), name
        assert found.shares == pytest.approx(true.shares, abs=2e-3), name
        assert found.num_elements == gradient.numel()


def gradients_by_hand(folder: Path, chats: Path) -> dict[str, Tensor]:
    """By transformers' own loss and all `.grad` kept, on the batch that such a run begins with."""
    spec = tiny_spec(folder, chats, "full", batch_size=4, sequence_length=256)
    loaded = load_model(folder)
    training = tokenized(spec, loaded).training
    lengths = [len(example.tokens) for example in training]
    chosen = [training[index] for index in BatchOrder(len(training), 4, 0, lengths).batch(0)]
    batch = collate(chosen, loaded.pad_token)
    model: Any = AutoModelForCausalLM.from_pretrained(folder).float()
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    model(
        input_ids=batch.input_ids, attention_mask=batch.attention_mask, labels=batch.labels
    ).loss.backward()
    return {
        named.name: named.parameter.grad
        for named in named_weights(model)
        if named.parameter.grad is not None
    }


def test_weights_are_the_files_and_layers_hold_their_matrices(
    tiny_folder: Callable[[str], Path],
) -> None:
    folder = tiny_folder("llama")
    seen = xray_model(str(folder), None, say_nothing)
    model = AutoModelForCausalLM.from_pretrained(folder)
    for named in named_weights(model):
        assert seen.kinds["weights"][named.name].seen == seen_in(named.parameter)
    assert seen.num_parameters == sum(parameter.numel() for parameter in model.parameters())
    labels = [label for label, _ in seen.layers("weights")]
    assert labels == ["embed_tokens", "layer 0", "layer 1", "lm_head"]
    view = seen.kinds["weights"]["model.layers.1.self_attn.q_proj.weight"]
    assert (view.layer, view.part, view.role) == (1, "self_attn.q_proj", "linear")


def test_a_row_is_an_output_whichever_way_the_model_keeps_it(
    tiny_folder: Callable[[str], Path],
) -> None:
    folder = tiny_folder("gpt2")
    seen = xray_model(str(folder), None, say_nothing).kinds["weights"]
    name = "transformer.h.0.mlp.c_fc.weight"
    weight = dict(AutoModelForCausalLM.from_pretrained(folder).named_parameters())[name]
    view = seen[name]
    assert view.shape == tuple(weight.shape)
    assert view.seen.errors == seen_in(weight.T).errors


def test_damaged_weights_are_told(tmp_path: Path, tiny_folder: Callable[[str], Path]) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_folder("llama"))
    with torch.no_grad():
        model.lm_head.weight[0, 0] = float("nan")
    folder = tmp_path / "damaged"
    model.save_pretrained(folder)
    load_model(tiny_folder("llama")).tokenizer.save_pretrained(folder)
    seen = xray_model(str(folder), None, say_nothing)
    assert "lm_head.weight" not in seen.kinds["weights"]
    assert "weights of lm_head.weight hold NaN or infinity and are left out." in seen.notes


# -------------------------------------------------------------------------------------- runs


@pytest.fixture
def spec(tiny_folder: Callable[[str], Path], chats_file: Path) -> Callable[..., RunSpec]:
    return lambda kind="qft", **train: tiny_spec(tiny_folder("llama"), chats_file, kind, **train)


def trained(spec: RunSpec, runs: Path, steps: int = 2) -> tuple[RunDir, Prepared]:
    """A run of a few steps with a checkpoint after each."""
    run = create_run(runs, spec, "tiny")
    with EventWriter(run.events_path, attempt=1) as events:
        prepared = prepare(run, events)
    for step in range(1, steps + 1):
        prepared.method.step(prepared.batches(step), 1e-3, step)
        save_checkpoint(run, 1, Progress(step=step), prepared.method.state_dict())
    return run, prepared


@pytest.mark.parametrize("kind", ["qft", "full"])
def test_a_run_shows_its_state_and_is_not_changed(
    kind: str, spec: Callable[..., RunSpec], tmp_path: Path
) -> None:
    run, prepared = trained(spec(kind), tmp_path)
    before = tree(run.path)
    seen = xray_run(run, None, say_nothing)
    assert tree(run.path) == before
    assert seen.step == 2
    assert list(seen.kinds)[:2] == ["weights", "gradients"]
    for name, values in prepared.method.weights():
        assert seen.kinds["weights"][name].seen == seen_in(values)
    moments = list(prepared.method.moments())
    assert set(list(seen.kinds)[2:]) == {moment for _, moment, _ in moments}
    for name, moment, values in moments:
        assert seen.kinds[moment][name].seen == seen_in(values)
        assert seen.kinds[moment][name].seen.rms > 0
    json.dumps(seen.as_json(), allow_nan=False)


def test_gradients_of_a_run_come_from_its_tuned_weights(
    spec: Callable[..., RunSpec], tmp_path: Path, tiny_folder: Callable[[str], Path]
) -> None:
    run, prepared = trained(spec("full"), tmp_path)
    seen = xray_run(run, None, say_nothing).kinds["gradients"]
    prepared.loaded.model.eval()
    (batch,) = prepared.batches(1)
    labels = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
    prepared.loaded.model(**labels, labels=batch.labels).loss.backward()
    for named in named_weights(prepared.loaded.model):
        assert named.parameter.grad is not None
        assert seen[named.name].seen.rms == pytest.approx(
            seen_in(named.parameter.grad).rms, rel=1e-3
        )


def test_a_broken_checkpoint_is_passed_over_and_left_where_it_is(
    spec: Callable[..., RunSpec], tmp_path: Path
) -> None:
    run, _ = trained(spec(), tmp_path)
    newest = run.checkpoints / "step-000002" / "state.safetensors"
    newest.write_bytes(newest.read_bytes()[:-1])
    before = tree(run.path)
    assert xray_run(run, None, say_nothing).step == 1
    assert tree(run.path) == before


@pytest.mark.parametrize("kind", ["qft", "lomo"])
def test_without_a_checkpoint_the_result_is_looked_at(
    kind: str, spec: Callable[..., RunSpec], tmp_path: Path
) -> None:
    run, prepared = trained(spec(kind), tmp_path, steps=0)
    with pytest.raises(RequestError, match="tiny has neither checkpoint nor result"):
        xray_run(run, None, say_nothing)
    export_model(run, prepared.loaded, prepared.method)
    seen = xray_run(run, None, say_nothing)
    assert list(seen.kinds) == ["weights", "gradients"]
    assert seen.step is None
    assert ("no moments" in seen.notes[0]) is (kind == "qft")


def test_a_run_whose_data_is_gone_still_shows_the_rest(
    tiny_folder: Callable[[str], Path], chats_file: Path, tmp_path: Path
) -> None:
    data = tmp_path / "chats.jsonl"
    data.write_bytes(chats_file.read_bytes())
    run, _ = trained(tiny_spec(tiny_folder("llama"), data), tmp_path / "runs")
    data.unlink()
    seen = xray_run(run, None, say_nothing)
    assert "weights" in seen.kinds
    assert "gradients" not in seen.kinds
    assert any(note.startswith("No gradients:") for note in seen.notes)
    assert "gradients" in xray_run(run, str(chats_file), say_nothing).kinds
    for bad in ("", "nonsense"):
        with pytest.raises((RequestError, RequestErrors), match=r"data\.source"):
            xray_run(run, bad, say_nothing)


# ----------------------------------------------------------------------------------- command


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nonsense"], "there is no folder and no model called 'nonsense'"),
        (["starter", "--data", "nonsense"], "there is no file nonsense"),
        (["starter", "extra"], "it is not known here"),
    ],
)
def test_mistakes_are_one_line(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["xray", *arguments]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert words in said.err
    assert said.err.count("\n") == 1


def test_the_command_prints_a_table_and_one_document(
    tiny_folder: Callable[[str], Path], chats_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["xray", str(tiny_folder("llama")), "--data", str(chats_file)]
    assert main(command) == 0
    said = capsys.readouterr()
    assert "weights, matrices" in said.out
    assert "layer 1" in said.out
    assert "reading the weights…" in said.err
    assert main([*command, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert {"name", "step", "data", "num_parameters", "bin_centres", "kinds", "notes"} <= set(
        document
    )
    assert [kind["kind"] for kind in document["kinds"]] == ["weights", "gradients"]
    assert len(document["kinds"][0]["layers"][0]["histogram_percent"]) == len(BIN_CENTRES)


def test_the_answer_names_what_it_looked_at(
    tiny_folder: Callable[[str], Path], chats_file: Path
) -> None:
    seen: Xray = xray_model(str(tiny_folder("llama")), str(chats_file), say_nothing)
    assert seen.name == "llama"
    assert seen.data == str(chats_file)
