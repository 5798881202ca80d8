"""Which Redis a store works with, how it is reached, and how it says that it does not.

What cannot heal by itself is an error when the store is opened; what somebody changes
later is an error of the publish, in words that name the cause, and heals when it is
changed back. No password gets into a text.
"""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import trustme

from aiohttp_sse_routes.errors import ConfigurationError, StoreError, StoreUnavailable
from aiohttp_sse_routes.logs.redis import RedisStore
from aiohttp_sse_routes.testing import nothing_left

from .redis_server import Proxy, RedisServer, free_port, needs_redis
from .redis_team import Team, follow, in_step, put_at_last, texts
from .stores import Recorder, eventually, open_store, put, read_all

pytestmark = [needs_redis, pytest.mark.timeout(60)]


async def works(url: str, **options: Any) -> None:
    """Check that an event comes back from the Redis at *url*."""
    async with nothing_left():
        store, recorder = RedisStore(url, **options), Recorder()
        await open_store(store, recorder)
        await put(store, "c", "1")
        await eventually(lambda: texts(recorder.entries) == ["1"])
        await store.close()


async def refused(url: str, match: str, **options: Any) -> str:
    """Check that the Redis at *url* cannot be opened; return what is said."""
    store = RedisStore(url, **options)
    said = []
    async with nothing_left():
        for follower in (None, Recorder()):
            with pytest.raises(StoreError, match=match) as caught:
                await store.open(follower, now=time.monotonic)
            assert not isinstance(caught.value, StoreUnavailable)
            said.append(str(caught.value))
            with pytest.raises(StoreError, match="not open"):
                await store.head()
    return " ".join(said)


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        ((1,), {}),
        (("http://127.0.0.1",), {}),
        (("redis://127.0.0.1:port",), {}),
        (("redis://127.0.0.1?nonsense=1",), {}),
        (("redis://127.0.0.1/0",), {"namespace": "a{b"}),
        (("redis://127.0.0.1/0",), {"namespace": ""}),
        (("redis://127.0.0.1/0",), {"max_events": 0}),
        (("redis://127.0.0.1/0",), {"max_age": 0}),
        (("redis://127.0.0.1/0",), {"max_bytes": 0}),
        (("redis://127.0.0.1/0",), {"wait": -1}),
        (("redis://127.0.0.1/0",), {"wait": True}),
        (("redis://127.0.0.1/0",), {"timeout": 0}),
        (("redis://127.0.0.1/0",), {"timeout": float("inf")}),
        (("redis://127.0.0.1/0",), {"memory": 0}),
        (("redis://127.0.0.1/0",), {"max_channels": 1.5}),
    ],
)
def test_wrong_arguments(arguments: tuple[Any], options: dict[str, Any]) -> None:
    """A wrong argument is an error at construction."""
    with pytest.raises(ConfigurationError):
        RedisStore(*arguments, **options)


@pytest.mark.parametrize(
    "url", ["redis://me:hunter2@host:port", "redis://me:hun/ter2@host", "hunter2"]
)
def test_a_wrong_url_is_not_repeated(url: str) -> None:
    """The error for a wrong URL does not show what may be a password."""
    with pytest.raises(ConfigurationError) as caught:
        RedisStore(url)
    assert "hun" not in str(caught.value)
    assert "ter2" not in str(caught.value)


