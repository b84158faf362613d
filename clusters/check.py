"""Reads a cluster and refuses one that cannot exist, with a remedy.

cluster = read_cluster(config.to_dict())      # UserError: the offending value and the remedy, in one line
"""

import ipaddress
import re
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from clusters.accelerators import GPUS, TPUS, Tpu
from clusters.cluster import Cluster, Rollout, Trainer
from trace_jax.errors import UserError

# VARIABLE=name of a secret object; a name is a DNS label, which no token in use looks like.
_SECRET = re.compile(r"[A-Z][A-Z0-9_]*=(?!sk-)[a-z]([a-z0-9-]{0,46}[a-z0-9])?")


def read_cluster(fields: Mapping[str, Any]) -> Cluster:
    """The cluster with these fields, which ``configs/clusters/base.py`` documents.

    Raises UserError if a field is missing or the cluster cannot exist.
    """
    try:
        cluster = Cluster.model_validate(dict(fields))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise UserError(f"{where} is {first['input']!r}: {first['msg']}; see configs/clusters/base.py") from None
    _check_named(cluster)
    _check_trainer(cluster.trainer)
    _check_rollout(cluster.rollout)
    _check_storage(cluster)
    for target, check in (("gke", _check_gke), ("skypilot", _check_skypilot), ("ssh", _check_ssh)):
        if target in cluster.targets:
            check(cluster)
    return cluster


def _check_named(cluster: Cluster) -> None:
    needed = {
        "image": cluster.image,
        "rollout.image": cluster.rollout.image,
        "model": cluster.model,
        "workdir": cluster.workdir,
        "trainer.config": cluster.trainer.config,
    }
    for field, value in needed.items():
        if not value:
            raise UserError(f"{field} is empty: set it with --config.{field}=…")
    for secret in cluster.secrets:
        if not _SECRET.fullmatch(secret):
            variable = secret.split("=", 1)[0]
            raise UserError(
                f"secrets: the entry for {variable!r} is not VARIABLE=name-of-a-secret-object (lower case, digits, "
                "dashes): keep the value in the secret store and write its name here"
            )


def _check_trainer(trainer: Trainer) -> None:
    mesh = trainer.mesh
    if trainer.tpu:
        _check_slices(trainer, trainer.tpu)
    elif trainer.accelerator not in GPUS:
        raise UserError(f"trainer.accelerator {trainer.accelerator!r}: unknown; use {', '.join((*TPUS, *GPUS))}")
    elif trainer.topology or trainer.slices != 1:
        raise UserError(
            f"trainer.topology {trainer.topology!r}, trainer.slices {trainer.slices}: GPUs have neither; "
            "leave them '' and 1, and set trainer.hosts"
        )
    elif not trainer.hosts:
        raise UserError("trainer.hosts is 0: say how many GPU machines train")
    elif trainer.chips_per_host not in (1, 2, 4, 8):
        raise UserError(f"trainer.chips_per_host is {trainer.chips_per_host}: GPU machines have 1, 2, 4 or 8 GPUs")
    if mesh.devices != trainer.devices:
        raise UserError(
            f"trainer.mesh {mesh.data} × {mesh.fsdp} × {mesh.tensor} × {mesh.expert} = {mesh.devices} devices, but the "
            f"machines have {trainer.devices}: make the product equal, for instance with --config.trainer.mesh.fsdp"
        )
    if mesh.data % trainer.slices:
        raise UserError(
            f"trainer.mesh.data is {mesh.data}, not a multiple of {trainer.slices} slices: only the data axis may "
            "cross the slow network between slices"
        )


def _check_slices(trainer: Trainer, tpu: Tpu) -> None:
    chips, sizes = tpu.chips(trainer.topology), tpu.chips_per_host(trainer.topology)
    if trainer.chips_per_host not in sizes:
        raise UserError(
            f"trainer.chips_per_host is {trainer.chips_per_host}: the {chips} chips of a slice {trainer.topology} "
            f"lie in machines with {' or '.join(map(str, sizes))}"
        )
    if trainer.hosts:
        raise UserError(
            f"trainer.hosts is {trainer.hosts}: the topology gives {trainer.machines} machines; leave it 0 for TPUs"
        )


def _check_rollout(rollout: Rollout) -> None:
    if rollout.accelerator not in GPUS:
        raise UserError(f"rollout.accelerator {rollout.accelerator!r}: SGLang needs GPUs; use {', '.join(GPUS)}")
    if rollout.gpus_per_machine % rollout.tensor_parallel:
        raise UserError(
            f"rollout.tensor_parallel {rollout.tensor_parallel} does not divide {rollout.gpus_per_machine} GPUs of a "
            "machine: use a divisor"
        )


