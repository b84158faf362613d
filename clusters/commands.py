"""The commands of trainer, servers and router, which are the same for every cluster.

A command is a list of words. ``Expanded`` words hold a variable of the surrounding shell; all others are quoted.
"""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from clusters.cluster import Cluster

ROUTER_PORT = 30000
SERVER_PORT = 30001  # of the first server of a machine; the others have the next ports
RELAY_OFFSET = 1000  # from a server's port to that of its relay
COORDINATOR_PORT = 8476
_ADAPTERS = "/tmp/adapters"  # in a server's container, which its relay shares
# Arguments: the number of the relay's words, the relay's words, the server's words. The container ends with the server.
_WITH_RELAY = 'while kill -0 $$ 2> /dev/null; do "${@:2:$1}"; sleep 5; done & shift $(($1 + 1)); exec "$@"'
_COLUMNS = 110
_BREAK = " \\\n  "  # in the middle of a command


@dataclass(frozen=True)
class Expanded:
    """A word in which the shell expands variables, for instance ``--process_id=${RANK}``. Users' words never are."""

    text: str


Word = str | Expanded


def shell(words: Sequence[Word]) -> str:
    """One command for bash, broken over lines of at most 110 columns where words allow it."""
    lines, valued = [""], False
    for word in words:
        quoted = f'"{word.text}"' if isinstance(word, Expanded) else shlex.quote(word)
        if len(lines[-1]) + len(quoted) > _COLUMNS and not valued:
            lines.append("")
        lines[-1] += f" {quoted}" if lines[-1] else quoted
        valued = quoted.startswith("-") and "=" not in quoted  # its value stays on the same line
    return _BREAK.join(lines)


@dataclass(frozen=True)
class Process:
    """The JAX process of a GPU machine. TPU machines find these values by themselves."""

    coordinator: Word  # host of process 0
    index: Word


def trainer_words(cluster: Cluster, router: Word, process: Process | None) -> list[Word]:
    """The trainer on one host. Started again, the same command resumes from the work directory."""
    mesh = cluster.trainer.mesh
    words: list[Word] = ["python", "-m", "launch.train"]
    words += [f"--config={cluster.trainer.config}", f"--workdir={cluster.workdir}"]
    words += [f"--config.base.path={cluster.model_path}"]
    words += [f"--config.mesh.{axis}={size}" for axis, size in dict(mesh).items()]
    words += ["--config.engine.kind=sglang", join("--config.engine.url=", join("http://", router, f":{ROUTER_PORT}"))]
    words += [f"--config.engine.relay_port_offset={RELAY_OFFSET}"]
    if cluster.environments:
        words += [f"--environments={','.join(cluster.environments)}"]
    if cluster.trainer.machines > 1:
        words += ["--distributed"]
        if process:
            words += [join("--coordinator_address=", process.coordinator, f":{COORDINATOR_PORT}")]
            words += [f"--num_processes={cluster.trainer.machines}", join("--process_id=", process.index)]
    return [*words, *cluster.trainer.flags]


def trainer_script(cluster: Cluster, router: Word, process: Process | None) -> str:
    """Wait until the router has servers, then exec the trainer, so that SIGTERM reaches it."""
    url = join("--url=", join("http://", router, f":{ROUTER_PORT}/readiness"))
    wait: list[Word] = ["python", "-m", "clusters.wait", url, f"--seconds={cluster.startup_seconds}"]
    return f"set -euo pipefail\n{shell(wait)}\nexec {shell(trainer_words(cluster, router, process))}\n"


def one_line(script: str) -> str:
    """``script`` in one line, for programs that paste it into a line of their own."""
    return script.replace(_BREAK, " ").strip().replace("\n", "; ")


def server_words(cluster: Cluster, host: Word, port: Word, first_gpu: Word = "0") -> list[Word]:
    """One SGLang server. It listens on the address ``host``, which must not be public: the server has no password."""
    rollout = cluster.rollout
    return [
        *("python3", "-m", "sglang.launch_server", "--model-path", cluster.model_path),
        *("--host", host, "--port", port, "--base-gpu-id", first_gpu, "--tp-size", str(rollout.tensor_parallel)),
        *("--enable-lora", "--max-lora-rank", str(rollout.max_lora_rank), "--lora-target-modules", "all"),
        *("--max-loras-per-batch", str(rollout.max_loras_per_batch), "--enable-metrics"),
        *rollout.flags,
    ]


def with_relay(server: Sequence[Word], where: Word, host: Word, port: Word) -> list[Word]:
    """The command ``server``, which listens at ``where`` (HOST:PORT), with the relay that brings adapters to it.

    Trainer and servers share no disk. The relay listens at ``host`` and ``port``; ``host`` must not be public either.
    """
    relay = ["python3", "-m", "launch.relay", join("--server=http://", where), f"--directory={_ADAPTERS}"]
    relay += [join("--host=", host), join("--port=", port)]
    return ["bash", "-c", _WITH_RELAY, "with-relay", str(len(relay)), *relay, *server]


def router_words(cluster: Cluster, host: Word, servers: Sequence[Word]) -> list[Word]:
    """The router in front of all servers; ``servers`` are host:port. cache_aware keeps a group's prefix on one server.

    The trainer gets the list of servers from the router. It sends all other requests directly to the servers, because
    the router does not forward adapters.
    """
    return [
        *("python3", "-m", "sglang_router.launch_router", "--host", host, "--port", str(ROUTER_PORT)),
        *("--policy", "cache_aware", "--worker-startup-timeout-secs", str(cluster.startup_seconds)),
        *("--worker-urls", *(join("http://", server) for server in servers)),
    ]


def platforms(cluster: Cluster) -> str:
    """JAX_PLATFORMS of the trainer: a machine whose accelerator does not start must fail, not train on its CPU."""
    return "tpu,cpu" if cluster.trainer.tpu else "cuda,cpu"


def join(before: str, word: Word, after: str = "") -> Word:
    """One word of three parts."""
    if isinstance(word, Expanded):
        return Expanded(f"{before}{word.text}{after}")
    return f"{before}{word}{after}"