def test_without_redis_py() -> None:
    """Without redis-py the module is imported all the same; a store says what to do."""
    program = """
import sys
sys.modules["redis"] = None
from aiohttp_sse_routes.errors import ConfigurationError
from aiohttp_sse_routes.logs.redis import RedisStore
try:
    RedisStore("redis://127.0.0.1")
except ConfigurationError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert "pip install 'aiohttp-sse-routes[redis]'" in done.stdout


async def test_unix_socket(tmp_path: Path) -> None:
    """A Redis is reached by its UNIX socket, with a database."""
    with RedisServer(tmp_path / "r") as server:
        await works(f"unix://{server.socket_path}?db=3")
        assert b"db3:" in server.command("INFO", "keyspace")


async def test_tls(tmp_path: Path, authority: trustme.CA) -> None:
    """A Redis is reached by TLS; a certificate that is not trusted is refused."""
    certificate = authority.issue_cert("127.0.0.1")
    certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
    for blob in certificate.cert_chain_pems:
        blob.write_to_path(tmp_path / "cert.pem", append=True)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    port = free_port()
    with RedisServer(
        tmp_path / "r",
        tls_port=port,
        tls_cert_file=str(tmp_path / "cert.pem"),
        tls_key_file=str(tmp_path / "key.pem"),
        tls_ca_cert_file=str(tmp_path / "ca.pem"),
        tls_auth_clients="no",
    ):
        url = f"rediss://127.0.0.1:{port}"
        await works(f"{url}?ssl_ca_certs={tmp_path / 'ca.pem'}")
        await refused(url, "certificate")


async def test_passwords(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A password and a user are taken from the URL; a wrong one is refused at once."""
    with RedisServer(tmp_path / "r", requirepass="hunter2") as server:
        port = server.port
        await works(f"redis://:hunter2@127.0.0.1:{port}")
        await works(f"redis://default:hunter2@127.0.0.1:{port}/2")
        said = [
            await refused(f"redis://:hunter3@127.0.0.1:{port}", "refuses .* password"),
            await refused(f"redis://you:hunter2@127.0.0.1:{port}", "user name"),
            await refused(f"redis://127.0.0.1:{port}", "asks for a password"),
            await refused(f"redis://:hunter2@127.0.0.1:{port}/99", "DB index"),
        ]
    assert "hunter" not in " ".join(said) + caplog.text


async def test_a_password_is_changed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A password that is changed while it works is a clear error until it is back."""
    with RedisServer(tmp_path / "r") as server:
        admin = RedisAdmin(server)
        await admin.open()
        async with Team(
            f"redis://me:hunter2@127.0.0.1:{server.port}", tmp_path
        ) as team:
            await admin.do("ACL SETUSER me on >hunter2 ~* &* +@all")
            (one,) = await team.workers(1)
            await put(one.store, "c", "1")
            await admin.do("ACL SETUSER me resetpass >other")
            await admin.do("CLIENT KILL USER me")

            async def is_told() -> bool:
                with pytest.raises(StoreUnavailable) as caught:
                    await put(one.store, "c", "no")
                return "refuses the user name or the password" in str(caught.value)

            await eventually(is_told)
            await admin.do("ACL SETUSER me resetpass >hunter2")
            await put_at_last(one, "c", "2")
            await eventually(lambda: texts(one.recorder.entries) == ["1", "2"])
        await admin.close()
    assert "hunter" not in caplog.text


async def test_a_user_with_few_rights(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A user needs the namespace's keys and channel, and the commands that are named.

    One that may not do what a publish needs is told so; one that may not ask INFO is
    warned, once, of what is not noticed then.
    """
    few = "resetkeys resetchannels ~{few}:* &{few}:* +@read +@write +@scripting "
    few += "+@pubsub +@connection +time"
    with RedisServer(tmp_path / "r") as server:
        admin = RedisAdmin(server)
        await admin.open()
        url = f"redis://me:secret@127.0.0.1:{server.port}"
        await admin.do(f"ACL SETUSER me on >secret {few} +info")
        await works(url, namespace="few")
        await refused(url, "namespace", namespace="other")
        assert not caplog.records
        await admin.do(f"ACL SETUSER me on >secret -@all {few} -info")
        await works(url, namespace="few")
        assert ["restarts and failovers are not noticed"] == [
            record.getMessage().partition("master_replid: ")[2].partition(",")[0]
            for record in caplog.records
        ]
        await admin.do("ACL SETUSER me -xadd")
        store = RedisStore(url, namespace="few")
        await open_store(store)
        with pytest.raises(StoreUnavailable, match="may not"):
            await put(store, "c", "1")
        await admin.do("ACL SETUSER me +xadd")
        await put(store, "c", "2")
        await store.close()
        await admin.close()


async def test_too_old(tmp_path: Path) -> None:
    """A Redis of a version that has not what is needed is refused by its version."""
    with RedisServer(tmp_path / "r") as server:
        version = next(
            line.split(b":")[1].strip()
            for line in server.command("INFO").splitlines()
            if line.startswith(b"redis_version")
        )
        old = b"6.0." + b"9" * (len(version) - 4)
        async with Proxy(server.port) as proxy:
            proxy.replace = (b"redis_version:" + version, b"redis_version:" + old)
            await refused(proxy.url, r"version 6\.0\.9*: .* 6\.2")


