"""Malformed and hostile requests that a server must refuse."""

from __future__ import annotations

import base64
import io
import json
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

HEAD, CLOSE = "Host: localhost\r\n", "Connection: close\r\n"


@dataclass(frozen=True)
class Hostile:
    """One request, which must get a 4xx reply with one sentence."""

    name: str
    path: str
    body: bytes = b""
    method: str = "POST"
    headers: dict[str, str] = field(default_factory=dict)


def hostile_requests(photos: dict[str, bytes], infer: str) -> list[Hostile]:
    """All requests, given one image in several formats and the path of inference."""
    return [
        *_damaged_files(photos),
        *_bombs(photos["PNG"]),
        *_other_formats(),
        *_forms(photos["PNG"]),
        *_malformed_bodies(infer),
        *_wrong_requests(photos["PNG"], infer),
        *_wrong_binary_requests(photos["PNG"], infer),
        *_unknown_paths(infer),
    ]


def raw_requests() -> dict[str, bytes]:
    """Bytes that are not valid HTTP/1.1."""
    get = "GET /health HTTP/1.1\r\n"
    post = f"POST /predict HTTP/1.1\r\n{HEAD}"
    texts = {
        "not http": "hello\r\n\r\n",
        "no host": f"{get}\r\n",
        "two hosts": f"{get}{HEAD}{HEAD}\r\n",
        "no version": f"GET /health\r\n{HEAD}\r\n",
        "space in the address": f"GET /hea lth HTTP/1.1\r\n{HEAD}\r\n",
        "null in the address": f"GET /hea\0lth HTTP/1.1\r\n{HEAD}\r\n",
        "null in a header": f"{get}{HEAD}X: a\0b\r\n\r\n",
        "header without colon": f"{get}{HEAD}nonsense\r\n\r\n",
        "header name with a space": f"{get}{HEAD}X : y\r\n\r\n",
        "length is no number": f"{post}Content-Length: ten\r\n\r\n",
        "length is negative": f"{post}Content-Length: -1\r\n\r\n",
        "lengths differ": f"{post}Content-Length: 1\r\nContent-Length: 2\r\n\r\n",
        "length is giant": f"{post}Content-Length: {10**30}\r\n\r\n",
        "unknown encoding": f"{post}Transfer-Encoding: gzip\r\n\r\n",
        "two encodings": f"{post}Transfer-Encoding: chunked, gzip\r\n\r\n",
        "chunk size is no number": f"{post}Transfer-Encoding: chunked\r\n\r\nxyz\r\n",
        "chunk size is negative": f"{post}Transfer-Encoding: chunked\r\n\r\n-5\r\n",
        "chunk size is giant": f"{post}Transfer-Encoding: chunked\r\n\r\n{'f' * 40}\r\n",
        "climbs": f"GET /../../../etc/passwd HTTP/1.1\r\n{HEAD}{CLOSE}\r\n",
        "climbs by backslash": f"GET /..\\..\\etc HTTP/1.1\r\n{HEAD}{CLOSE}\r\n",
        "other place": f"GET http://evil.example/ HTTP/1.1\r\n{HEAD}{CLOSE}\r\n",
        "proxy": f"CONNECT evil.example:443 HTTP/1.1\r\n{HEAD}{CLOSE}\r\n",
        "upgrade": f"GET /nowhere HTTP/1.1\r\n{HEAD}Connection: Upgrade, close\r\nUpgrade: websocket\r\n\r\n",
    }
    raw = {name: text.encode("latin-1") for name, text in texts.items()}
    return raw | {
        "TLS": bytes.fromhex("160301020001000 1fc0303".replace(" ", "")) + bytes(200) + b"\r\n\r\n",
        "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "bytes above 127": b"GET /\xff\xfe HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "one endless line": b"G" * 300_000,
    }


