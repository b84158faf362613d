"""SkyPilot: a managed job. It is started again after a preemption, and resumes from the work directory.

With GPUs, one task has all roles: the first nodes train, the others serve, and the router runs on the first node. With
a TPU trainer the servers are a separate cluster in the same network, which is started first. No port is opened, because
machines reach each other at their internal addresses.
"""

from typing import Any

from clusters import docker
from clusters.cluster import Cluster
from clusters.commands import ROUTER_PORT, Expanded, Process, trainer_script
from clusters.files import Rendered, text, to_yaml

_DISK = 500  # GB: images and the model

Json = dict[str, Any]


def render_skypilot(cluster: Cluster) -> Rendered:
    """The files for SkyPilot, and the next commands of the user."""
    secrets, relay_secrets = (
        "".join(f" --secret {variable}" for variable in names)
        for names in (cluster.secret_names, cluster.relay_secret_names)
    )
    if cluster.trainer.tpu:
        files = {"servers.yaml": _serving(cluster), "trainer.yaml": _tpu_training(cluster)}
        servers = f"{cluster.name}-servers"
        commands = [
            f"sky launch --cluster {servers} --detach-run{relay_secrets} skypilot/servers.yaml",
            f"ROUTER=$(ssh {servers} hostname -I | cut -d' ' -f1)",
            f"sky jobs launch --name {cluster.name} --env ROUTER=$ROUTER{secrets} skypilot/trainer.yaml",
            f"sky down {servers}    # when the job is done",
        ]
    else:
        files = {"task.yaml": _gpu_task(cluster)}
        commands = [f"sky jobs launch --name {cluster.name}{secrets} skypilot/task.yaml", "sky jobs logs --follow"]
    return Rendered("skypilot", files, commands)


def _gpu_task(cluster: Cluster) -> str:
    trainer, rollout = cluster.trainer, cluster.rollout
    script = trainer_script(cluster, Expanded("${ROUTER}"), Process(Expanded("${ROUTER}"), Expanded("${RANK}")))
    run = text(
        "sky_gpu.sh.j2",
        trainers=trainer.machines,
        port=ROUTER_PORT,
        name=cluster.name,
        server_names=docker.server_names(cluster),
        trainer_images=docker.images(cluster.image),
        rollout_images=docker.images(rollout.image),
        router=docker.router(
            cluster,
            Expanded("${ROUTER}"),
            [Expanded(f"${{nodes[{trainer.machines + index}]}}") for index in range(rollout.machines)],
        ),
        servers=docker.servers(cluster, Expanded("${nodes[RANK]}")),
        trainer=docker.trainer(cluster, script, ["RANK", "ROUTER"]),
    )
    resources = {"accelerators": f"{trainer.accelerator}:{trainer.chips_per_host}", "use_spot": trainer.spot}
    return _task(cluster, cluster.name, trainer.machines + rollout.machines, resources, run, managed=True)


def _tpu_training(cluster: Cluster) -> str:
    tpu, trainer = cluster.trainer.tpu, cluster.trainer
    assert tpu
    script = trainer_script(cluster, Expanded("${ROUTER}"), None)
    body = [docker.images(cluster.image), docker.trainer(cluster, script, ["ROUTER"])]
    run = "\n".join(["set -euo pipefail", *body, ""])
    resources = {
        "accelerators": f"tpu-{tpu.cloud_type(trainer.topology)}",
        "accelerator_args": {"runtime_version": tpu.runtime},
        "use_spot": trainer.spot,
    }
    return _task(cluster, cluster.name, 1, resources, run, managed=True, envs={"ROUTER": None})


def _serving(cluster: Cluster) -> str:
    rollout = cluster.rollout
    nodes = [Expanded(f"${{nodes[{index}]}}") for index in range(rollout.machines)]
    run = text(
        "sky_servers.sh.j2",
        images=docker.images(rollout.image),
        servers=docker.servers(cluster, Expanded("${nodes[SKYPILOT_NODE_RANK]}")),
        router=docker.router(cluster, Expanded("${nodes[0]}"), nodes),
        first=docker.server_names(cluster)[0],
    )
    resources = {"accelerators": f"{rollout.accelerator}:{rollout.gpus_per_machine}", "use_spot": False}
    return _task(cluster, f"{cluster.name}-servers", rollout.machines, resources, run, managed=False)


def _task(
    cluster: Cluster, name: str, nodes: int, resources: Json, run: str, managed: bool, envs: Json | None = None
) -> str:
    region = cluster.zone.rsplit("-", 1)[0]
    resources = {"infra": f"gcp/{region}/{cluster.zone}" if cluster.zone else "gcp", **resources, "disk_size": _DISK}
    if managed:
        # After a preemption the same zone is short of capacity, so another zone is tried unless the zone is fixed.
        strategy = "FAILOVER" if cluster.zone else "EAGER_NEXT_REGION"
        resources["job_recovery"] = {"strategy": strategy, "max_restarts_on_errors": cluster.max_restarts}
    task: Json = {"name": name, "num_nodes": nodes, "resources": resources}
    if envs:
        task["envs"] = envs
    if secrets := cluster.secret_names if managed else cluster.relay_secret_names:  # only servers are unmanaged
        task["secrets"] = dict.fromkeys(secrets)
    if cluster.model_bucket:
        task["file_mounts"] = {f"~{cluster.model_path}": cluster.model}
    task["run"] = run
    return to_yaml([task])
