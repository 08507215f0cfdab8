"""The one shape of every error, ``{"error": {"code", "reason"}}``: a code for programs, words for people."""

from __future__ import annotations

from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

HTTP_CODES: Final = {404: "NotFound", 405: "MethodNotAllowed", 400: "BadRequest", 413: "TooLarge"}
"""Codes for what the framework itself refuses."""


class ApiError(Exception):
    """A refusal with an HTTP status, a stable code and a reason for people."""

    def __init__(self, status: int, code: str, reason: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(reason)
        self.status, self.code, self.reason, self.headers = status, code, reason, headers


def error_answer(status: int, code: str, reason: str, headers: Any = None) -> JSONResponse:
    """An error as it leaves."""
    return JSONResponse({"error": {"code": code, "reason": reason}}, status_code=status, headers=headers)


def one_error_shape(app: FastAPI) -> None:
    """Let everything that ``app`` refuses have it, the framework's own refusals included."""

    @app.exception_handler(ApiError)
    async def _refused(_: Request, error: ApiError) -> JSONResponse:
        return error_answer(error.status, error.code, error.reason, error.headers)

    @app.exception_handler(RequestValidationError)
    async def _invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        return error_answer(400, "BadRequest", f"{where}: {first['msg']}")

    @app.exception_handler(HTTPException)
    async def _http(_: Request, error: HTTPException) -> JSONResponse:
        code = HTTP_CODES.get(error.status_code, "Http")
        return error_answer(error.status_code, code, str(error.detail), error.headers)