def _damaged_files(photos: dict[str, bytes]) -> Iterator[Hostile]:
    for kind, file in photos.items():
        for fraction in (0.0, 0.002, 0.01, 0.05, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9):
            yield Hostile(f"{kind} cut off at {fraction:.1%}", "/predict", file[: int(fraction * len(file))])
        yield Hostile(f"{kind} behind other bytes", "/predict", b"\0" * 64 + file)
        yield Hostile(
            f"{kind} with zeros for its first half", "/predict", bytes(len(file) // 2) + file[len(file) // 2 :]
        )
        yield Hostile(f"{kind} as text", "/predict", base64.b64encode(file))
        yield Hostile(f"{kind} to explain", "/explain", file[:40])
    for other in ("JPEG", "TIFF", "BMP", "WEBP"):
        yield Hostile(f"PNG that begins as {other}", "/predict", photos[other][:16] + photos["PNG"][16:])


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _png(width: int, height: int, depth: int = 8, colour: int = 0, data: bytes = b"", more: bytes = b"") -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    packed = _chunk(b"IDAT", zlib.compress(data, 9))
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + more + packed + _chunk(b"IEND", b"")


def _bombs(png: bytes) -> Iterator[Hostile]:
    for width, height in ((0, 0), (0, 9), (9, 0), (9_500, 9_500), (100_000, 1_000), (2**31 - 1, 2**31 - 1), (4_000, 1)):
        yield Hostile(f"PNG of {width} x {height}", "/predict", _png(width, height))
        yield Hostile(f"BMP of {width} x {height}", "/predict", _bmp(width, height))
        yield Hostile(f"TIFF of {width} x {height}", "/predict", _tiff(width, height))
    yield Hostile("PNG whose pixels unfold", "/predict", _png(30_000, 30_000, data=bytes(1 << 24)))
    for kind in (b"zTXt", b"iTXt", b"iCCP"):
        packed = zlib.compress(bytes(1 << 26), 9)
        payload = {b"zTXt": b"a\0\0", b"iTXt": b"a\0\1\0\0\0", b"iCCP": b"a\0\0"}[kind] + packed
        yield Hostile(f"PNG whose {kind.decode()} unfolds", "/predict", _png(9_500, 9_500, more=_chunk(kind, payload)))
    yield Hostile("PNG of no known depth", "/predict", _png(8, 8, depth=77))
    yield Hostile("PNG of no known colour", "/predict", _png(8, 8, colour=5))
    yield Hostile("PNG with a giant chunk", "/predict", png[:8] + b"\xff\xff\xff\xffIHDR" + png[16:])
    yield Hostile("PNG of chunks without end", "/predict", png[:33] + _chunk(b"tEXt", b"a\0b") * 20_000)


def _bmp(width: int, height: int) -> bytes:
    size = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54 + 12, 0, 0, 54) + size + bytes(12)


def _tiff(width: int, height: int) -> bytes:
    tags = [(256, width), (257, height), (258, 8), (259, 1), (262, 1), (273, 8), (277, 1), (278, height), (279, 12)]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", len(tags)) + entries + bytes(16)


def _other_formats() -> Iterator[Hostile]:
    image = Image.new("RGB", (32, 32))
    for kind in ("GIF", "ICO", "PPM", "TGA", "PCX", "SGI", "PDF", "EPS", "JPEG2000", "DDS", "ICNS"):
        stream = io.BytesIO()
        image.save(stream, kind)
        yield Hostile(f"a {kind} file", "/predict", stream.getvalue())
    texts = {
        "SVG": b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
        "XML": b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><a>&b;</a>',
        "script": b"<script>alert(1)</script>",
        "address": b"http://127.0.0.1:1/a.png",
        "path": b"/etc/passwd",
        "pickle": b"\x80\x04\x95cposix\nsystem\n(S'true'\ntR.",
        "zip": b"PK\x03\x04" + bytes(60),
        "gzip": b"\x1f\x8b\x08" + bytes(60),
        "ELF": b"\x7fELF" + bytes(60),
        "EPS that asks": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/etc/passwd) (r) file\n",
        "nothing": b"",
        "zeros": bytes(5000),
        "ones": b"\xff" * 5000,
    }
    for name, body in texts.items():
        yield Hostile(f"{name} for an image", "/predict", body)