async def test_a_replica(tmp_path: Path) -> None:
    """A replica is not written to; opened on one, a store waits for the master."""
    with RedisServer(tmp_path / "a") as a, RedisServer(tmp_path / "b") as b:
        await follow(b, a)
        async with Team(b.url, tmp_path) as team:
            await put((await team.worker_at(a.url)).store, "c", "0")
            await in_step(b, a)
            store = team.new()
            await store.open(None, now=time.monotonic)
            for method in (put(store, "c", "1"), store.head()):
                with pytest.raises(StoreUnavailable, match="read-only replica"):
                    await method
            b.command("REPLICAOF", "NO", "ONE")
            await eventually(lambda: store.lineage is not None)
            await put(store, "c", "1")


async def set_and_reset(
    tmp_path: Path, spoil: list[str], repair: list[str], match: str
) -> None:
    """Check that a publish fails while the Redis is spoilt, and nothing else does."""
    with RedisServer(tmp_path / "r") as server:
        async with Team(server.url, tmp_path) as team:
            (one,) = await team.workers(1)
            done = await put(one.store, "c", "1")
            assert server.command(*spoil) == b"+OK\r\n"
            with pytest.raises(StoreUnavailable, match=match):
                await put(one.store, "c", "2")
            entries, floors = await read_all(one.store, ["c"], done.first - 1)
            assert (["1"], {}) == (texts(entries), floors)
            assert server.command(*repair) == b"+OK\r\n"
            await put(one.store, "c", "3")
            await eventually(lambda: texts(one.recorder.entries) == ["1", "3"])
            assert len(one.recorder.lineages) == 1


async def test_out_of_memory(tmp_path: Path) -> None:
    """A Redis without memory for more says so, naming maxmemory, and is read still."""
    await set_and_reset(
        tmp_path,
        ["CONFIG", "SET", "maxmemory", "1000"],
        ["CONFIG", "SET", "maxmemory", "0"],
        r"out of memory: raise maxmemory",
    )


async def test_too_few_replicas(tmp_path: Path) -> None:
    """A Redis that wants more replicas than it has says so."""
    await set_and_reset(
        tmp_path,
        ["CONFIG", "SET", "min-replicas-to-write", "1"],
        ["CONFIG", "SET", "min-replicas-to-write", "0"],
        "too few replicas",
    )


async def test_a_disk_that_cannot_be_written(tmp_path: Path) -> None:
    """A Redis that cannot save, and so takes no writes, says so."""
    with RedisServer(
        tmp_path / "r", save="10000 100000", enable_protected_configs="yes"
    ) as server:
        (server.folder / "taken").mkdir()
        async with Team(server.url, tmp_path) as team:
            (one,) = await team.workers(1)
            await put(one.store, "c", "1")
            server.command("CONFIG", "SET", "dbfilename", "taken")
            server.command("BGSAVE")
            await eventually(
                lambda: b"last_bgsave_status:err" in server.command("INFO")
            )
            with pytest.raises(StoreUnavailable, match=r"cannot save to its disk"):
                await put(one.store, "c", "2")
            server.command("CONFIG", "SET", "dbfilename", "dump.rdb")
            server.command("SAVE")
            await put(one.store, "c", "3")
            await eventually(lambda: texts(one.recorder.entries) == ["1", "3"])


async def test_loading(tmp_path: Path) -> None:
    """A Redis that loads its data says so, and is waited for."""
    with RedisServer(tmp_path / "r", appendonly="yes") as server:
        async with Team(server.url, tmp_path, max_events=5000) as team:
            (one,) = await team.workers(1)
            for turn in range(40):
                await put(one.store, f"c{turn}", *["x"] * 100)
            server.kill()
            # Of each command, in microseconds; it answers after each 1024 commands.
            server.options["key_load_delay"] = 400
            server.start(wait=False)
            said: list[str] = []

            async def is_loading() -> bool:
                with pytest.raises(StoreUnavailable) as caught:
                    await put(one.store, "c", "no")
                said.append(str(caught.value))
                return "it is loading its data" in said[-1]

            await eventually(is_loading)
            server.wait_until_ready()
            await put_at_last(one, "c", "end")
            await eventually(lambda: len(one.recorder.entries) == 4001)
            assert [] == one.recorder.lost


