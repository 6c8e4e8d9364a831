"""The console: a page and its parts, each file a route of its own, so that nothing else of the disk can be asked for."""

import mimetypes
from collections.abc import Awaitable, Callable
from pathlib import Path

from fastapi import FastAPI, Request
from starlette.responses import FileResponse, Response

FOLDER = Path(__file__).parents[1] / "console"
_PAGE = "index.html"


def add_console(app: FastAPI, folder: Path = FOLDER) -> None:
    """Serve the files of `folder` under their names, and its page at `/`."""
    for file in sorted(path for path in folder.rglob("*") if path.is_file() and path.name[0] not in "._"):
        path = file.relative_to(folder).as_posix()
        app.add_api_route("/" if path == _PAGE else f"/{path}", _sender(file), include_in_schema=False)


def _sender(file: Path) -> Callable[[Request], Awaitable[Response]]:
    media_type = mimetypes.guess_type(file.name)[0] or "application/octet-stream"

    async def send(request: Request) -> Response:
        # The browser asks each time whether the file has changed: an upgrade is seen at once, and costs one short answer.
        return FileResponse(file, media_type=media_type, headers={"Cache-Control": "no-cache"})

    return send
