"""Runs in S3, with a server on this machine: the packages s3fs and moto."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("s3fs")
server = pytest.importorskip("moto.server")

CREDENTIALS = {"AWS_ACCESS_KEY_ID": "someone", "AWS_SECRET_ACCESS_KEY": "secret-of-this-test"}


@pytest.fixture
def s3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The file system of a server with the bucket `bucket`."""
    import s3fs

    running = server.ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    running.start()
    address = "http://{}:{}".format(*running.get_host_and_port())
    isolated = {"AWS_CONFIG_FILE": "none", "AWS_SHARED_CREDENTIALS_FILE": "none", "AWS_EC2_METADATA_DISABLED": "true"}
    settings = CREDENTIALS | isolated | {"AWS_ENDPOINT_URL": address, "AWS_DEFAULT_REGION": "us-east-1"}
    for name, value in (settings | {"POISE_CACHE": str(tmp_path / "cache"), "NO_PROXY": "127.0.0.1"}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    monkeypatch.chdir(tmp_path)
    s3fs.S3FileSystem.clear_instance_cache()
    fs = s3fs.S3FileSystem(use_listings_cache=False)
    fs.mkdir("bucket")
    yield fs
    s3fs.S3FileSystem.clear_instance_cache()
    running.stop()


def test_runs_in_s3(poise: Any, s3: Any, ring_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from poise.utils.remote import RemoteFolder

    url = "s3://bucket/runs/ring"
    s3.put(f"{ring_run}/", url, recursive=True)
    s3.pipe("bucket/runs/../escaped/run.json", b"{}")
    for run, out in ((ring_run, "local.npz"), (url, "remote.npz")):
        result = poise("sample", run, "--npz", out)
        assert result.code == 0, result.err
    assert Path("remote.npz").read_bytes() == Path("local.npz").read_bytes()
    result = poise("runs", "s3://bucket/runs")
    assert (result.code, result.err) == (0, "")
    assert "ring" in result.out
    assert "escaped" not in result.out

    assert poise("watch", url).code == 0
    rows, kind = s3.cat(f"{url}/rows.jsonl"), type(s3)
    s3.pipe(f"{url}/rows.jsonl", rows + rows.splitlines(keepends=True)[-1].replace(b'"step": 8', b'"step": 9'))
    fetched: list[str] = []
    get_file = kind._get_file

    async def counted(fs: Any, source: str, target: str, **more: Any) -> Any:
        fetched.append(source)
        return await get_file(fs, source, target, **more)

    monkeypatch.setattr(kind, "_get_file", counted)
    result = poise("watch", url)
    assert result.out.startswith(f"{url}: 5 rows up to step 9"), result.err
    assert fetched == [], "the new row was read as a range"
    assert (RemoteFolder(url).local / "rows.jsonl").read_bytes() == s3.cat(f"{url}/rows.jsonl")

    poise("sample", "s3://bucket/none", "--npz", "x.npz").assert_error(4, "s3://bucket/none: not a run folder")
    poise("web", "s3://no-such-bucket/runs").assert_error(2, "s3://no-such-bucket/runs: no such folder")
    kind.clear_instance_cache()
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")  # nobody listens
    result = poise("sample", url, "--npz", "x.npz")
    result.assert_error(6, f"{url}: can't be reached", "check the network")
    kind.clear_instance_cache()
    for name in CREDENTIALS:
        monkeypatch.delenv(name)
    poise("sample", url, "--npz", "x.npz").assert_error(6, "no valid credentials", "AWS_PROFILE")
