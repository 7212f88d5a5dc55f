"""The suite on a live cluster, and suites that are wrong on purpose."""

from __future__ import annotations

import json
import signal
import subprocess
import textwrap
import time
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import jsonschema
import pytest

import saf_env
from saf_env.errors import UsageError, WorkloadError
from saf_env.harness import live
from saf_env.harness.runner import PROJECT, SUITE, command, require_right, run_suite
from saf_env.report.model import read
from saf_env.report.runs import new_run
from saf_env.report.terminal import draw
from saf_env.transports.local import LocalTransport

SCHEMA = Path(saf_env.__file__).parent / "schemas" / "report.json"


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    return new_run(tmp_path / "runs")


@pytest.fixture
def run(live_cluster, run_dir: Path):
    def on_the_cluster(*words: str, **options: Any) -> dict[str, Any]:
        return run_suite(
            options.get("live_file", live_cluster.live_file),
            live_cluster.driver_python,
            run_dir,
            words,
            LocalTransport(),
            live_cluster.env,
            quick=True,
            suite=options.get("suite", SUITE),
        )

    return on_the_cluster


@pytest.fixture
def suite(tmp_path: Path):
    def with_tests(source: str) -> Path:
        folder = tmp_path / "suite é"
        folder.mkdir()
        (folder / "pytest.ini").write_text((SUITE / "pytest.ini").read_text("utf-8"), "utf-8")
        (folder / "test_ours.py").write_text(textwrap.dedent(source), "utf-8")
        return folder

    return with_tests


def verdicts(report: dict[str, Any]) -> dict[tuple[str, str], str]:
    return {(o["workload"], o["node"]): o["verdict"] for o in report["outcomes"]}


def test_the_suite_is_right_on_every_node(run, run_dir, live_cluster, capsys) -> None:
    report = run()
    nodes = live.load(live_cluster.live_file).nodes
    mlx = [n.name for n in nodes if "mlx" in n.groups]
    wanted = {(w, n.name): "right" for w in ("pi", "bandwidth", "scaling") for n in nodes}
    assert mlx
    assert verdicts(report) == {**wanted, **{("matmul", name): "right" for name in mlx}}
    require_right(report)
    jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text("utf-8"))).validate(report)
    for outcome in report["outcomes"]:
        assert list(outcome["stages"]) == ["place", "run", "verify", "measure"]
        assert outcome["share"] == pytest.approx(outcome["figure"] / outcome["limit"])
        assert outcome["details"]["worker"]["nice"] == 0
    cases = ElementTree.parse(run_dir / "junit.xml").findall(".//testcase")
    assert len(cases) == len(report["outcomes"])
    draw(read(run_dir / "report.json"))
    assert f"ok: {len(cases)} of {len(cases)} right" in capsys.readouterr().out


def test_words_choose(run, live_cluster) -> None:
    worker = live.load(live_cluster.live_file).nodes[-1].name
    assert verdicts(run("scaling", worker)) == {("scaling", worker): "right"}


def test_words_for_nothing(run, run_dir) -> None:
    with pytest.raises(UsageError, match="no test of the suite was selected"):
        run("nothing-is-called-this")
    assert not (run_dir / "report.json").exists()


def test_nothing_of_ours_is_on_the_nodes(run, suite) -> None:
    report = run(
        suite=suite(
            """
            from saf_env.workloads import trial as ours

            HERE = "the driver"

            def here():
                return HERE

            def look():
                import importlib.util
                return here(), importlib.util.find_spec("saf_env") is None

            def test_travels(node, on):
                assert on(node).run(look) == ("the driver", True)
            """
        )
    )
    assert set(verdicts(report).values()) == {"right"}, report["outcomes"]


