"""The plugin inside pytest, in this process and without a cluster: choosing and recording."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest_plugins = ["pytester"]

NODE = {"host": "here", "kind": "native", "platform": "linux-x86_64"}
LIVE = {
    "schema": 1,
    "cluster": "local",
    "address": "127.0.0.2:1",
    "node_ip": "127.0.0.2",
    "head": "head",
    "nodes": [
        {**NODE, "name": "head", "role": "head", "groups": ["mlx"]},
        {**NODE, "name": "linux", "role": "worker"},
    ],
}
SUITE = """
    import pytest

    def test_pi(node): ...

    @pytest.mark.saf_nodes(group="mlx")
    def test_matmul(node): ...

    @pytest.mark.saf_nodes(group="cuda")
    def test_cuda(node): ...

    def test_plain(): ...
"""


def run(pytester: pytest.Pytester, *options: str, live: bool = True) -> pytest.RunResult:
    path = pytester.path / "live.json"
    path.write_text(json.dumps(LIVE), "utf-8")
    given = [f"--saf-live={path}"] if live else []
    return pytester.runpytest_inprocess("-p", "saf_env.harness.plugin", *given, *options)


def collected(pytester: pytest.Pytester, *words: str) -> list[str]:
    pytester.makepyfile(SUITE)
    options = [f"--saf-select={word}" for word in words]
    result = run(pytester, "--collect-only", "-q", *options)
    return [line.split("::")[1] for line in result.outlines if "::" in line]


def recorded(pytester: pytest.Pytester, source: str, *options: str) -> dict[str, Any]:
    pytester.makepyfile(source)
    folder = pytester.path / "run"
    folder.mkdir()
    (pytester.path / "live.json").write_text(json.dumps(LIVE), "utf-8")
    ours = ("--saf-live=live.json", f"--saf-run-dir={folder}")
    pytester.inline_run("-p", "saf_env.harness.plugin", *ours, *options, no_reraise_ctrlc=True)
    report: dict[str, Any] = json.loads((folder / "report.json").read_text("utf-8"))
    return report


def test_one_test_a_node_and_none_where_none_fits(pytester: pytest.Pytester) -> None:
    assert collected(pytester) == [
        "test_pi[head]",
        "test_pi[linux]",
        "test_matmul[head]",
        "test_plain",
    ]


def test_selection(pytester: pytest.Pytester) -> None:
    assert collected(pytester, "linux") == ["test_pi[linux]"]


def test_a_word_for_nothing(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(SUITE)
    result = run(pytester, "--saf-select=haed")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*'haed' is no node, workload or test id. Nodes: head, linux.*"])


def test_no_cluster(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(SUITE)
    result = run(pytester, live=False)
    result.stdout.fnmatch_lines(["*tests on nodes need a live cluster: --saf-live FILE*"])
    assert result.ret != pytest.ExitCode.OK


def test_a_misspelt_condition(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(SUITE.replace("group=", "grup="))
    result = run(pytester)
    result.stdout.fnmatch_lines(["*nodes cannot be chosen by grup*"])


def test_verdicts(pytester: pytest.Pytester) -> None:
    report = recorded(
        pytester,
        """
        import pytest
        from saf_env.workloads.trial import WrongAnswerError

        def test_right(): ...
        def test_wrong(): raise WrongAnswerError("pi is 4", hint="Look again.")
        def test_assert(): assert 3 == 4, "three is not four"
        def test_raises(): raise KeyError("lost")
        def test_skips(): pytest.skip("no time")
        @pytest.fixture
        def broken(): raise AssertionError("no ground to stand on")
        def test_setup(broken): ...
        @pytest.fixture
        def leaky():
            yield
            raise OSError("left open")
        def test_teardown(leaky): ...
        """,
    )
    seen = {o["workload"]: (o["verdict"], o["message"]) for o in report["outcomes"]}
    assert seen["right"] == ("right", "")
    assert seen["wrong"] == ("wrong", "pi is 4. Look again.")
    assert seen["assert"][0] == "wrong"
    assert seen["raises"] == ("error", "KeyError: 'lost'")
    assert seen["skips"][0] == "error"
    assert seen["setup"] == ("error", "no ground to stand on")
    assert seen["teardown"] == ("error", "OSError: left open")
    assert report["verdict"] == "failed"


def test_lines_say_what_runs_and_what_came_of_it(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_fine(): ...")
    (pytester.path / "run").mkdir()
    result = run(pytester, f"--saf-run-dir={pytester.path / 'run'}", "-qq", "--no-summary")
    result.stdout.re_match_lines([r"^fine \.\.\. right, \d\.\d s$"])


def test_all_right_is_ok(pytester: pytest.Pytester) -> None:
    report = recorded(pytester, "def test_right(): ...")
    assert report["verdict"] == "ok"
    assert report["cluster"] == "local"
    assert [n["name"] for n in report["nodes"]] == ["head", "linux"]


def test_stopping_early_is_not_ok(pytester: pytest.Pytester) -> None:
    report = recorded(
        pytester,
        """
        def test_right(): ...
        def test_stops(): raise KeyboardInterrupt
        def test_never(): ...
        """,
    )
    assert report["verdict"] == "failed"
    assert [(o["workload"], o["verdict"], o["message"]) for o in report["outcomes"]] == [
        ("right", "right", ""),
        ("stops", "error", "interrupted"),
    ]


def test_a_file_that_cannot_be_collected(pytester: pytest.Pytester) -> None:
    report = recorded(pytester, "import nothing_of_this_name")
    assert report["verdict"] == "failed"
    assert "nothing_of_this_name" in report["outcomes"][0]["message"]


def test_nothing_to_report_leaves_no_report(pytester: pytest.Pytester, tmp_path: Path) -> None:
    pytester.makepyfile("")
    run(pytester, f"--saf-run-dir={tmp_path}")
    assert not (tmp_path / "report.json").exists()


def test_figures_reach_junit(pytester: pytest.Pytester) -> None:
    recorded(
        pytester,
        """
        import pytest
        from saf_env.harness.recorder import TRIAL
        from saf_env.workloads.trial import Trial

        def test_pi(request):
            request.node.stash[TRIAL] = Trial("pi", "head")
            request.node.stash[TRIAL].measured(345.0, "Msamples/s", limit=690.0)
        """,
        "--junitxml=junit.xml",
    )
    text = (pytester.path / "junit.xml").read_text("utf-8")
    assert '<property name="figure" value="345.0"' in text
    assert '<property name="share" value="0.5"' in text