def _forms(png: bytes) -> Iterator[Hostile]:
    kind = {"Content-Type": "multipart/form-data; boundary=x"}
    part = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
    bodies = {
        "empty": b"",
        "without an end": part + png[:100],
        "without parts": b"--x--\r\n",
        "another field": part.replace(b'"file"', b'"image"') + png + b"\r\n--x--\r\n",
        "file that is text": b'--x\r\nContent-Disposition: form-data; name="file"\r\n\r\nhello\r\n--x--\r\n',
        "two files": (part + png + b"\r\n") * 2 + b"--x--\r\n",
        "ten files": (part + png + b"\r\n") * 10 + b"--x--\r\n",
        "a thousand fields": b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\nb\r\n' * 1000 + b"--x--\r\n",
        "no disposition": b"--x\r\n\r\n" + png + b"\r\n--x--\r\n",
        "giant header": b"--x\r\nX: " + b"y" * 100_000 + b"\r\n\r\n" + png + b"\r\n--x--\r\n",
        "many headers": b"--x\r\n" + b"X: y\r\n" * 10_000 + b"\r\n" + png + b"\r\n--x--\r\n",
        "other boundary": part.replace(b"--x", b"--y") + png + b"\r\n--y--\r\n",
        "bytes": bytes(range(256)) * 40,
        "empty file": part + b"\r\n--x--\r\n",
    }
    for name, body in bodies.items():
        yield Hostile(f"form: {name}", "/predict", body, headers=kind)
    for wrong in (
        "multipart/form-data",
        "multipart/form-data; boundary=",
        f"multipart/form-data; boundary={'z' * 3000}",
    ):
        yield Hostile(f"form: {wrong[:50]}", "/predict", part + png, headers={"Content-Type": wrong})
    for charset in ("undefined", "punycode", "idna", "no such", "base64"):
        headers = {"Content-Type": f"multipart/form-data; boundary=x; charset={charset}"}
        field = b'--x\r\nContent-Disposition: form-data; name="\xe9-"\r\n\r\n\xe9-\r\n--x--\r\n'
        yield Hostile(f"form: charset {charset}", "/predict", field, headers=headers)


def _malformed_bodies(infer: str) -> Iterator[Hostile]:
    bodies = {
        "nothing": b"",
        "space": b"   ",
        "null": b"null",
        "a list": b"[]",
        "a number": b"7",
        "a text": b'"inputs"',
        "an empty object": b"{}",
        "half an object": b'{"inputs": [',
        "no JSON": b"inputs=1",
        "single quotes": b"{'inputs': []}",
        "not UTF-8": b'{"inputs": "\xff\xfe"}',
        "half a character": b'{"inputs": "\\ud800"}',
        "UTF-16": '{"inputs": []}'.encode("utf-16"),
        "deep lists": b"[" * 200_000,
        "deep objects": b'{"a":' * 100_000,
        "deep data": b'{"inputs":[{"name":"images","datatype":"UINT8","shape":[1,1,1,3],"data":' + b"[" * 50_000,
        "deep and closed": b'{"x":' + b"[" * 3_000 + b"]" * 3_000 + b"}",
        "a giant number": b'{"inputs":' + b"9" * 500_000 + b"}",
        "a number beyond all": b'{"inputs": 1e999999}',
        "not a number": b'{"inputs": [NaN]}',
        "infinity": b'{"inputs": [Infinity]}',
        "many keys": b"{" + b",".join(b'"%d":0' % number for number in range(80_000)) + b"}",
        "one key often": b"{" + b",".join([b'"inputs":[]'] * 50_000) + b"}",
        "many empty objects": b'{"inputs":[' + b",".join([b"{}"] * 200_000) + b"]}",
        "YAML": b"inputs: !!python/object/apply:os.system [true]",
        "an image": b"\x89PNG\r\n\x1a\n",
    }
    for name, body in bodies.items():
        yield Hostile(f"infer: {name}", infer, body)


