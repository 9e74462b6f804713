"""The routes of the served model: which models there are, and a chat's next message."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from engine.contract.errors import RequestError
from engine.generate import Reply
from engine.serving.answerer import Answerer, BusyError, NoAnswerError, Ticket
from engine.serving.wire import (
    DONE,
    Completion,
    error_document,
    error_event,
    finish_reason,
    model_document,
    question_in,
)

MOST_BODY_BYTES = 4 << 20
_LOOK_EVERY_S = 0.1
_USUAL_CONTEXT = 4096


class _Refused(Exception):
    """What is answered instead."""

    def __init__(self, status: int, message: str, **fields: str | None) -> None:
        super().__init__(message)
        kind = "server_error" if status >= 500 else "invalid_request_error"
        self.response = JSONResponse(error_document(message, kind, **fields), status)


def make_app(answerer: Answerer, name: str, context: int | None) -> FastAPI:
    """OpenAI's interface to one model.

    Args:
        answerer: What answers.
        name: What the model is called.
        context: Tokens that it reads; None if it sets no limit.
    """
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    about = model_document(name, int(time.time()))

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [about]}

    @app.get("/v1/models/{wish:path}")
    async def model(wish: str) -> Response:
        return JSONResponse(about) if wish == name else _unknown_model(wish, name).response

    @app.post("/v1/chat/completions")
    async def chat(request: Request) -> Response:
        try:
            return await _answered(request, answerer, name, context or _USUAL_CONTEXT)
        except (_Refused, RequestError, BusyError, NoAnswerError) as error:
            return _refusal_for(error).response

    @app.exception_handler(HTTPException)
    async def not_here(request: Request, error: HTTPException) -> Response:
        sentence = f"There is no {request.method} {request.url.path} here."
        return _Refused(error.status_code, sentence, code="not_found").response

    del models, model, chat, not_here
    return app


def _refusal_for(error: Exception) -> _Refused:
    if isinstance(error, _Refused):
        return error
    if isinstance(error, RequestError):
        sentence = f"{error.field}: {error.message} {error.advice}".strip()
        return _Refused(400, sentence, param=error.field)
    if isinstance(error, BusyError):
        sentence = "Too many questions wait already. Ask again in a moment."
        return _Refused(429, sentence, code="queue_full")
    return _Refused(500, str(error))


async def _answered(request: Request, answerer: Answerer, name: str, context: int) -> Response:
    document = await _document(request)
    if document.get("model") not in (None, name):
        raise _unknown_model(str(document["model"]), name)
    question = question_in(document, context)
    ticket, completion = answerer.ask(question), Completion(name)
    if question.is_streamed:
        return await _streamed(request, ticket, completion)
    return JSONResponse(await _whole(request, ticket, completion))


def _unknown_model(wish: str, name: str) -> _Refused:
    sentence = f"There is no model {wish[:100]!r} here, but {name!r}."
    return _Refused(404, sentence, code="model_not_found", param="model")


async def _document(request: Request) -> dict[str, Any]:
    """The request's body.

    Raises:
        _Refused: It is too large, or no JSON object.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":  # a page may send anything else without asking first
        raise _Refused(415, "The body has to be application/json.")
    declared = request.headers.get("content-length", "0")
    body = bytearray()
    if not declared.isdecimal() or int(declared) > MOST_BODY_BYTES:
        raise _too_large()
    try:
        async for part in request.stream():
            body += part
            if len(body) > MOST_BODY_BYTES:
                raise _too_large()
    except ClientDisconnect as error:
        raise _Refused(400, "The request was cut off.") from error
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise _Refused(400, "The body is no JSON object.")
    return document


def _too_large() -> _Refused:
    limit = MOST_BODY_BYTES >> 20
    return _Refused(413, f"The request is larger than {limit} MB.", code="request_too_large")


async def _whole(request: Request, ticket: Ticket, completion: Completion) -> dict[str, Any]:
    text = ""
    async with _stopped_when_gone(request, ticket):
        async for event in ticket.events():
            if isinstance(event, Reply):
                return completion.whole(text, event)
            text += event
    raise AssertionError("a ticket ends with its reply")


@asynccontextmanager
async def _stopped_when_gone(request: Request, ticket: Ticket) -> AsyncIterator[None]:
    """Meanwhile a client that goes away ends its answer, and so does an error."""
    watch = asyncio.create_task(_watch(request, ticket))
    try:
        yield
    except BaseException:
        ticket.stop()
        raise
    finally:
        watch.cancel()
        with suppress(asyncio.CancelledError):
            await watch


async def _watch(request: Request, ticket: Ticket) -> None:
    while not await request.is_disconnected():
        await asyncio.sleep(_LOOK_EVERY_S)
    ticket.stop()


async def _streamed(request: Request, ticket: Ticket, completion: Completion) -> Response:
    """Begins when the first piece is there, so that a refusal is still an error's status."""
    events = ticket.events()
    async with _stopped_when_gone(request, ticket):
        first = await anext(events)
    return StreamingResponse(
        _chunks(first, events, ticket, completion), media_type="text/event-stream"
    )


async def _chunks(
    first: str | Reply, events: AsyncIterator[str | Reply], ticket: Ticket, completion: Completion
) -> AsyncIterator[str]:
    """A client that goes away cancels this, and with it the answer."""
    try:
        yield completion.chunk({"role": "assistant", "content": ""})
        event: str | Reply = first
        while not isinstance(event, Reply):
            yield completion.chunk({"content": event})
            event = await anext(events)
        yield completion.chunk({}, finish_reason(event))
        if ticket.question.wants_usage:
            yield completion.usage_chunk(event)
    except NoAnswerError as error:
        yield error_event(str(error))
    finally:
        ticket.stop()
    yield DONE
