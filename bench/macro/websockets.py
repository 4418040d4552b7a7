#!/usr/bin/env python3
"""The websocket and keep-alive ends of the memory cases.

  websockets.py echo PORT                  an upstream that answers 101 and echoes bytes
  websockets.py hold PORT (plain|tls) KIND  a client that holds connections and obeys lines on stdin:
                                           `open N`, `big` (one 64 KiB echo each), `alive`
KIND is `ws` or `http` (keep-alive connections that each served one request for /1k).
"""
import asyncio
import base64
import hashlib
import re
import ssl
import struct
import sys

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
UPGRADE = (
    b"GET /ws HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


async def echo(reader, writer):
    try:
        head = await reader.readuntil(b"\r\n\r\n")
        key = re.search(rb"(?i)sec-websocket-key: *(\S+)", head).group(1)
        accept = base64.b64encode(hashlib.sha1(key + GUID).digest())
        writer.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
        )
        while True:
            first, second = await reader.readexactly(2)
            n = second & 0x7F
            extended = await reader.readexactly(2) if n == 126 else b""
            n = struct.unpack(">H", extended)[0] if extended else n
            await reader.readexactly(4)  # the masking key, all zeroes: see `frame`
            writer.write(bytes([first, second & 0x7F]) + extended + await reader.readexactly(n))
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError, AttributeError):
        pass
    finally:
        writer.close()


async def serve(port):
    server = await asyncio.start_server(echo, "127.0.0.1", port, backlog=4096)
    async with server:
        await server.serve_forever()


def frame(n):
    """A binary frame of n < 65536 bytes, masked with zeroes so that nobody has to spend time on unmasking."""
    mask = b"\x00\x00\x00\x00"
    if n < 126:
        head = bytes([0x82, 0x80 | n])
    else:
        head = b"\x82\xfe" + struct.pack(">H", n)
    return head + mask + b"x" * n


async def one(port, context, kind):
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", port, ssl=context, server_hostname="localhost" if context else None, limit=1 << 17
    )
    if kind == "http":
        writer.write(b"GET /1k HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 20)
        await asyncio.wait_for(reader.readexactly(1024), 20)
    else:
        writer.write(UPGRADE)
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 20)
        assert b" 101 " in head.split(b"\r\n")[0], head
        await echoed(reader, writer, 100)
    return reader, writer


async def echoed(reader, writer, n):
    sent = frame(n)
    writer.write(sent)
    await writer.drain()
    await asyncio.wait_for(reader.readexactly(len(sent) - 4), 30)


async def hold(port, tls, kind):
    context = None
    if tls:
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    held = []
    lines = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    while words := (await lines.readline()).split():
        alive = len(held)
        if words[0] == b"open":
            while len(held) < int(words[1]):
                held += await asyncio.gather(*[one(port, context, kind) for _ in range(50)])
        elif words[0] == b"big":
            for i in range(0, len(held), 50):
                await asyncio.gather(*[echoed(r, w, 65000) for r, w in held[i : i + 50]])
        elif words[0] == b"alive":
            results = await asyncio.gather(*[echoed(r, w, 10) for r, w in held], return_exceptions=True)
            alive = sum(r is None for r in results)
        print("ok", alive, len(held), flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "echo":
        asyncio.run(serve(int(sys.argv[2])))
    else:
        asyncio.run(hold(int(sys.argv[2]), sys.argv[3] == "tls", sys.argv[4]))
