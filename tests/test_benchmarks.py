"""The benchmarks run to their end, with tiny numbers; how fast is no matter here."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from benchmarks import report, run, stores, tables
from benchmarks.delivery import late, percentile
from benchmarks.plot import PANELS, plot
from benchmarks.processes import Child, cpu_seconds, memory
from benchmarks.scene import Metric, Peer, Place, Scene, Sizes, lacks

TINY = Sizes(
    connections=10,
    deliveries=20,
    seconds=0.02,
    missed=4,
    publishes=20,
    probes=3,
    large=2,
    settle=0.02,
)

# What the tests' environment has; the others' is made by `make bench`.
HERE = ("benchmarks.apps:", "benchmarks.floor:", "benchmarks.decoder:ours")

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="the benchmarks run on Linux alone"
)


def cases() -> Iterator[tuple[Scene, Peer]]:
    """Yield each scene with one peer, each server, and each scene in each way once."""
    found: set[tuple[str, ...]] = set()
    for scene in run.SCENES.values():
        for peer in scene.peers:
            known = {(scene.name,), (peer.target, peer.store), (peer.loop,)}
            known |= {(scene.name, str(value)) for value in peer.options.values()}
            if peer.target.startswith(HERE) and not known <= found:
                found |= known
                yield scene, peer


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("scene", "peer"), [*cases()], ids=lambda value: value.name.replace(" ", "-")
)
def test_a_peer_is_measured(scene: Scene, peer: Peer) -> None:
    """A peer gives each of its scene's numbers, and none that is below 0."""
    if missing := lacks(peer):
        pytest.skip(f"there is no {missing}")
    with run.place(peer) as place:
        measured = scene.measure(peer, TINY.of(scene), place)
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
    measures: tables.Measures = {
        "one": [{"cpu": 1.0}, {"cpu": 10.0}, {"cpu": 2.0}],
        "two": [{"cpu": 2.0}, {"cpu": 30.0}, {"cpu": 8.0}],
    }
    scene = scene_of("one", "two")
    assert {"one": 1.0, "two": 3.0} == tables.ratios(scene, measures)
    assert ["  two  8.0  2.0 - 30.0  3.00 x"] == [
        line for line in tables.text(scene, measures) if "two" in line
    ]
    assert ["| two | 8.0 | 2.0 - 30.0 | 3.00 x |"] == [
        line for line in tables.markdown(scene, measures) if "two" in line
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
    with Child("benchmarks.floor:bare") as child:
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
    with Child("benchmarks.floor:bare") as child:
        before = child.cpu()
        child.ask("pace", count=200, batch=10, interval=0.0, way="publish", size=0)
        assert child.cpu() > before
        (pid,) = child.pids
        assert child.cpu() == pytest.approx(cpu_seconds(pid), abs=1.0)
        assert memory(pid) > 1_000_000


def test_a_delivery_is_late_from_its_own_publish() -> None:
    """What comes is counted for the events in their order, however it comes."""
    # Of the second event's four, one came with the last of the first's.
    came = [(1.1, 3), (1.3, 2), (2.5, 3)]
    first, second = late([1.0, 2.0], came, 4)
    assert [3, 1] == [marks for _, marks in first]
    assert [0.1, 0.3] == pytest.approx([lag for lag, _ in first])
    assert [1, 3] == [marks for _, marks in second]
    assert [-0.7, 0.5] == pytest.approx([lag for lag, _ in second])


def test_a_percentile_counts_weights() -> None:
    """A percentile is a value that was there, each as often as its weight says."""
    assert 1.0 == percentile([(9.0, 1), (1.0, 99)], 0.99)
    assert 9.0 == percentile([(9.0, 2), (1.0, 98)], 0.99)


def test_a_failing_peer_costs_the_others_nothing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A peer that fails is told and has no row; the others are measured to the end."""

    def measure(peer: Peer, sizes: Sizes, place: Place) -> Mapping[str, float]:
        if peer.name == "two":
            raise RuntimeError("it is broken")
        return {"cpu": 1.0}

    peers = [Peer(name, "") for name in ("one", "two", "three")]
    scene = Scene("s", "title", peers, {"cpu": Metric("µs")}, "one", measure)
    assert {"one": 2, "three": 2} == {
        name: len(rounds) for name, rounds in run.measured(scene, TINY, 2).items()
    }
    assert "two: FAILED: it is broken" in capsys.readouterr().out


def test_a_report_is_put_between_the_marks_of_a_page(tmp_path: Path) -> None:
    """A page keeps its words and has the new figures alone; a plot is drawn."""
    found = tmp_path / "bench.json"
    found.write_text(json.dumps(figures()), "utf-8")
    page, drawn = tmp_path / "page.md", tmp_path / "page.svg"
    page.write_text(
        f"# Before\n\n{report.BEGIN}\nthose of before\n{report.END}\n\nAfter\n"
    )
    for _ in range(2):
        report.main([str(found), "--into", str(page), "--plot", str(drawn)])
    text = page.read_text("utf-8")
    assert text.startswith(f"# Before\n\n{report.BEGIN}\n\nOn a processor, ")
    assert text.endswith(f"\n\n{report.END}\n\nAfter\n")
    assert "those of before" not in text
    assert 1 == text.count("### What one core holds")
    # 70 % of a second is 35,000 times 20 µs.
    assert "| deliveries a second, 1,000 connections | 35,000 |  |" in text
    for scene, *_ in PANELS:
        assert 1 == text.count(f"`{scene}`")
    assert "](page.svg)" in text
    assert "FastAPI" in drawn.read_text("utf-8")


def test_a_page_without_marks_is_refused() -> None:
    """A page that has no place for figures is not written over."""
    with pytest.raises(SystemExit, match="the page needs two lines"):
        report.put("# Benchmarks\n", ["figures"])


def test_the_page_of_the_documentation_has_its_marks() -> None:
    """The page that the figures are put in has a place for them."""
    page = Path(__file__).parents[1] / "docs/reference/benchmarks.md"
    assert "here" in report.put(page.read_text("utf-8"), ["here"])


def test_a_plot_is_the_same_for_the_same_numbers() -> None:
    """The plot is well-formed, has each bar, and no more in it than the numbers."""
    drawn = plot(figures())
    assert plot(figures()) == drawn
    namespace = "{http://www.w3.org/2000/svg}"
    bars = ET.fromstring(drawn).findall(f"{namespace}rect")
    assert 1 + 2 * len(PANELS) == len(bars)


def figures() -> dict[str, Any]:
    """Return what a run writes, of the scenes that are drawn."""
    return {
        "versions": {"processor": "a processor", "system": "s", "python": "p"},
        "rounds": 2,
        "scenes": {
            name: {
                "measures": {
                    peer: [
                        dict.fromkeys(run.SCENES[name].metrics, 20.0 + number)
                        for number in (-1, 1)
                    ]
                    for peer in ("aiohttp-sse-routes", "FastAPI")
                }
            }
            for name, *_ in PANELS
        },
    }


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
