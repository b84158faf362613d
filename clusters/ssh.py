"""Plain SSH: ``start.sh`` creates TPU VMs (or uses GPU machines), starts all roles, and restarts the trainer.

The script runs on any machine that stays on and reaches the others, for instance in tmux on a small VM. After a
preemption it deletes the slice and requests a new one, on which the trainer resumes from the work directory. Crashes
count towards ``max_restarts``. Servers listen on internal addresses only.
"""

from clusters import docker
from clusters.check import address
from clusters.cluster import Cluster
from clusters.commands import Expanded, Process, trainer_script
from clusters.files import Rendered, text


def render_ssh(cluster: Cluster) -> Rendered:
    """The scripts, and the next commands of the user."""
    trainer, rollout, hosts = cluster.trainer, cluster.rollout, cluster.ssh.rollout_hosts
    addresses = [address(host) for host in hosts]
    process = None
    if not trainer.tpu:
        process = Process(address(cluster.ssh.trainer_hosts[0]), Expanded("${RANK}"))
    script = trainer_script(cluster, addresses[0], process)
    files = {
        f"server-{index}.sh": text(
            "machine.sh.j2",
            what=f"The servers of {host}",
            body=[
                docker.images(rollout.image),
                docker.model_copy(cluster),
                docker.secret_values(cluster, cluster.relay_secret_names),
                docker.servers(cluster, addresses[index]),
            ],
        )
        for index, host in enumerate(hosts)
    }
    files["router.sh"] = text(
        "machine.sh.j2", what="The router", body=[docker.router(cluster, addresses[0], addresses)]
    )
    files["trainer.sh"] = text(
        "machine.sh.j2",
        what="The trainer on one host" + ("" if trainer.tpu else "; its argument is the host's index"),
        body=[
            "" if trainer.tpu else "export RANK=$1",
            docker.images(cluster.image),
            docker.model_copy(cluster),
            docker.secret_values(cluster, cluster.secret_names),
            docker.trainer(cluster, script, [] if trainer.tpu else ["RANK"]),
        ],
    )
    values = {"cluster": cluster, "nodes": _nodes(cluster), "server_names": docker.server_names(cluster)}
    files["start.sh"] = text("start.sh.j2", **values)
    files["stop.sh"] = text("stop.sh.j2", **values)
    return Rendered("ssh", files, ["bash ssh/start.sh    # again after an interruption", "bash ssh/stop.sh"])


def _nodes(cluster: Cluster) -> list[str]:
    """Names of the TPU VMs, one for each slice. If there are several, queued resources number them."""
    slices = cluster.trainer.slices
    return [cluster.name] if slices == 1 else [f"{cluster.name}-{index}" for index in range(slices)]
