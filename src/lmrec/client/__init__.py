"""A typed client of the live service, for programs that wait and for asyncio: `pip install 'lmrec[client]'`.

    from lmrec.client import Client

    with Client("http://127.0.0.1:8000", key="...") as service:
        answer = service.recommend("42", k=5, fields=["*"])
        service.send_event("42", answer.items[0].item_id, "click", request_id=answer.request_id)

`AsyncClient` has the same methods, to be awaited. Answers are the models of lmrec.service.schemas.answers.
"""

from lmrec.client.asynchronous import AsyncClient
from lmrec.client.errors import ApiError, UnreachableError
from lmrec.client.synchronous import Client

__all__ = ["ApiError", "AsyncClient", "Client", "UnreachableError"]