def _wrong_requests(png: bytes, infer: str) -> Iterator[Hostile]:
    text = base64.b64encode(png).decode()
    good: dict[str, Any] = {"name": "images", "datatype": "BYTES", "shape": [1], "data": [text]}
    pixels: dict[str, Any] = {"name": "images", "datatype": "UINT8", "shape": [1, 1, 2, 3], "data": [0] * 6}
    wrong: list[Any] = [None, 7, "x", [], {}, True, -1, 1.5, [None], [[]], 10**30]
    for key in good:
        for value in wrong:
            yield _json(f"{key} is {str(value)[:20]!r}", infer, {"inputs": [{**good, key: value}]})
        yield _json(f"no {key}", infer, {"inputs": [{name: item for name, item in good.items() if name != key}]})
    for shape in ([], [0], [2], [-1], [1, 1], [10**18], [2**63], [1.0], ["1"], [True], [[1]], [1] * 9):
        yield _json(f"files of shape {shape}", infer, {"inputs": [{**good, "shape": shape}]})
    for shape in (
        [6],
        [1, 6],
        [1, 1, 2, 4],
        [1, 2, 2, 3],
        [2, 1, 1, 4],
        [10**6, 10**6, 10**6, 3],
        [1, 0, 2, 3],
        [9, 1, 2, 3],
    ):
        yield _json(f"pixels of shape {shape}", infer, {"inputs": [{**pixels, "shape": shape}]})
    numbers: list[Any] = [-1, 256, 0.5, 1e300, 10**40, "0", None, True, [0], {}, "x" * 100_000]
    for number in numbers:
        yield _json(f"a pixel of {str(number)[:12]}", infer, {"inputs": [{**pixels, "data": [0] * 5 + [number]}]})
    nested: list[Any] = [
        [[[[0, 0, 0]]]],
        [[[[0, 0, 0], [0, 0]]]],
        [[[[0, 0, 0], 0]]],
        [[[0, 0, 0], [0, 0, 0]]],
        [[[[[0, 0, 0], [0, 0, 0]]]]],
        [[[[0, 0, 0], [0, 0, 256]]]],
        [[[[0, 0, 0], [0, 0, None]]]],
        [[]],
        [0, [0], 0, 0, 0, 0],
    ]
    for number, data in enumerate(nested):
        yield _json(f"ragged {number}", infer, {"inputs": [{**pixels, "data": data}]})
    for data in ("###", text[:-3] + "\n\n=", text[:41], "é" * 40, "../../etc/passwd", "file:///etc/passwd", ""):
        yield _json(f"base64 {data[:12]!r}", infer, {"inputs": [{**good, "data": [data]}]})
    for kind in ("FP32", "INT64", "uint8", "bytes", "", "UINT8 ", "BYTES\0", "__class__"):
        yield _json(f"datatype {kind!r}", infer, {"inputs": [{**good, "datatype": kind}]})
    yield _json("no inputs", infer, {"inputs": []})
    yield _json("two inputs", infer, {"inputs": [good, good]})
    yield _json("too many images", infer, {"inputs": [{**good, "shape": [9], "data": [text] * 9}]})
    yield _json("id is a number", infer, {"id": 7, "inputs": [good]})
    yield _json("id is endless", infer, {"id": "x" * 100_000, "inputs": [good]})
    for more in ({"shared_memory_region": "r"}, {"classification": 2}, {"binary_data": "yes"}):
        yield _json(
            f"output with {more}", infer, {"inputs": [good], "outputs": [{"name": "probabilities", "parameters": more}]}
        )
    yield _json("unknown output", infer, {"inputs": [good], "outputs": [{"name": "secrets"}]})
    yield _json("many outputs", infer, {"inputs": [good], "outputs": [{"name": "probabilities"}] * 1000})


