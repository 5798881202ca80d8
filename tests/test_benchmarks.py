"""The benchmarks run to their end, with tiny numbers; how fast is no matter here."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from benchmarks import run, stores
from benchmarks.processes import Child, cpu_seconds, memory
from benchmarks.scene import Metric, Peer, Place, Scene, Sizes, lacks

TINY = Sizes(connections=3, events=2, batches=2, missed=4, publishes=20, probes=3)

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="the benchmarks run on Linux alone"
)


def cases() -> list[tuple[Scene, Peer]]:
    """Return each scene with one peer, and each server with each store once."""
    found: dict[tuple[str, ...], tuple[Scene, Peer]] = {}
    for scene in run.SCENES.values():
        known = len(found)
        for peer in scene.peers:
            found.setdefault((peer.target, peer.store, *peer.options), (scene, peer))
        if len(found) == known:
            found[(scene.name,)] = scene, scene.peers[0]
    return [*found.values()]


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("scene", "peer"), cases(), ids=lambda value: value.name.replace(" ", "-")
)
def test_a_peer_is_measured(scene: Scene, peer: Peer) -> None:
    """A peer gives each of its scene's numbers, and none that is below 0."""
    if missing := lacks(peer):
        pytest.skip(f"there is no {missing}")
    with run.place(peer) as place:
        measured = scene.measure(peer, TINY, place)
    assert set(scene.metrics) == set(measured)
    # A few kilobytes may have been given back meanwhile.
    assert [] == [k for k, v in measured.items() if v < 0 and k != "memory"]


@pytest.mark.timeout(60)
def test_the_program_writes_what_it_has_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The program prints versions and a table, and writes every round's numbers."""
    path = tmp_path / "found" / "all.json"
    words = ["publish-alone", "--rounds", "1", "--scale", "0.001", "--json", str(path)]
    run.main(words)
    printed = capsys.readouterr().out
    assert "aiohttp-sse-routes: " in printed
    assert "publishes a second" in printed
    found = json.loads(path.read_text())
    rounds = found["scenes"]["publish-alone"]["measures"]["memory"]
    assert 1 == len(rounds) == found["rounds"]
    assert all(numbers["rate"] > 0 for numbers in rounds)


def test_an_unknown_scene_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """A scene that is not there is named, and nothing is run."""
    with pytest.raises(SystemExit):
        run.main(["fan-uot"])
    assert "fan-uot" in capsys.readouterr().err


def test_ratios_are_of_the_same_round() -> None:
    """A ratio is the median over the rounds of the two measures of one round."""
    measures: run.Measures = {
        "one": [{"cpu": 1.0}, {"cpu": 10.0}, {"cpu": 2.0}],
        "two": [{"cpu": 2.0}, {"cpu": 30.0}, {"cpu": 8.0}],
    }
    scene = scene_of("one", "two")
    assert {"one": 1.0, "two": 3.0} == run.ratios(scene, measures)
    assert ["3.00 x"] == [
        line[-6:] for line in run.table(scene, measures) if "two" in line
    ]


def test_rounds_alternate() -> None:
    """Each second round measures the peers the other way round."""
    order: list[str] = []
    run.measured(scene_of("one", "two", seen=order), TINY, 3)
    assert ["one", "two", "two", "one", "one", "two"] == order


def test_what_is_not_installed_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    """A peer whose module is missing is left out with a word; the others are not."""
    order: list[str] = []
    scene = scene_of("one", "two", seen=order, needs=("no_such_module_at_all",))
    assert {"one": [], "two": []} != run.measured(scene, TINY, 1)
    assert ["one"] == order
    assert "two: left out, there is no no_such_module_at_all" in capsys.readouterr().out


def test_a_failure_in_a_process_is_told() -> None:
    """What a worker's method raises is raised here, with its text."""
    with Child("benchmarks.apps:bare") as child:
        with pytest.raises(RuntimeError, match="AttributeError"):
            child.ask("no_such_method")
        assert child.ask("port") > 0
    with (
        pytest.raises(RuntimeError, match="StoreError"),
        Child("benchmarks.apps:publisher", store="sqlite:/no/such/folder/x.db"),
    ):
        pytest.fail("it cannot be opened")


def test_a_process_is_measured_from_outside() -> None:
    """What a process burns is seen by its id, and so is what it holds."""
    with Child("benchmarks.apps:bare") as child:
        before = child.cpu()
        child.ask("pace", count=200, batch=10, interval=0.0)
        assert child.cpu() > before
        assert child.cpu() == pytest.approx(cpu_seconds(child.pid), abs=1.0)
        assert memory(child.pid) > 1_000_000


def test_every_scene_has_its_reference() -> None:
    """The peer that ratios are taken to is one of the scene's."""
    for scene in run.SCENES.values():
        assert scene.reference in {peer.name for peer in scene.peers}
    assert {scene.name for scene in stores.SCENES} <= set(run.SCENES)


def scene_of(
    *names: str, seen: list[str] | None = None, needs: tuple[str, ...] = ()
) -> Scene:
    """Return a scene of peers that are called so; the last one needs *needs*."""

    def measure(peer: Peer, sizes: Sizes, place: Place) -> Mapping[str, float]:
        if seen is not None:
            seen.append(peer.name)
        return {"cpu": 1.0}

    peers = [Peer(name, "", needs=needs if name == names[-1] else ()) for name in names]
    return Scene("s", "title", peers, {"cpu": Metric("us")}, names[0], measure)