WRONG = """
    import numpy as np
    import pytest

    from saf_env.workloads import bandwidth, matmul, pi, scaling
    from saf_env.workloads.kernels import matrix, memory, monte_carlo

    def biased(seed, stream, samples):
        return int(samples * 0.79)

    def lossy(seed, stream, samples):
        import ray
        right = monte_carlo.count_inside(seed, stream, samples)
        return right - 1 if ray.is_initialized() and ray.get_runtime_context().worker.mode == 1 \\
            else right

    def half(seed, n):
        out = {"device": "d", "mlx": "m"}
        for name, make in (("normal", matrix.normal), ("whole", matrix.whole)):
            a, b = (m.astype(np.float16).astype(np.float32) for m in make(seed, n))
            out[name] = a @ b
        return out

    def short(elements, passes):
        return {**memory.stream(elements, passes), "triad_sha256": "0" * 64}

    @pytest.mark.saf_nodes(role="head")
    @pytest.mark.parametrize(("workload", "name", "kernel"), [
        (pi, "count_inside", biased),
        (pi, "count_inside", lossy),
        (scaling, "count_inside", lossy),
        (bandwidth, "stream", short),
    ], ids=["biased", "lossy", "lossy-scaling", "short"])
    def test_broken(node, on, trial, monkeypatch, workload, name, kernel):
        monkeypatch.setattr(workload, name, kernel)
        workload.run(on(node), trial)

    @pytest.mark.saf_nodes(group="mlx")
    def test_half(node, on, trial, monkeypatch):
        monkeypatch.setattr(matrix, "products", half)
        matmul.run(on(node), trial)
"""


def test_a_wrong_answer_is_a_failure(run, suite) -> None:
    report = run(suite=suite(WRONG))
    assert {o["verdict"] for o in report["outcomes"]} == {"wrong"}, report["outcomes"]
    assert all(o["message"].startswith("stage verify: ") for o in report["outcomes"])
    assert all(o["figure"] is None for o in report["outcomes"])
    with pytest.raises(WorkloadError, match="5 of 5 workloads failed") as caught:
        require_right(report)
    assert caught.value.exit_code == 7


BAD = """
    import os
    import time

    import pytest

    pytestmark = pytest.mark.saf_nodes(role="head")

    def raises(): raise ValueError("\\x1b[2Jno such thing")
    def leaves(): os._exit(3)
    def hangs(): time.sleep(600)
    def echo(): return 42

    def test_raises(node, on, trial):
        with trial.stage("run"):
            on(node).run(raises)

    def test_leaves(node, on, trial):
        with trial.stage("run"):
            on(node).run(leaves)

    @pytest.mark.saf_timeout(3)
    def test_hangs(node, on, trial):
        with trial.stage("run"):
            on(node).run(hangs)

    @pytest.mark.saf_timeout(3)
    def test_wants_too_much(node, on, trial):
        with trial.stage("place"):
            on(node).run(echo, cpus=1000)

    def test_no_figure(node, on, trial):
        with trial.stage("measure"):
            trial.measured(float("nan"), "GB/s")

    def test_the_node_is_well_after_all_that(node, on):
        assert on(node).run(echo) == 42
"""


def test_bad_workloads_are_errors_with_their_stage(run, suite) -> None:
    report = run(suite=suite(BAD))
    seen = {o["workload"]: (o["verdict"], o["message"]) for o in report["outcomes"]}
    assert seen["raises"] == ("error", r"stage run: ValueError: \x1b[2Jno such thing")
    assert seen["leaves"][0] == "error"
    assert seen["leaves"][1].startswith("stage run: ")
    assert seen["hangs"][1].startswith("stage run: not done after 3 s")
    assert seen["wants_too_much"][1].startswith("stage place: not done after 3 s")
    assert seen["no_figure"] == ("error", "stage measure: ValueError: nan GB/s is no figure")
    assert seen["the_node_is_well_after_all_that"] == ("right", "")


def test_a_node_that_is_gone_fails_its_own_tests(run, live_cluster, tmp_path) -> None:
    value = json.loads(live_cluster.live_file.read_text("utf-8"))
    value["nodes"].append({**value["nodes"][-1], "name": "ghost", "node_id": "f" * 56})
    path = tmp_path / "live.json"
    path.write_text(json.dumps(value), "utf-8")
    report = run("scaling", live_file=path)
    seen = verdicts(report)
    assert seen.pop(("scaling", "ghost")) == "error"
    assert set(seen.values()) == {"right"}
    assert "the node is not part of the cluster" in report["outcomes"][-1]["message"]