def _check_storage(cluster: Cluster) -> None:
    if not (cluster.model_bucket or cluster.model.startswith("/")):
        raise UserError(f"model {cluster.model!r}: use gs://BUCKET/PATH, or an absolute path on every machine")
    if cluster.workdir.startswith("gs://"):
        return
    trainer = cluster.trainer
    if trainer.spot:
        raise UserError(f"workdir {cluster.workdir!r} is lost with a spot machine: use gs://…, or trainer.spot=False")
    if trainer.machines > 1:
        raise UserError(f"workdir {cluster.workdir!r} is local, but {trainer.machines} hosts share it: use gs://…")
    if set(cluster.targets) & {"gke", "skypilot"}:
        raise UserError(f"workdir {cluster.workdir!r} is lost with the pod or the machine: use gs://…")
    if not cluster.workdir.startswith("/"):
        raise UserError(f"workdir {cluster.workdir!r}: use gs://… or an absolute path")


def _check_gke(cluster: Cluster) -> None:
    for field, value in (("project", cluster.project), ("zone", cluster.zone), ("gke.cluster", cluster.gke.cluster)):
        if not value:
            raise UserError(f"{field} is empty: GKE needs it; set it with --config.{field}=…")
    if not cluster.gke.service_account:
        raise UserError(
            "gke.service_account is empty: pods reach gs:// as a Kubernetes service account; name one that may"
        )


def _check_skypilot(cluster: Cluster) -> None:
    trainer, rollout = cluster.trainer, cluster.rollout
    if trainer.tpu:
        if trainer.slices > 1:
            raise UserError(f"trainer.slices is {trainer.slices}: SkyPilot starts one slice; use the target gke")
        if rollout.spot:
            raise UserError(
                "rollout.spot is True: with a TPU trainer the servers are a SkyPilot cluster of their own, whose "
                "address must last; use rollout.spot=False"
            )
        _check_cloud_vm(trainer, trainer.tpu, "SkyPilot")
    elif (trainer.accelerator, trainer.chips_per_host) != (rollout.accelerator, rollout.gpus_per_machine):
        raise UserError(
            f"trainer machines ({trainer.chips_per_host} × {trainer.accelerator}) and rollout machines "
            f"({rollout.gpus_per_machine} × {rollout.accelerator}) differ: a SkyPilot task has one kind of machine; "
            "make them equal"
        )
    elif trainer.spot != rollout.spot:
        raise UserError(
            f"trainer.spot is {trainer.spot}, rollout.spot {rollout.spot}: a SkyPilot task has one kind of machine; "
            "make them equal"
        )
    if trainer.reservation:
        raise UserError(
            f"trainer.reservation {trainer.reservation!r}: SkyPilot takes reservations from ~/.sky/config.yaml "
            "(gcp.specific_reservations); leave it empty here"
        )


def _check_ssh(cluster: Cluster) -> None:
    trainer, rollout, ssh = cluster.trainer, cluster.rollout, cluster.ssh
    if trainer.tpu:
        for field, value in (("project", cluster.project), ("zone", cluster.zone)):
            if not value:
                raise UserError(f"{field} is empty: TPU VMs need it; set it with --config.{field}=…")
        if ssh.trainer_hosts:
            raise UserError("ssh.trainer_hosts names machines, but TPU VMs are made by the script: leave it ()")
        _check_cloud_vm(trainer, trainer.tpu, "Cloud TPU")
    else:
        _check_hosts("ssh.trainer_hosts", ssh.trainer_hosts, trainer.machines)
        if cluster.secrets and not cluster.project:
            raise UserError("project is empty: secrets come from its Secret Manager; set it with --config.project=…")
    _check_hosts("ssh.rollout_hosts", ssh.rollout_hosts, rollout.machines)


def _check_cloud_vm(trainer: Trainer, tpu: Tpu, service: str) -> None:
    if not tpu.runtime:
        raise UserError(f"trainer.accelerator {trainer.accelerator!r}: no TPU VMs of it; use the target gke")
    if not tpu.is_compact(trainer.topology):
        raise UserError(
            f"trainer.topology {trainer.topology!r}: {service} makes another shape of "
            f"{tpu.cloud_type(trainer.topology)}; use its most compact shape, or the target gke"
        )


def _check_hosts(field: str, hosts: tuple[str, ...], machines: int) -> None:
    if len(hosts) != machines:
        raise UserError(f"{field} names {len(hosts)} machines, but the configuration has {machines}: name each one")
    if len(set(hosts)) != len(hosts):
        raise UserError(f"{field} names a machine twice: name each one once")
    for host in hosts:
        try:
            found = ipaddress.ip_address(address(host))
            internal = not (found.is_global or found.is_unspecified or found.is_loopback)
        except ValueError:
            internal = False
        if not internal:
            raise UserError(
                f"{field}: {host!r} is not user@internal-address: servers have no password and must not be on a public "
                "address; use the internal one and reach it through a jump host (ProxyJump)"
            )


def address(host: str) -> str:
    """The address in ``user@address``."""
    return host.rsplit("@", 1)[-1]
