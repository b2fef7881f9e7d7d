"""Bad data: JSON, fields, pictures and archives, as `kore-bench data check` and `kore-bench run` meet them."""

from __future__ import annotations

import json
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bad_cases import Build, Case, archive, changed, items, picture, questions, write_data


def data(**parts: Any) -> Build:
    """Return what writes a knowledge folder with these parts."""
    return lambda root: write_data(root, **parts)


def item(index: int = 0, **fields: Any) -> Build:
    return data(injection=changed(items(), index, **fields))


def question(index: int = 0, **fields: Any) -> Build:
    return data(evaluation=changed(questions(), index, **fields))


def told(*turns: tuple[Any, Any]) -> list[dict[str, Any]]:
    return [{"from": who, "value": what} for who, what in turns]


def image(content: bytes) -> Build:
    return data(images={"1.png": content})


def member(name: str, mode: int = 0) -> zipfile.ZipInfo:
    found = zipfile.ZipInfo(name)
    found.external_attr = mode << 16
    return found


def png(width: int, height: int) -> bytes:
    """Return a small PNG file that says it has so many pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 10)) + chunk(b"IEND", b"")
    )


def zipped(members: dict[Any, bytes]) -> Build:
    """Return what writes a folder whose pictures lie in an archive."""
    rows = changed(items(), 0, image="packed/1.png")
    return data(injection=rows, files={"images.zip": archive(members)})


JSON: dict[str, tuple[Build, str]] = {
    "injection: empty file": (data(injection=""), "injection_data.json, line 1, column 1: expected '[', found the end"),
    "injection: only spaces": (data(injection="  \n \n"), "injection_data.json, line 3, column 1: expected '[', found the end; the file may be cut off"),
    "injection: no rows": (data(injection="[]"), "injection_data.json holds no rows"),
    "injection: an object": (data(injection='{"a": 1}'), "injection_data.json, line 1, column 1: expected '[', found '{'"),
    "injection: a number": (data(injection="7"), "injection_data.json, line 1, column 1: expected '[', found '7'"),
    "injection: null": (data(injection="null"), "injection_data.json, line 1, column 1: expected '[', found 'n'"),
    "injection: rows are lists": (data(injection="[[1]]"), "injection_data.json, line 1: expected an object, found [1]"),
    "injection: rows are texts": (data(injection='["x"]'), "injection_data.json, line 1: expected an object, found 'x'"),
    "injection: cut in a text": (data(injection=json.dumps(items())[:90]), "injection_data.json, line 1, column 82: not valid JSON (Unterminated string starting at); the file"),
    "injection: cut after a comma": (data(injection=json.dumps(items()).split("}, {")[0] + "},"), "injection_data.json, line 1, column 108: not valid JSON (Expecting value); the file may be cut off"),
    "injection: no comma": (data(injection=json.dumps(items()).replace("}, {", "} {", 1)), "injection_data.json, line 1, column 108: not valid JSON (Expecting ',' delimiter)"),
    "injection: comma at the end": (data(injection=json.dumps(items())[:-1] + ",]"), "injection_data.json, line 1, column 419: not valid JSON (Expecting value)"),
    "injection: text behind the end": (data(injection=json.dumps(items()) + " x"), "injection_data.json, line 1, column 420: expected the end, found 'x'"),
    "injection: two arrays": (data(injection=json.dumps(items()) * 2), "injection_data.json, line 1, column 419: expected the end, found '['"),
    "injection: not UTF-8": (data(injection=json.dumps(items()).encode().replace(b"Thing", b"Th\xffng")), "injection_data.json, line 1: not UTF-8 text (byte 0xff); save the file as UTF-8"),
    "injection: UTF-16": (data(injection=json.dumps(items()).encode("utf-16")), "injection_data.json, line 1: not UTF-8 text (byte 0xff); save the file as UTF-8"),
    "injection: a zero byte": (data(injection=json.dumps(items()).encode().replace(b"Thing", b"Th\0ng")), "injection_data.json, line 1, column 185: not valid JSON (Invalid control character at)"),
    "injection: nested too deeply": (data(injection="[" * 100_000), "injection_data.json, line 1, column 2: JSON with a number too long or nested too deeply"),
    "injection: objects nested too deeply": (data(injection='[{"a":' * 50_000), "injection_data.json, line 1, column 2: JSON with a number too long or nested too deeply"),
    "injection: a number of 10,000 digits": (data(injection='[{"id": ' + "9" * 10_000 + "}]"), "injection_data.json, line 1, column 2: JSON with a number too long or nested too deeply"),
    "injection: single quotes": (data(injection=str(items())), "injection_data.json, line 1, column 3: not valid JSON (Expecting property name enclosed in double q"),
    "injection: a comment": (data(injection="// items\n" + json.dumps(items())), "injection_data.json, line 1, column 1: expected '[', found '/'"),
    "injection: HTML": (data(injection="<!DOCTYPE html><html>404</html>"), "injection_data.json, line 1, column 1: expected '[', found '<'"),
    "injection: a pointer of Git LFS": (data(injection="version https://git-lfs.github.com/spec/v1\noid sha256:1\n"), "is a pointer of Git LFS in place of the data"),
    "injection: a pickle": (data(injection=b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00\x8c\x08builtins"), "injection_data.json, line 1: not UTF-8 text (byte 0x80); save the file as UTF-8"),
    "evaluation: empty file": (data(evaluation=""), "evaluation_data.jsonl holds no rows"),
    "evaluation: cut line": (data(evaluation="".join(json.dumps(row) + "\n" for row in questions())[:-20]), "evaluation_data.jsonl, line 2, column 130: not valid JSON (Expecting ',' delimiter); each row must"),
    "evaluation: an array": (data(evaluation=json.dumps(questions())), "evaluation_data.jsonl, line 1: expected an object, found [{'answer': 'Xanadu 1', 'cnn_wiki_type': '"),
    "evaluation: a line of text": (data(evaluation=json.dumps(questions()[0]) + "\nnothing\n"), "evaluation_data.jsonl, line 2, column 1: not valid JSON (Expecting value)"),
    "evaluation: a line is a number": (data(evaluation=json.dumps(questions()[0]) + "\n5\n"), "evaluation_data.jsonl, line 2: expected an object, found 5"),
    "evaluation: NaN as id": (data(evaluation=json.dumps(questions()[0]).replace("1,", "NaN,", 1) + "\n"), "evaluation_data.jsonl, line 1, field 'question_id': expected text or a whole number, found nan"),
    "facts: an array": (data(files={"facts.json": "[]"}), "data/facts.json, line 1, column 1: expected '{', found '['"),
    "facts: of nobody": (data(files={"facts.json": '{"item-9": {"facts": []}}'}), "data/facts.json, line 1, field 'id': no item 'item-9' in evoke_injection_data.json; did you mean 'item-2'?"),
    "facts: subject not asked": (
        data(files={"facts.json": json.dumps({"item-1": {"facts": [{"subject": "Thing 1", "hypernym": "thing", "relation": "maker", "value": "Xanadu", "questions": ["Who?"]}]}})}),
        "data/facts.json, line 1, field 'facts[0].questions[0]': the subject 'Thing 1' does not stand in 'Who?'",
    ),
    "old: unknown skill": (data(files={"old.json": json.dumps([{"id": "a", "image": "1.png", "conversations": items()[0]["conversations"], "skill": "COOKING"}])}), "data/old.json, line 1, field 'skill': expected one of COM, OCR, M-DIS, INS, M-IDU, MAT, HAL, found 'COOKING'"),
    "retention: unknown dimension": (data(files={"retention.jsonl": json.dumps(questions()[0] | {"type": "XYZ"}) + "\n"}), "data/retention.jsonl, line 1, field 'type': expected one of COM, OCR, M-DIS, INS, M-IDU, MAT, HAL, found 'XYZ'"),
    "probes: unknown sort": (data(files={"probes.jsonl": json.dumps(questions()[0] | {"probe": "riddle"}) + "\n"}), "data/probes.jsonl, line 1, field 'probe': expected one of paraphrase, by-name, naming, hop, look-alike, found"),
    "probes: of nobody": (data(files={"probes.jsonl": json.dumps(questions()[0] | {"probe": "hop", "item": "item-7"}) + "\n"}), "data/probes.jsonl, line 1, field 'item': no item 'item-7' in evoke_injection_data.json; did you mean 'item-2'?"),
}  # fmt: skip

FIELDS: dict[str, tuple[Build, str]] = {
    "item: no id": (item(id=...), "injection_data.json, line 1, field 'id': missing, the row has 'image', 'conversations', 'name', 'ty"),
    "item: id is a list": (item(id=[1]), "injection_data.json, line 1, field 'id': expected text or a whole number, found [1]"),
    "item: id is empty": (item(id=""), "injection_data.json, line 1, field 'id': expected text or a whole number, found empty text"),
    "item: the same id twice": (item(1, id="item-1"), "injection_data.json, line 1, row 1, field 'id': 'item-1' stands on line 1 already, each id must be"),
    "item: no image": (item(image=...), "injection_data.json, line 1, field 'image': missing, the row has 'id', 'conversations', 'name', 'ty"),
    "item: image is null": (item(image=None), "injection_data.json, line 1, field 'image': expected one relative path, found None"),
    "item: image is a number": (item(image=3), "injection_data.json, line 1, field 'image': expected one relative path, found 3"),
    "item: image is empty": (item(image=""), "injection_data.json, line 1, field 'image': expected one relative path, found empty text"),
    "item: two images": (item(image=["1.png", "2.png"]), "injection_data.json, line 1, field 'image': expected one relative path, found ['1.png', '2.png']"),
    "item: missing image": (item(image="9.png"), "injection_data.json, line 1, field 'image': no file '9.png' in 'data'; did you mean '2.png'?"),
    "item: image is a folder": (item(image="."), "injection_data.json, line 1, field 'image': no file '.' in 'data'"),
    "item: image leads out": (item(image="../../etc/passwd"), "injection_data.json, line 1, field 'image': '../../etc/passwd' leads out of the data folder"),
    "item: image leads out in the middle": (item(image="a/../../1.png"), "injection_data.json, line 1, field 'image': 'a/../../1.png' leads out of the data folder"),
    "item: image is absolute": (item(image="/etc/passwd"), "injection_data.json, line 1, field 'image': '/etc/passwd' leads out of the data folder"),
    "item: image has a zero byte": (item(image="1\0.png"), "injection_data.json, line 1, field 'image': expected one relative path, found '1\\x00.png'"),
    "item: image's name is too long": (item(image="a" * 5000 + ".png"), "injection_data.json, line 1, field 'image': no file 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"),
    "item: image is a URL": (item(image="https://example.org/1.png"), "injection_data.json, line 1, field 'image': no file 'https://example.org/1.png' in 'data'"),
    "item: no conversation": (item(conversations=...), "injection_data.json, line 1, field 'conversations': missing, the row has 'id', 'image', 'name', 'ty"),
    "item: empty conversation": (item(conversations=[]), "injection_data.json, line 1, field 'conversations': expected a list of objects, found []"),
    "item: a conversation of text": (item(conversations="hello"), "injection_data.json, line 1, field 'conversations': expected a list of objects, found 'hello'"),
    "item: no answer": (item(conversations=told(("human", "<image>\nWhat?"))), "injection_data.json, line 1, field 'conversations': the last question has no answer"),
    "item: two answers": (item(conversations=told(("human", "<image>\nA?"), ("gpt", "B"), ("gpt", "C"))), "injection_data.json, line 1, field 'conversations[2].from': expected 'human' (the two take turns, '"),
    "item: the model speaks first": (item(conversations=told(("gpt", "B"), ("human", "<image>\nA?"))), "injection_data.json, line 1, field 'conversations[0].from': expected 'human' (the two take turns, '"),
    "item: an unknown speaker": (item(conversations=told(("system", "A"), ("gpt", "B"))), "injection_data.json, line 1, field 'conversations[0].from': expected one of human, gpt, found 'syst"),
    "item: answer is a number": (item(conversations=told(("human", "<image>\nA?"), ("gpt", 5))), "injection_data.json, line 1, field 'conversations[1].value': expected text, found 5"),
    "item: answer is empty": (item(conversations=told(("human", "<image>\nA?"), ("gpt", "  "))), "injection_data.json, line 1, field 'conversations[1].value': expected text, found empty text"),
    "item: no mark of the image": (item(conversations=told(("human", "A?"), ("gpt", "B"))), "injection_data.json, line 1, field 'conversations[0].value': expected 1 <image> (one for each image"),
    "item: two marks and one image": (item(conversations=told(("human", "<image><image>\nA?"), ("gpt", "B"))), "injection_data.json, line 1, field 'conversations[0].value': expected 1 <image> (one for each image"),
    "item: a mark in the answer": (item(conversations=told(("human", "<image>\nA?"), ("gpt", "<image> B"))), "injection_data.json, line 1, field 'conversations[1].value': expected 0 <image> (one for each image"),
    "item: two rounds": (item(conversations=told(("human", "<image>\nA?"), ("gpt", "B"), ("human", "C?"), ("gpt", "D"))), "injection_data.json, line 1, field 'conversations': expected one question and one answer, found 2 o"),
    "item: unknown source": (item(cnn_wiki_type="blog"), "injection_data.json, line 1, field 'cnn_wiki_type': expected one of news, wiki, found 'blog'"),
    "item: name is a list": (item(name=["a"]), "injection_data.json, line 1, field 'name': expected text without <image>, found ['a']"),
    "question: no id": (question(question_id=...), "evaluation_data.jsonl, line 1, field 'question_id': missing, the row has 'image', 'text', 'answer',"),
    "question: the same id twice": (question(1, question_id=1), "evaluation_data.jsonl, line 2, field 'question_id': '1' stands on line 1 already, each id must be i"),
    "question: no text": (question(text=...), "evaluation_data.jsonl, line 1, field 'text': missing, the row has 'question_id', 'image', 'answer',"),
    "question: empty text": (question(text=" "), "evaluation_data.jsonl, line 1, field 'text': expected text, found empty text"),
    "question: no answer": (question(answer=...), "evaluation_data.jsonl, line 1, field 'answer': missing, the row has 'question_id', 'image', 'text',"),
    "question: empty answer": (question(answer=""), "evaluation_data.jsonl, line 1, field 'answer': expected text without <image>, found empty text"),
    "question: answer is a list": (question(answer=["a", "b"]), "evaluation_data.jsonl, line 1, field 'answer': expected text without <image>, found ['a', 'b']"),
    "question: missing image": (question(image="3.png"), "evaluation_data.jsonl, line 1, field 'image': no file '3.png' in 'data'; did you mean '2.png'?"),
    "question: about nobody": (question(item="item-3"), "evaluation_data.jsonl, line 1, field 'item': no item 'item-3' in evoke_injection_data.json; did you"),
    "question: item is a number of a float": (question(item=1.5), "evaluation_data.jsonl, line 1, field 'item': expected text or a whole number, found 1.5"),
}  # fmt: skip

PICTURES: dict[str, tuple[Build, str]] = {
    "picture: empty": (image(b""), "injection_data.json, line 1, field 'image': image 'data/1.png' is empty (0 bytes)"),
    "picture: text": (image(b"no picture"), "injection_data.json, line 1, field 'image': image 'data/1.png' is no picture of a known format (PNG"),
    "picture: cut PNG": (image(picture(size=(200, 200))[:-40]), "injection_data.json, line 1, field 'image': image 'data/1.png' cannot be decoded (Truncated File Re"),
    "picture: cut JPEG": (image(picture("JPEG", size=(400, 400))[:300]), "injection_data.json, line 1, field 'image': image 'data/1.png' cannot be decoded (Truncated File Re"),
    "picture: wrong check sum": (image(picture().replace(b"IDAT", b"IDAT", 1)[:-8] + b"\0" * 8), "injection_data.json, line 1, field 'image': image 'data/1.png' cannot be decoded (broken PNG file ("),
    "picture: only a header": (image(b"\x89PNG\r\n\x1a\n"), "injection_data.json, line 1, field 'image': image 'data/1.png' is no picture of a known format (PNG"),
    "picture: 0 x 0": (image(png(0, 0)), "injection_data.json, line 1, field 'image': image 'data/1.png' is no picture of a known format (PNG"),
    "picture: a bomb of pixels": (image(png(60_000, 60_000)), "injection_data.json, line 1, field 'image': image 'data/1.png' has more than 89,478,485 pixels; sca"),
    "picture: more pixels than a file of its size can have": (image(png(65_000, 2)), "injection_data.json, line 1, field 'image': image 'data/1.png' cannot be decoded (image file is tru"),
    "picture: SVG": (image(b'<svg xmlns="http://www.w3.org/2000/svg"/>'), "injection_data.json, line 1, field 'image': image 'data/1.png' is no picture of a known format (PNG"),
    "picture: EPS": (image(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nquit\n"), "injection_data.json, line 1, field 'image': image 'data/1.png' is no picture of a known format (PNG"),
    "picture: PDF": (image(b"%PDF-1.4\n"), "injection_data.json, line 1, field 'image': image 'data/1.png' is no picture of a known format (PNG"),
    "picture: HTML": (image(b"<html>404 not found</html>"), "injection_data.json, line 1, field 'image': image 'data/1.png' is no picture of a known format (PNG"),
    "picture: a pickle": (image(b"\x80\x04\x95\x10\x00"), "injection_data.json, line 1, field 'image': image 'data/1.png' is no picture of a known format (PNG"),
    "archive: leads out": (zipped({"../1.png": picture()}), "data/images.zip: its member '../1.png' leads out of the folder; nothing was unpacked"),
    "archive: is absolute": (zipped({"/packed/1.png": picture()}), "data/images.zip: its member '/packed/1.png' leads out of the folder; nothing was unpacked"),
    "archive: leads out on Windows": (zipped({"..\\packed\\1.png": picture()}), "data/images.zip: its member '..\\\\packed\\\\1.png' leads out of the folder; nothing was unpacked"),
    "archive: a drive of Windows": (zipped({"C:packed/1.png": picture()}), "data/images.zip: its member 'C:packed/1.png' leads out of the folder; nothing was unpacked"),
    "archive: a link": (zipped({member("packed/1.png", stat.S_IFLNK | 0o777): b"/etc/passwd"}), "data/images.zip: its member 'packed/1.png' is a link or a device, no picture; nothing was unpacked"),
    "archive: a bomb": (zipped({"packed/1.png": b"\0" * 50_000_000}), "data/images.zip would unpack to 50,000,000 bytes, over 100 times its size, as no archive of pictures does; not"),
    "archive: cut": (
        data(injection=changed(items(), 0, image="packed/1.png"),
             files={"images.zip": archive({"packed/1.png": picture(size=(300, 300))})[:-30]}),
        "data/images.zip cannot be unpacked: file is not a zip file",
    ),
    "archive: no archive": (data(injection=changed(items(), 0, image="packed/1.png"), files={"images.zip": b"PK not"}), "data/images.zip cannot be unpacked: file is not a zip file"),
    "archive: without the picture": (zipped({"other/2.png": picture()}), "injection_data.json, line 1, field 'image': no file 'packed/1.png' in 'data'"),
}  # fmt: skip

CASES = [
    Case(name=name, command="run --data data --methods lora --dry-run", build=build, says=says)
    for group in (JSON, FIELDS, PICTURES)
    for name, (build, says) in group.items()
]

GOOD: dict[str, Callable[[], bytes]] = {
    "16 bits a channel": lambda: picture(mode="I;16"),
    "CMYK": lambda: picture("JPEG", mode="CMYK"),
    "a palette": lambda: picture(mode="P"),
    "one bit": lambda: picture(mode="1"),
    "transparent": lambda: picture(mode="RGBA"),
    "grey with transparency": lambda: picture(mode="LA"),
    "animated": lambda: animated(),
    "a JPEG called PNG": lambda: picture("JPEG"),
    "one pixel": lambda: picture(size=(1, 1)),
    "a line": lambda: picture(size=(1000, 1)),
}
"""Unusual pictures that are none the worse for it."""


def animated() -> bytes:
    """Return a GIF of three frames."""
    import io

    from PIL import Image

    stream = io.BytesIO()
    frames = [Image.new("RGB", (16, 16), color) for color in ("red", "green", "blue")]
    frames[0].save(stream, "GIF", save_all=True, append_images=frames[1:])
    return stream.getvalue()


def good(folder: Path, name: str) -> None:
    """Write a sound folder whose first picture is the unusual one called ``name``."""
    write_data(folder, images={"1.png": GOOD[name]()})
