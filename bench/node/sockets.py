#!/usr/bin/env python3
"""Websockets for measuring content.

  sockets.py echo PORT PATH COUNT SECONDS   messages of 100 bytes to and fro on COUNT connections; figures as JSON
  sockets.py shiny PORT PATH COUNT          COUNT sessions of a Shiny app as our script begins them; then `ready`, until killed
"""
import asyncio
import json
import re
import struct
import sys
import time

BYTES = 100
INIT = b'm{"method":"init","data":{"n":2,".clientdata_output_square_hidden":false}}'


def frame(opcode, data):
    """Masked with zeroes, so that nobody has to spend time on unmasking."""
    length = bytes([0x80 | len(data)]) if len(data) < 126 else b"\xfe" + struct.pack(">H", len(data))
    return bytes([0x80 | opcode]) + length + b"\0\0\0\0" + data


async def next_frame(reader):
    first, second = await reader.readexactly(2)
    n = second & 0x7F
    if n == 126:
        n = struct.unpack(">H", await reader.readexactly(2))[0]
    elif n == 127:
        n = struct.unpack(">Q", await reader.readexactly(8))[0]
    return first & 0xF, await reader.readexactly(n)


async def opened(port, path, *fields):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    more = "".join(f"{field}\r\n" for field in fields)
    writer.write((f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n{more}"
                  "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n").encode())
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 60)
    assert b" 101 " in head.split(b"\r\n")[0], head
    return reader, writer


async def echo(port, path, count, seconds):
    sockets = [await opened(port, path) for _ in range(count)]
    took, sent = [], frame(2, b"x" * BYTES)
    began = time.perf_counter()

    async def one(reader, writer):
        while time.perf_counter() - began < seconds:
            at = time.perf_counter()
            writer.write(sent)
            opcode, data = await asyncio.wait_for(next_frame(reader), 30)
            assert opcode == 2 and len(data) == BYTES, (opcode, data)
            took.append(time.perf_counter() - at)

    await asyncio.gather(*[one(*pair) for pair in sockets])
    lasted = time.perf_counter() - began
    took.sort()
    print(json.dumps({"n": len(took), "seconds": lasted, "per_s": len(took) / lasted, "p50_ms": took[len(took) // 2] * 1e3,
                      "p99_ms": took[len(took) * 99 // 100] * 1e3}))


async def page(port, path):
    """The cookies of a page."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAccept: text/html\r\nConnection: close\r\n\r\n".encode())
    head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 60)).decode()
    writer.close()
    return "; ".join(re.findall(r"(?im)^set-cookie: *([^;\r\n]+)", head))


async def shiny(port, path, count):
    cookies = await page(port, path)
    sockets = []
    for _ in range(count):
        reader, writer = await opened(port, f"{path}websocket/", f"Cookie: {cookies}", "Sec-WebSocket-Protocol: bowline.resume.1")
        writer.write(frame(1, INIT))
        got = 0
        # The app has answered all when it is idle again.
        while True:
            _, data = await asyncio.wait_for(next_frame(reader), 60)
            got += data.startswith(b"m")
            if b'"values"' in data and b"square" in data:
                break
        writer.write(frame(1, f"a{got}".encode()))
        sockets.append((reader, writer))
    print("ready", flush=True)
    await asyncio.sleep(3600)


if __name__ == "__main__":
    kind, to, where, many = sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
    asyncio.run(echo(to, where, many, float(sys.argv[5])) if kind == "echo" else shiny(to, where, many))
