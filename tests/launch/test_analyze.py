import json
import subprocess
from pathlib import Path

from programs import run_program

FIXTURE = Path(__file__).parents[1] / "analysis" / "fixtures" / "tau_bench_airline.json"


def analyze(workdir: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    flags = "--config=configs/analyze_tau_bench.py", f"--workdir={workdir}", *flags
    return run_program("launch.analyze", *flags)


def test_a_real_file_gives_a_table_and_files(tmp_path: Path) -> None:
    done = analyze(tmp_path, f"--config.source.path={FIXTURE}")
    assert done.returncode == 0, done.stderr
    assert "3 passed, 3 failed, 0 broken." in done.stdout and "| refuse_forbidden |" in done.stdout
    assert "| polite_tone* |" in done.stdout
    assert (tmp_path / "analysis_report.json").exists()


def test_another_file_is_not_analysed_with_the_labels_of_the_first(tmp_path: Path) -> None:
    episodes = json.loads(FIXTURE.read_text())
    other = tmp_path / "other.json"
    other.write_text(json.dumps(episodes[:-1]))
    workdir = tmp_path / "run"
    assert analyze(workdir, f"--config.source.path={FIXTURE}").returncode == 0
    done = analyze(workdir, f"--config.source.path={other}")
    assert done.returncode == 1 and "use a new directory" in done.stderr and done.stderr.count("\n") == 1


def test_a_broken_episode_is_counted_by_cause_and_the_others_are_analysed(tmp_path: Path) -> None:
    episodes = json.loads(FIXTURE.read_text())
    assert episodes[0]["reward"] == 0.0
    episodes[0]["reward"] = float("nan")
    odd = tmp_path / "odd.json"
    odd.write_text(json.dumps(episodes))
    done = analyze(tmp_path / "run", f"--config.source.path={odd}")
    assert done.returncode == 0, done.stderr
    assert "3 passed, 2 failed, 1 broken." in done.stdout
    assert f"{odd}: episode 0: the reward is not a number from 0 to 1 ('NaN'): correct it there" in done.stderr
    assert "1 of 6 episodes are broken and will not be analysed: 1 × the reward is not a number" in done.stderr


def test_bad_input_is_one_line_and_a_status(tmp_path: Path) -> None:
    for flags, words in (
        ((), "source.path is empty"),
        (("--config.source.path=/nowhere.json",), "/nowhere.json"),
        (
            (f"--config.source.path={FIXTURE}", "--config.analysis.analyst=llm"),
            "analysis.analyst is llm, and there is no endpoint",
        ),
        (
            (f"--config.source.path={FIXTURE}", "--config.source.format=csv"),
            "no importer 'csv': known are",
        ),
    ):
        done = analyze(tmp_path, *flags)
        assert done.returncode == 1 and words in done.stderr
        assert done.stderr.strip().count("\n") == 0