def _wrong_binary_requests(png: bytes, infer: str) -> Iterator[Hostile]:
    file = len(png).to_bytes(4, "little") + png

    def request(name: str, after: bytes, length: Any = None, **changes: Any) -> Hostile:
        tensor = {"name": "images", "datatype": "BYTES", "shape": [1], **changes}
        head = json.dumps({"inputs": [{"parameters": {"binary_data_size": len(after)}, **tensor}]}).encode()
        headers = {"Inference-Header-Content-Length": str(len(head) if length is None else length)}
        return Hostile(f"binary: {name}", infer, head + after, headers=headers)

    for length in (0, 1, 10**9, 10**40, -3, "ten", "1_0", "0x10", ""):
        yield request(f"length {str(length)[:9]!r}", file, length)
    for size in (0, len(file) - 1, len(file) + 1, 2**63, -1, 1.5, "9", [], True):
        yield request(f"size {str(size)[:9]!r}", file, parameters={"binary_data_size": size})
    for parameters in (None, 7, [], {}, {"binary_data_size": None}, {"shared_memory_region": "r"}):
        yield request(f"parameters {parameters}", file, parameters=parameters)
    for name, after in {
        "cut off": file[:-5],
        "more": file + b"more",
        "only a length": file[:4],
        "half a length": file[:2],
        "nothing": b"",
        "a giant length": b"\xff\xff\xff\xff" + png,
        "too many": bytes(4) * 200_000,
    }.items():
        yield request(name, after)
    yield request("JSON as well", file, data=["aaaa"])
    yield request("other shape", file, shape=[2])
    yield request("pixels", bytes(11), datatype="UINT8", shape=[1, 2, 2, 3])
    yield request("more pixels", bytes(13), datatype="UINT8", shape=[1, 2, 2, 3])
    yield request("giant pixels", bytes(12), datatype="UINT8", shape=[1, 1 << 20, 1 << 20, 3])
    yield Hostile("binary without a length", infer, request("", file).body)
    yield Hostile("compressed", "/predict", png, headers={"Content-Encoding": "gzip"})


def _json(name: str, path: str, content: Any) -> Hostile:
    return Hostile(f"infer: {name}", path, json.dumps(content).encode())


def _unknown_paths(infer: str) -> Iterator[Hostile]:
    climbing = ("/%2e%2e/%2e%2e/etc/passwd", "/..%2f..%2fetc%2fpasswd", "/static/../page.html", "/page.html", "/%00")
    models = ("%2e%2e", "..%2f..%2fetc", "steel%2f..", "steel%00", "STEEL", "steel.", "x" * 5000, "é", "{name}")
    for path in (
        *climbing,
        "/docs",
        "/openapi.json",
        "/admin",
        "/shutdown",
        "/v2/repository/index",
        "/.env",
        "/v2/",
    ):
        for method in ("GET", "POST"):
            yield Hostile(f"{method} {path}", path, method=method)
    for name in models:
        yield Hostile(f"model {name[:20]}", f"/v2/models/{name}", method="GET")
        yield Hostile(f"infer with {name[:20]}", f"/v2/models/{name}/infer", b"{}")
    for version in ("0", "2", "latest", "1.0", "01", "%31%31", ".."):
        yield Hostile(f"version {version}", f"{infer.rpartition('/')[0]}/versions/{version}/infer", b"{}")
    for method in ("GET", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "HEAD", "FOO"):
        yield Hostile(f"{method} /predict", "/predict", method=method)
    for path in ("/", "/metrics", "/health", "/v2"):
        yield Hostile(f"POST {path}", path)
    yield Hostile("giant header", "/predict", headers={"X-Giant": "y" * 50_000})
    yield Hostile("many headers", "/predict", headers={f"X-{number}": "y" * 20 for number in range(900)})
    yield Hostile("giant query", f"/health?{'q' * 40_000}", method="GET")
    yield Hostile("body over the bound", "/predict", bytes((16 << 20) + 1))