def test_no_cluster_at_all(run, live_cluster, tmp_path) -> None:
    value = json.loads(live_cluster.live_file.read_text("utf-8"))
    path = tmp_path / "live.json"
    path.write_text(json.dumps({**value, "address": "127.0.0.1:1"}), "utf-8")
    started = time.monotonic()
    report = run("pi", live_file=path)
    assert time.monotonic() - started < 20
    assert set(verdicts(report).values()) == {"error"}
    assert "the head does not answer at 127.0.0.1:1" in report["outcomes"][0]["message"]


def test_interrupted(live_cluster, run_dir) -> None:
    argv = command(live_cluster.live_file, live_cluster.driver_python, run_dir, [], True, SUITE)
    env = {**live_cluster.env, "PYTHONPATH": str(PROJECT)}
    worker = live.load(live_cluster.live_file).nodes[1].name
    with subprocess.Popen(argv, env=env, cwd=run_dir, stdout=subprocess.PIPE, text=True) as driver:
        assert driver.stdout is not None
        seen = ""
        while not seen.endswith(f"pi on {worker} ... "):  # the second test has begun
            seen += driver.stdout.read(1) or pytest.fail(f"the driver ended: {seen}")
        driver.send_signal(signal.SIGINT)
        assert driver.wait(60) == pytest.ExitCode.INTERRUPTED
    report = read(run_dir / "report.json")
    assert report.verdict == "failed"
    assert [o.verdict for o in report.outcomes] == ["right", "error"]
    assert report.outcomes[1].message.endswith("interrupted")


def test_a_driver_that_dies_leaves_what_it_saw(run, run_dir, suite) -> None:
    source = """
        import os

        def test_fine(): ...
        def test_dies(): os.kill(os.getpid(), 9)
    """
    report = run(suite=suite(source))
    assert verdicts(report) == {("fine", ""): "right"}
    with pytest.raises(WorkloadError, match="cut short"):
        require_right(report)


def test_no_report_at_all(live_cluster, run_dir) -> None:
    python = Path("/bin/false")
    with pytest.raises(WorkloadError, match="ended with code 1 and left no report"):
        run_suite(live_cluster.live_file, python, run_dir, [], LocalTransport(), {})


PLAIN = "import time\ndef double(n): return 2 * n\ndef hang(): time.sleep(60)\n"


def test_plain_processes_run_together() -> None:
    from saf_env.workloads.kernels.plain import run_together

    answer = run_together(PLAIN, "double", [{"n": 1}, {"n": 2}], 20)
    assert answer["results"] == [2, 4]
    assert answer["seconds"] < 20


@pytest.mark.parametrize(
    ("source", "function", "why"),
    [
        (PLAIN, "hang", f"ended with {-signal.SIGALRM}"),
        (PLAIN, "nothing", "KeyError: 'nothing'"),
        ("import nothing_of_this_name", "f", "No module named 'nothing_of_this_name'"),
        ("import os\ndef f(): os._exit(3)", "f", "ended with 3: it printed nothing"),
    ],
)
def test_a_plain_process_that_fails_says_why(source: str, function: str, why: str) -> None:
    from saf_env.workloads.kernels.plain import run_together

    with pytest.raises(RuntimeError, match=why):
        run_together(source, function, [{}], 1)


def test_the_driver_needs_no_more_than_its_environment(live_cluster) -> None:
    code = "import sys, saf_env.harness.plugin; print(*sorted(m for m in sys.modules))"
    env = {**live_cluster.env, "PYTHONPATH": str(PROJECT)}
    argv = [str(live_cluster.driver_python), "-c", code]
    modules = LocalTransport().run(argv, env=env, timeout=60).stdout.split()
    tops = {name.partition(".")[0] for name in modules}
    assert "saf_env" in tops
    assert not tops & {"rich", "jsonschema", "filelock", "shtab", "ray"}