async def test_a_policy_that_evicts(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A Redis that drops keys when it is short of memory is warned of, once."""
    caplog.set_level(logging.INFO, logger="aiohttp_sse_routes")
    with RedisServer(
        tmp_path / "r", maxmemory="100mb", maxmemory_policy="allkeys-lru"
    ) as server:
        async with Team(server.url, tmp_path) as team:
            await team.workers(1)
            server.command("CLIENT", "KILL", "TYPE", "pubsub")
            await eventually(lambda: "is back" in caplog.text)
            assert ["maxmemory-policy allkeys-lru"] == [
                record.getMessage()[record.getMessage().index("maxmemory") :][:28]
                for record in caplog.records
                if record.levelno == logging.WARNING
            ]


async def test_scripts_are_forgotten(tmp_path: Path) -> None:
    """A Redis that has forgotten the scripts is told them again."""
    with RedisServer(tmp_path / "r") as server:
        async with Team(server.url, tmp_path) as team:
            (one,) = await team.workers(1)
            for turn in range(3):
                server.command("SCRIPT", "FLUSH")
                await asyncio.gather(*(put(one.store, "c", "x") for _ in range(50)))
                assert (turn + 1) * 50 == len((await read_all(one.store, ["c"]))[0])


async def test_another_use_of_the_namespace(tmp_path: Path) -> None:
    """Keys of another kind in the namespace are an error that says so."""
    with RedisServer(tmp_path / "r") as server:
        server.command("SET", "{sse}:m", "x")
        await refused(server.url, "keys of another kind")


async def test_logs_are_apart(tmp_path: Path) -> None:
    """Two namespaces, and two databases, never see each other's events."""
    with RedisServer(tmp_path / "r") as server:
        stores: list[tuple[RedisStore, Recorder]] = []
        for url, namespace in [
            (server.url, "a"),
            (server.url, "b"),
            (f"{server.url}/1", "a"),
            (f"{server.url}/1", "a:0"),
        ]:
            store, recorder = RedisStore(url, namespace=namespace), Recorder()
            await open_store(store, recorder)
            stores.append((store, recorder))
        for index, (store, _) in enumerate(stores):
            await put(store, "c", str(index))
        for index, (store, recorder) in enumerate(stores):
            await eventually(lambda r=recorder: r.entries)  # type: ignore[misc]
            assert [str(index)] == texts(recorder.entries)
            entries, _ = await read_all(store, ["c"])
            assert [str(index)] == texts(entries)
        assert (
            len({store.lineage.generation for store, _ in stores if store.lineage}) == 4
        )
        channels = server.command("PUBSUB", "CHANNELS")
        assert [True] * 4 == [
            b"\r\n" + name + b"\r\n" in channels
            for name in (b"{a}:0:live", b"{b}:0:live", b"{a}:1:live", b"{a:0}:1:live")
        ]
        for store, _ in stores:
            await store.close()


async def test_connections(tmp_path: Path) -> None:
    """A store has three connections, whatever is published at a time, and then none."""
    with RedisServer(tmp_path / "r") as server:
        async with Team(server.url, tmp_path) as team:
            (one,) = await team.workers(1)
            await asyncio.gather(*(put(one.store, "c", "x") for _ in range(500)))
            await asyncio.gather(*(one.store.head() for _ in range(50)))
            assert b"connected_clients:4" in server.command("INFO", "clients")
        await eventually(
            lambda: b"connected_clients:1" in server.command("INFO", "clients")
        )


@pytest.mark.parametrize("method", ["open", "append"])
async def test_the_process_was_forked(
    tmp_path: Path, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store that was opened before a fork says so in the child."""
    with RedisServer(tmp_path / "r") as server:
        async with Team(server.url, tmp_path) as team:
            store = await team.open()
            with monkeypatch.context() as child:
                child.setattr("os.getpid", lambda: 1)
                with pytest.raises(StoreError, match=r"fork|open already"):
                    await put(store, "c", "1")
            if method == "append":
                await put(store, "c", "1")


class RedisAdmin:
    """One connection that stays logged in, whatever is done to passwords."""

    def __init__(self, server: RedisServer) -> None:
        self._server = server
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def open(self) -> None:
        """Connect."""
        self._streams = await asyncio.open_connection("127.0.0.1", self._server.port)

    async def do(self, line: str) -> None:
        """Do what an inline command says."""
        assert self._streams is not None
        reader, writer = self._streams
        writer.write(line.encode() + b"\r\n")
        answer = await reader.readline()
        assert answer.startswith((b"+OK", b":")), answer

    async def close(self) -> None:
        """End."""
        assert self._streams is not None
        self._streams[1].close()
        await self._streams[1].wait_closed()
