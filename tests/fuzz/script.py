"""Reads the bytes that a fuzzer generates as a script: small numbers, texts, and frames that are (almost) valid."""

from nyx_stream.isolation.remote.wire.frames import HEADER, MAX_BODY, VERSION, FrameKind

KINDS = tuple(FrameKind)
BODIES = (
    b"", b"{", b"{}", b"[]", b"1", b"null", b'"x"', b'{"reason":"call"}', b'{"methods":[]}', b'{"env":{}}',
    b'{"methods":[{"name":"n","stream":false,"returns":["dict","str",["tuple...","date"]]}]}',
    b'{"methods":[{"name":"n","stream":true,"returns":["union",["set",["list","int"]],["tuple"],"complex"]}]}',
    b'{"capability":"files","action":"open","arguments":{"path":"x","mode":"wb"}}',
    b'{"capability":"files","action":"write","arguments":{"path":"x","content":"eA=="}}',
    b'{"capability":"approval","action":"request","arguments":{"kind":"connect","target":"a.example","why":"w"}}',
    b'{"capability":"files","action":"announce","arguments":{}}', b'{"2020-01-01":[1,"2020-01-01"]}', b'["eA=="]',
    b'{"level":20,"message":"m"}', b'{"capability":"files","action":"stat","arguments":{"path":"x"}}',
    b'{"reason":"denied","denial":{"capability":"c","action":"a","target":"t","rule":null,"reason":"r","hint":"h"}}',
    b'{"reason":"os","errno":2,"message":"m","filename":"f"}', b'{"reason":"limit","limit":"memory","allowed":1}',
)  # fmt: skip
"""Bodies to begin with; most messages are one of these, changed in a few places."""


class Script:
    """The bytes that are left. At their end every number is 0 and every text empty."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._place = 0

    @property
    def left(self) -> int:
        """Bytes that have not been read yet."""
        return max(0, len(self._data) - self._place)

    def number(self, below: int) -> int:
        """A number from 0 to `below` - 1, from one byte, or from four if one isn't enough."""
        size = 1 if below <= 256 else 4
        return int.from_bytes(self._take(size), "big") % below

    def chance(self, of: int) -> bool:
        """True in one case of `of`."""
        return self.number(of) == of - 1

    def text(self) -> bytes:
        """Some bytes, at most 255."""
        return self._take(self.number(256))

    def body(self) -> bytes:
        """A known body, a truncated, extended or changed one, or any bytes."""
        choice = self.number(len(BODIES) + 1)
        if choice == len(BODIES):
            return self.text()
        body = bytearray(BODIES[choice])
        for _ in range(self.number(4)):
            place = self.number(256)
            body[place : place + self.number(4)] = self.text()
        return bytes(body)

    def frame(self) -> bytes:
        """A valid frame, an almost valid one, or any bytes."""
        if self.chance(8):
            return self.text()
        body = self.body()
        kind = 0x199 if self.chance(32) else int(KINDS[self.number(len(KINDS))])
        length = (len(body) + 1, 0, MAX_BODY, 2**32 - 1)[self.number(4)] if self.chance(16) else len(body)
        version = VERSION + self.chance(32)
        descriptors = self.number(12) if self.chance(8) else 0
        return HEADER.pack(length, version, descriptors, kind, self.number(5), self.number(8)) + body

    def _take(self, size: int) -> bytes:
        taken = self._data[self._place : self._place + size]
        self._place += size
        return taken
