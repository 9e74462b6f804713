"""Whatever a person names is found and loaded: a run's result, its checkpoints, any model."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from engine.contract.bundled import STARTER
from engine.contract.errors import RequestError
from engine.contract.run_dir import create_run
from engine.model import LoadedModel, load_model
from engine.preparation import Prepared
from engine.result import load_result, load_target
from engine.target import find_base, find_target, same_model
from tests.talks import Talks, said_by
from tests.tiny import scores

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def talks(tmp_path_factory: pytest.TempPathFactory) -> Talks:
    return Talks(tmp_path_factory.mktemp("talks"))


@pytest.fixture(scope="module")
def lora(talks: Talks) -> Prepared:
    return talks.train("otto", "lora", steps=4)


def same(one: LoadedModel, other: LoadedModel, run: Prepared) -> bool:
    batch = run.batches(1)[0]
    return torch.equal(scores(one.model, batch), scores(other.model, batch))


def test_a_run_is_found_by_name_and_by_folder(talks: Talks, lora: Prepared) -> None:
    run = talks.run("otto")
    for text in ("otto", str(run.path), str(run.export)):
        target = find_target(text, talks.runs)
        assert (target.kind, target.name, target.step) == ("run", "otto", None)
        assert target.folder is not None
        assert target.folder.samefile(run.export)
        assert target.is_adapter
        assert target.is_tuned
        assert same(load_target(target, CPU), lora.loaded, lora)


def test_its_base_is_the_model_it_began_with(talks: Talks, lora: Prepared) -> None:
    target = find_target("otto", talks.runs).base()
    assert same_model(target, find_target(str(talks.base), talks.runs))
    assert same_model(target, find_base("otto", talks.runs))
    assert find_base(str(talks.base), talks.runs) == find_target(str(talks.base), talks.runs)
    assert not same_model(target, find_target("starter", talks.runs))
    assert same(load_target(target, CPU), load_result(talks.base, CPU), lora)


def test_a_run_s_original_is_named_after_the_run(
    talks: Talks, lora: Prepared, tmp_path: Path
) -> None:
    """With the commit that the run pinned, and with the run, whose record it is proven by."""
    run = talks.run("otto")
    for text in ("otto@base", f"{run.path}@base"):
        target = find_target(text, talks.runs)
        assert (target.kind, target.run, target.is_tuned) == ("model", None, False)
        for one in (target, find_base("otto", talks.runs), find_target("otto", talks.runs).base()):
            assert one.original_of is not None
            assert one.original_of.path == run.path
            assert same_model(one, find_target(str(talks.base), talks.runs))
    spec = run.spec()
    model = spec.model.model_copy(update={"source": "owner/model", "revision": "c0ffee"})
    pinned = spec.model_copy(update={"model": model})
    create_run(tmp_path, pinned, "pinned")
    target = find_target("pinned@base", tmp_path)
    assert target.reference is not None
    assert (target.reference.hub_id, target.revision) == ("owner/model", "c0ffee")


def test_a_model_is_a_folder_a_name_or_the_starter(talks: Talks) -> None:
    starter = find_target("starter", talks.runs)
    assert (starter.kind, starter.folder, starter.is_tuned) == ("model", STARTER, False)
    hub = find_target("owner/model", talks.runs)
    assert (hub.kind, hub.folder, hub.name) == ("model", None, "owner/model")
    assert not hub.is_adapter
    assert not same_model(hub, starter)


def test_an_adapter_elsewhere_says_what_its_base_is(
    talks: Talks, lora: Prepared, tmp_path: Path
) -> None:
    copy = shutil.copytree(talks.run("otto").export, tmp_path / "adapter")
    target = find_target(str(copy), talks.runs)
    assert (target.kind, target.run) == ("adapter", None)
    assert same_model(target.base(), find_target(str(talks.base), talks.runs))
    assert same(load_target(target, CPU), lora.loaded, lora)


@pytest.mark.parametrize("method", ["qft", "full", "lomo", "adalomo", "lora", "qlora"])
def test_a_checkpoint_answers_as_an_export_of_its_step_would(
    talks: Talks, method: str, tmp_path: Path
) -> None:
    name = f"of-{method}"
    talks.train(name, method, steps=4)
    until = talks.train(f"until-{method}", method, steps=2)  # the same run, ended at that step
    expected = load_result(talks.run(f"until-{method}").export, CPU)
    checkpoint = talks.run(name).checkpoints / "step-000002"
    for text in (f"{name}@2", str(checkpoint)):
        target = find_target(text, talks.runs)
        assert (target.kind, target.step, target.name) == ("run", 2, f"{name}@2")
        loaded = load_target(target, CPU)
        assert same(loaded, expected, until)
    final = load_target(find_target(name, talks.runs), CPU)
    assert not same(final, expected, until)
    assert said_by(loaded) == said_by(expected)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("otto@3", "otto has no checkpoint of step 3. It has 2."),
        ("nobody@3", "there is no folder and no model called 'nobody@3'"),
        ("", "no model is named"),
        (" \n", "no model is named"),
        ("a\0b", "no model is named"),
        ("x" * 5_000, "there is no folder and no model called"),
    ],
)
def test_what_is_not_there_is_one_sentence(
    talks: Talks, lora: Prepared, text: str, sentence: str
) -> None:
    with pytest.raises(RequestError) as found:
        find_target(text, talks.runs)
    assert sentence in str(found.value)


def test_a_run_without_a_result_says_so(talks: Talks, lora: Prepared, tmp_path: Path) -> None:
    run = shutil.copytree(talks.run("otto").path, tmp_path / "lin")
    (run / "export").rename(run / ".export-new-77")  # as an engine leaves it that was killed
    with pytest.raises(RequestError, match="lin has no result yet"):
        find_target(str(run), talks.runs)
    assert find_base(str(run), talks.runs).kind == "model"
    assert find_target(f"{run}@2", talks.runs).step == 2


def test_a_spoilt_checkpoint_is_refused(talks: Talks, lora: Prepared, tmp_path: Path) -> None:
    run = shutil.copytree(talks.run("otto").path, tmp_path / "otto")
    state = run / "checkpoints" / "step-000002" / "state.safetensors"
    state.write_bytes(state.read_bytes()[:-1] + b"?")
    with pytest.raises(RequestError, match="otto has no whole checkpoint of step 2"):
        load_target(find_target(f"{run}@2", talks.runs), CPU)


def test_a_model_without_a_tokenizer_is_refused(
    tiny_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = shutil.copytree(tiny_folder("llama"), tmp_path / "model")
    assert load_model(folder)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(RequestError, match="has no tokenizer"):
        load_target(find_target(str(folder), tmp_path), CPU)
