"""Only those are answered who may be: by the name that is called, and by the token."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from engine.contract.bundled import STARTER
from engine.model import LoadedModel, load_model
from engine.serving.app import MOST_BODY_BYTES
from tests.serving import TOKEN, asked, client_of, command_serving, raw, served


@pytest.fixture(scope="module")
def starter() -> LoadedModel:
    return load_model(STARTER)


@pytest.fixture(scope="module")
def port(starter: LoadedModel) -> Iterator[int]:
    with served(starter) as port:
        yield port


@pytest.mark.parametrize(
    ("changes", "status", "code"),
    [
        ({"Host": "evil.example"}, 403, "host_not_allowed"),
        ({"Host": "127.0.0.1"}, 403, "host_not_allowed"),
        ({"Host": "127.0.0.1:1"}, 403, "host_not_allowed"),
        ({"Origin": "http://evil.example"}, 403, "origin_not_allowed"),
        ({"Origin": "null"}, 403, "origin_not_allowed"),
        ({"Sec_Fetch_Site": "cross-site"}, 403, "origin_not_allowed"),
        ({"Content_Type": "text/plain"}, 415, None),
        ({"body": b"{"}, 400, None),
        ({"body": b"[]"}, 400, None),
        ({"body": b"[" * 100_000}, 400, None),
        ({"body": b'{"messages": "' + b"x" * MOST_BODY_BYTES + b'"}'}, 413, "request_too_large"),
        ({"path": "/v1/nothing"}, 404, "not_found"),
        ({"method": "GET"}, 405, "not_found"),
    ],
)
def test_what_no_client_sends_is_refused(
    port: int, changes: dict[str, Any], status: int, code: str | None
) -> None:
    found, document = raw(port, **changes)
    assert found == status
    assert set(document["error"]) == {"message", "type", "param", "code"}
    assert document["error"]["code"] == code
    assert raw(port)[0] == 200


def test_names_of_this_computer_are_answered(port: int) -> None:
    for host in ("localhost", "127.0.0.1", "[::1]"):
        assert raw(port, Host=f"{host}:{port}")[0] == 200


def test_a_token_is_asked_for_where_there_is_one(starter: LoadedModel) -> None:
    with served(starter, TOKEN) as port:
        with client_of(port, TOKEN) as client:
            assert asked(client, max_tokens=1).choices
        for wrong in ("none", TOKEN[:-1], TOKEN + "x", TOKEN.upper()):
            with client_of(port, wrong) as client, pytest.raises(openai.AuthenticationError):
                asked(client)
        assert raw(port)[0] == 401
        assert raw(port, Authorization="Bearer \u00e9".encode())[0] == 401
        assert raw(port, Authorization=f"Bearer {TOKEN}", Origin="http://page")[0] == 200
        assert raw(port, Authorization=f"Bearer {TOKEN}", Host="evil.example")[0] == 403


def test_wrong_tokens_of_one_keep_nobody_else_out(starter: LoadedModel) -> None:
    """Behind a proxy all have one address."""
    with served(starter, TOKEN) as port:
        for _ in range(20):
            assert raw(port, Authorization="Bearer wrong")[0] == 401
        assert raw(port, Authorization=f"Bearer {TOKEN}")[0] == 200


def test_others_are_served_with_a_fresh_token_and_a_warning() -> None:
    with command_serving("--host", "0.0.0.0", "--fresh-token") as (process, port):
        assert process.stdout
        line = process.stdout.readline().decode()
        assert line.startswith("Its token is ")
        token = line.split()[-1]
        assert len(token) >= 32
        assert raw(port, Host="any.name")[0] == 401
        assert raw(port, Host="any.name", Authorization=f"Bearer {token}")[0] == 200
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
        assert b"Warning: the traffic is not encrypted." in said
        assert token.encode() not in said
