"""The dialect of two servers' own routes that share the path ``/generate``: TGI and SGLang.

Which of them is meant is told by the request: TGI completes ``inputs``, SGLang ``text`` or ``input_ids``. The response
has to be of the same form, or the exchange fails closed. The forms are in ``tgi`` and ``sglang``.

Errors that come before a response has begun are in TGI's shape, unless the upstream's own is in SGLang's.
"""

from cotguard.dialects.contract import ErrorKind, Incoming, Prepared
from cotguard.dialects.raw_text.sglang import Sglang, SglangStream
from cotguard.dialects.raw_text.stream import read_results
from cotguard.dialects.raw_text.tgi import Tgi, TgiStream
from cotguard.dialects.request import bad, read_body
from cotguard.dialects.tabled import TabledDialect
from cotguard.framing.json import dumps
from cotguard.moderation.exchange import Exchange

__all__ = ["Generate"]


class Generate(TabledDialect):
    """A :class:`~cotguard.dialects.contract.Dialect`."""

    file = "raw_text/generate.yaml"

    def __init__(self, table: str | None = None) -> None:
        super().__init__(table)
        self._tgi = Tgi(self.table)
        self._sglang = Sglang(self.table)

    def prepare(self, request: Incoming) -> Prepared:
        body = read_body(request.body)
        tgi, sglang = "inputs" in body, "text" in body or "input_ids" in body
        if tgi is sglang or (sglang and request.route.action != "generate"):
            raise bad("Send 'inputs', as TGI takes them, or to /generate 'text' or 'input_ids', as SGLang does.")
        return self._tgi.prepare(body, request.route.action) if tgi else self._sglang.prepare(body)

    def _form(self, prepared: Prepared) -> Tgi | Sglang:
        return self._sglang if prepared.action == self._sglang.name else self._tgi

    def stream(self, prepared: Prepared, exchange: Exchange, content_type: str) -> TgiStream | SglangStream | None:
        if content_type != "text/event-stream":
            return None
        return self._form(prepared).stream(prepared, exchange)

    def body(self, data: bytes, prepared: Prepared, exchange: Exchange) -> bytes:
        results, listed = read_results(data, prepared.reported)
        written = self._form(prepared).results(results, prepared, exchange)
        return dumps(written if listed else written[0])

    def error(self, kind: ErrorKind, message: str) -> bytes:
        return dumps({"error": message, "error_type": kind.value})

    def reported(self, error: object, message: str) -> dict[str, object]:
        if isinstance(error, dict) and isinstance(error.get("error"), dict):
            return self._sglang.reported(message)
        return self._tgi.reported(error, message)
