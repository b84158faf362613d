"""Containers on machines outside of Kubernetes (TPU VMs, GPU boxes, SkyPilot machines), as lines for bash.

Every container has a fixed name, so that the start of a role first ends its previous container. Docker restarts servers
and router when they die. The trainer ends with its command. Values of secrets stay in the environment.
"""

import shlex
from collections.abc import Iterable, Mapping, Sequence

from clusters.cluster import Cluster
from clusters.commands import (
    RELAY_OFFSET,
    SERVER_PORT,
    Expanded,
    Word,
    join,
    platforms,
    router_words,
    server_words,
    shell,
    with_relay,
)

_REGISTRY = ".pkg.dev"  # Artifact Registry; other registries are public, or the machine's image has logged in to them


def images(*names: str) -> str:
    """Pull the images; log in to Artifact Registry first."""
    lines = []
    for host in dict.fromkeys(name.split("/", 1)[0] for name in names):
        if host.endswith(_REGISTRY):
            login = f"sudo docker login --username oauth2accesstoken --password-stdin {shlex.quote(f'https://{host}')}"
            lines.append(f"gcloud auth print-access-token | {login}")
    lines += [f"sudo docker pull --quiet {shlex.quote(name)}" for name in dict.fromkeys(names)]
    return "\n".join(lines)


def model_copy(cluster: Cluster) -> str:
    """Copy the model to the machine, except for files that are there already."""
    if not cluster.model_bucket:
        return ""
    place = f'"$HOME{cluster.model_path}"'
    return f"mkdir -p {place}\ngcloud storage rsync --recursive {shlex.quote(cluster.model)} {place}"


def secret_values(cluster: Cluster, names: Mapping[str, str]) -> str:
    """Fetch secrets (variable → name of the object) from Secret Manager into the environment."""
    return "\n".join(
        f'{variable}="$(gcloud secrets versions access latest --secret={name} --project={cluster.project})"\n'
        f"export {variable}"
        for variable, name in names.items()
    )


def trainer(cluster: Cluster, script: str, variables: Sequence[str]) -> str:
    """End an earlier trainer, then run ``script`` in the foreground. The container gets ``variables`` of the shell."""
    name = f"{cluster.name}-trainer"
    words = [*_run([*variables, *cluster.secret_names]), "--rm", "--init", "--name", name, "--network", "host"]
    words += ["--stop-timeout", str(cluster.grace_seconds)]
    words += ["--ipc", "host", *(["--privileged"] if cluster.trainer.tpu else ["--gpus", "all"])]
    words += _mounts(cluster)
    if not cluster.workdir.startswith("gs://"):
        words += ["--volume", f"{cluster.workdir}:{cluster.workdir}"]
    words += ["--env", f"JAX_PLATFORMS={platforms(cluster)}", "--env", "PYTHONUNBUFFERED=1"]
    words += [cluster.image, "bash", "-c", script]
    stop = f"sudo docker stop -t {cluster.grace_seconds} {name} > /dev/null 2>&1 || true"
    return f"{stop}\n{_remove(name)}\n{shell(words)}"


def servers(cluster: Cluster, host: Word) -> str:
    """Start the servers of one machine in the background, each with a relay. They listen on ``host``."""
    port = Expanded(f"$(({SERVER_PORT} + i))")
    server = server_words(cluster, host, port, Expanded(f"$((i * {cluster.rollout.tensor_parallel}))"))
    where = Expanded(f"{host.text if isinstance(host, Expanded) else host}:{port.text}")
    words = with_relay(server, where, host, Expanded(f"$(({SERVER_PORT + RELAY_OFFSET} + i))"))
    name = f"{cluster.name}-server-$i"
    options: list[Word] = ["--gpus", "all", "--ipc", "host", *_mounts(cluster)]
    start = _background(Expanded(name), options, cluster, words, cluster.relay_secret_names)
    head = f"for ((i = 0; i < {cluster.rollout.servers_per_machine}; i++)); do"
    return f"{head}\n{_remove(name)}\n{start}\ndone"


def router(cluster: Cluster, host: Word, hosts: Sequence[Word]) -> str:
    """Start the router in the background, in front of the servers of all ``hosts``."""
    ports = [SERVER_PORT + index for index in range(cluster.rollout.servers_per_machine)]
    addresses = [join("", host_name, f":{port}") for host_name in hosts for port in ports]
    name = f"{cluster.name}-router"
    return f"{_remove(name)}\n{_background(name, [], cluster, router_words(cluster, host, addresses))}"


def server_names(cluster: Cluster) -> list[str]:
    """Containers of one rollout machine."""
    return [f"{cluster.name}-server-{index}" for index in range(cluster.rollout.servers_per_machine)]


def _background(
    name: Word, options: Sequence[Word], cluster: Cluster, words: Sequence[Word], variables: Iterable[str] = ()
) -> str:
    start = [*_run(variables), "--detach", "--restart", "unless-stopped", "--init", "--name", name]
    return shell([*start, "--network", "host", *options, cluster.rollout.image, *words])


def _run(variables: Iterable[str]) -> list[Word]:
    """``docker run``. It passes ``variables`` of the shell by name, so that no value is on a command line."""
    names = list(variables)
    kept = [f"--preserve-env={','.join(names)}"] if names else []
    return ["sudo", *kept, "docker", "run", *(word for name in names for word in ("--env", name))]


def _mounts(cluster: Cluster) -> list[Word]:
    if cluster.model_bucket:
        return ["--volume", Expanded("$HOME/gcs:/gcs:ro")]
    return ["--volume", f"{cluster.model_path}:{cluster.model_path}:ro"]


def _remove(name: str) -> str:
    return f'sudo docker rm --force "{name}" > /dev/null 2>&1 || true'
