"""Downloads from a local server with Zenodo's API: complete, interrupted, wrong and missing files."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import shutil
import stat
import threading
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cytovox.errors import InputError
from datamodules import fetch
from datamodules.fetch import fetch_record, list_record, part_path
from datamodules.unzip import unzip
from experiments.fetch import main

CONTENT = np.random.default_rng(0).bytes(400_000)


class Zenodo:
    """One record of one file on loopback, and what is wrong with it."""

    def __init__(self, content: bytes = CONTENT, name: str = "shapes.zip") -> None:
        self.content, self.name = content, name
        self.checksum = f"md5:{hashlib.md5(content, usedforsecurity=False).hexdigest()}"
        self.ranges: list[str | None] = []
        self.cut_after: list[int | None] = []
        """Bytes that each of the next responses sends before the connection breaks."""
        self.knows_ranges = True
        self.status = 200
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/api"

    def record(self) -> dict[str, Any]:
        """Return a record in the format of the API since its move to InvenioRDM, without unused keys."""
        link = f"{self.url}/records/7031924/files/{self.name}/content"
        return {
            "created": "2022-08-29T08:00:00.000000+00:00",
            "id": 7031924,
            "recid": "7031924",
            "doi": "10.5281/zenodo.7031924",
            "metadata": {"title": "SHAPR", "access_right": "open"},
            "links": {"self": f"{self.url}/records/7031924"},
            "files": [
                {
                    "id": "5c3b3a0e-5d2c-4a5e-9a60-6b2f0c1c1a11",
                    "key": self.name,
                    "size": len(self.content),
                    "checksum": self.checksum,
                    "links": {"self": link},
                }
            ],
            "state": "done",
            "submitted": True,
        }

    def _handler(zenodo) -> type[BaseHTTPRequestHandler]:
        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: Any) -> None: ...

            def do_GET(self) -> None:
                if self.path == "/api/records/7031924":
                    body = json.dumps(zenodo.record()).encode()
                    self.respond(zenodo.status, body, {"Content-Type": "application/json"})
                elif self.path == f"/api/records/7031924/files/{zenodo.name}/content":
                    self.send_file()
                else:
                    self.respond(404, b'{"status": 404, "message": "The persistent identifier does not exist."}', {})

            def send_file(self) -> None:
                asked = self.headers.get("Range")
                zenodo.ranges.append(asked)
                begin = int(asked.removeprefix("bytes=").rstrip("-")) if asked and zenodo.knows_ranges else 0
                total = len(zenodo.content)
                more = {"Content-Range": f"bytes {begin}-{total - 1}/{total}"} if begin else {}
                cut = zenodo.cut_after.pop(0) if zenodo.cut_after else None
                self.respond(206 if begin else 200, zenodo.content[begin:], more, cut)

            def respond(self, status: int, body: bytes, headers: dict[str, str], cut: int | None = None) -> None:
                self.send_response(status)
                for key, value in {**headers, "Content-Length": str(len(body))}.items():
                    self.send_header(key, value)
                self.end_headers()
                self.wfile.write(body[:cut])

        return Handler


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Zenodo]]:
    monkeypatch.setattr(fetch, "_WAIT_S", 0.0)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    started: list[Zenodo] = []

    def begin(*args: Any, **kwargs: Any) -> Zenodo:
        zenodo = Zenodo(*args, **kwargs)
        threading.Thread(target=zenodo.server.serve_forever, args=(0.01,), daemon=True).start()
        started.append(zenodo)
        return zenodo

    yield begin
    for zenodo in started:
        zenodo.server.shutdown()
        zenodo.server.server_close()


def test_a_record_is_listed_with_sizes_and_checksums(serve: Callable[..., Zenodo]) -> None:
    zenodo = serve()
    (file,) = list_record(url=zenodo.url)
    assert (file.name, file.size, file.checksum) == ("shapes.zip", len(CONTENT), zenodo.checksum)


def test_a_file_is_complete_reported_and_downloaded_once(serve: Callable[..., Zenodo], tmp_path: Path) -> None:
    zenodo, reported = serve(), []
    for _ in range(2):
        (path,) = fetch_record(tmp_path / "new", url=zenodo.url, progress=lambda *step: reported.append(step))
    assert path.read_bytes() == CONTENT
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["shapes.zip"]
    assert zenodo.ranges == [None]
    assert reported[-1] == ("shapes.zip", len(CONTENT), len(CONTENT))
    assert [done for _, done, _ in reported] == sorted(done for _, done, _ in reported)


def test_an_interrupted_download_is_resumed(serve: Callable[..., Zenodo], tmp_path: Path) -> None:
    zenodo = serve()
    zenodo.cut_after = [150_000, 100_000]
    (path,) = fetch_record(tmp_path, url=zenodo.url)
    assert path.read_bytes() == CONTENT
    begins = [int(asked.removeprefix("bytes=").rstrip("-")) for asked in zenodo.ranges[1:] if asked]
    assert len(begins) == 2
    assert 0 < begins[0] <= 150_000 < begins[1] <= 250_000


def test_repeated_interruptions_are_one_line_and_the_next_call_resumes(
    serve: Callable[..., Zenodo], tmp_path: Path
) -> None:
    zenodo = serve()
    zenodo.cut_after = [200_000, 0, 0, 0]
    with pytest.raises(InputError, match=r"shapes\.zip: cut off at \d+ of 400000 bytes .* run the same") as error:
        fetch_record(tmp_path, url=zenodo.url)
    assert "\n" not in str(error.value)
    (part,) = tmp_path.iterdir()
    assert part == part_path(tmp_path, list_record(url=zenodo.url)[0])
    kept = part.stat().st_size
    assert 100_000 < kept <= 200_000
    fetch_record(tmp_path, url=zenodo.url)
    assert zenodo.ranges[-1] == f"bytes={kept}-"
    assert [p.name for p in tmp_path.iterdir()] == ["shapes.zip"]


def test_a_download_without_range_support_starts_again(serve: Callable[..., Zenodo], tmp_path: Path) -> None:
    zenodo = serve()
    zenodo.knows_ranges = False
    zenodo.cut_after = [200_000]
    (path,) = fetch_record(tmp_path, url=zenodo.url)
    assert path.read_bytes() == CONTENT


def test_an_empty_file_is_downloaded(serve: Callable[..., Zenodo], tmp_path: Path) -> None:
    (path,) = fetch_record(tmp_path, url=serve(b"").url)
    assert path.read_bytes() == b""


def test_a_file_with_a_wrong_checksum_is_removed(serve: Callable[..., Zenodo], tmp_path: Path) -> None:
    zenodo = serve()
    zenodo.checksum = "md5:" + "0" * 32
    with pytest.raises(InputError, match=r"shapes\.zip: the download does not have the record's checksum") as error:
        fetch_record(tmp_path, url=zenodo.url)
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_partial_download_is_removed(serve: Callable[..., Zenodo], tmp_path: Path) -> None:
    zenodo = serve()
    part_path(tmp_path, list_record(url=zenodo.url)[0]).write_bytes(b"x" * 1000)
    with pytest.raises(InputError, match="checksum"):
        fetch_record(tmp_path, url=zenodo.url)
    (path,) = fetch_record(tmp_path, url=zenodo.url)
    assert path.read_bytes() == CONTENT


def test_network_and_server_errors_are_one_line(serve: Callable[..., Zenodo], tmp_path: Path) -> None:
    zenodo = serve()
    with pytest.raises(InputError, match=r"records/1: the server returned 404 .*check the record"):
        list_record("1", zenodo.url)
    zenodo.status = 503
    with pytest.raises(InputError, match=r"the server returned 503 .*try again later"):
        list_record(url=zenodo.url)
    with pytest.raises(InputError, match=r"127\.0\.0\.1:9/api/records/7031924: cannot be reached .*--url") as error:
        fetch_record(tmp_path, url="http://127.0.0.1:9/api")
    assert "\n" not in str(error.value)


def test_a_response_that_is_no_record_is_one_line(
    serve: Callable[..., Zenodo], monkeypatch: pytest.MonkeyPatch
) -> None:
    zenodo = serve()
    bad_sum = {"files": [{"key": "a", "size": 1, "checksum": "md5:/../../../x", "links": {"self": "http://a/a"}}]}
    for strange in ({}, {"files": [{"key": "a"}]}, {"files": "none"}, [], bad_sum):
        monkeypatch.setattr(Zenodo, "record", lambda _, response=strange: response)
        with pytest.raises(InputError, match="is no record of files"):
            list_record(url=zenodo.url)
    monkeypatch.setattr(Zenodo, "record", lambda _: {"files": []})
    with pytest.raises(InputError, match="has no files"):
        list_record(url=zenodo.url)


@pytest.mark.parametrize("name", ["../evil.zip", "a/b", "..", "C:evil", "a\\b"])
def test_a_file_name_outside_the_folder_is_refused(serve: Callable[..., Zenodo], name: str) -> None:
    with pytest.raises(InputError, match="would lie outside"):
        list_record(url=serve(name=name).url)


def test_a_small_disk_is_refused_before_and_a_full_one_during_the_download(
    serve: Callable[..., Zenodo], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    zenodo = serve()
    with monkeypatch.context() as small:
        small.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**6, 10**6 - 1000, 1000))  # type: ignore[attr-defined]
        with pytest.raises(InputError, match="MB to fetch and 0 MB free"):
            fetch_record(tmp_path, url=zenodo.url)
    assert zenodo.ranges == []

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(InputError, match="no space left"):
        fetch_record(tmp_path, url=zenodo.url)


def archive(members: dict[str, bytes], mode: int = stat.S_IFREG | 0o644) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, content in members.items():
            member = zipfile.ZipInfo(name)
            member.external_attr = mode << 16
            packed.writestr(member, content)
    return stream.getvalue()


def test_the_command_downloads_unpacks_and_prints_the_config_values(
    serve: Callable[..., Zenodo], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    members = {f"set/{kind}/a_1.tif": b"image" for kind in ("image", "mask", "obj")}
    members |= {f"dispr/{s}/{kind}/a_1.tif": b"x" for s in ("train", "test") for kind in ("image", "mask", "obj")}
    zenodo = serve(archive({**members, "__MACOSX/x": b""}))
    for _ in range(2):
        assert main(["shapes", "--out", str(tmp_path), "--url", zenodo.url]) == 0
    root = tmp_path / "shapes"
    assert (root / "set" / "mask" / "a_1.tif").read_bytes() == b"image"
    assert not (root / "__MACOSX").exists()
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == [f"cells: data.root={root / 'dispr'}", f"cells: data.root={root / 'set'}"]
    assert main(["shapes", "--out", str(tmp_path), "--url", zenodo.url, "--only", "*.tar"]) == 2
    assert "it has shapes.zip" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["../evil", "/evil", "a/../../evil", "C:/evil", "..\\evil", "\\\\host\\evil"])
def test_an_archive_member_outside_the_folder_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "a.zip").write_bytes(archive({"good": b"1", name: b"2"}))
    with pytest.raises(InputError, match="outside the folder"):
        unzip(tmp_path / "a.zip", tmp_path / "out" / "a")
    assert {p.name for p in tmp_path.rglob("*")} <= {"a.zip", "out"}


def test_links_and_damaged_archives_are_refused_and_leave_no_files(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(archive({"link": b"/etc/passwd"}, stat.S_IFLNK | 0o777))
    with pytest.raises(InputError, match="is a link"):
        unzip(tmp_path / "a.zip", tmp_path / "a")
    whole = archive({"first": b"1" * 1000, "second": CONTENT[:50_000]})
    for damaged in (whole[:-30], whole[:20_000] + b"\0" * 100 + whole[20_100:], b"no zip"):
        (tmp_path / "a.zip").write_bytes(damaged)
        with pytest.raises(InputError, match=r"a\.zip: damaged zip archive"):
            unzip(tmp_path / "a.zip", tmp_path / "a")
    assert [p.name for p in tmp_path.iterdir()] == ["a.zip"]
