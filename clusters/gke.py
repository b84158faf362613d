"""GKE: one JobSet with trainer, servers and router. For XPK: the trainer as a workload, the others as a JobSet.

A Job of the trainer is one TPU slice, or all GPU machines. A slice cannot continue if it loses a pod: the Job fails,
the JobSet is restarted, and the trainer resumes from its work directory. The condition ``DisruptionTarget`` marks
preempted pods; only other failures count towards ``max_restarts``. A server that dies is replaced by itself. Servers
and router have host names and a ClusterIP service, so they can be reached only inside the cluster.
"""

from collections.abc import Mapping
from typing import Any

from clusters.accelerators import GPUS
from clusters.cluster import Cluster
from clusters.commands import (
    RELAY_OFFSET,
    ROUTER_PORT,
    SERVER_PORT,
    Expanded,
    Process,
    one_line,
    platforms,
    router_words,
    server_words,
    shell,
    trainer_script,
    with_relay,
)
from clusters.files import Rendered, text, to_yaml

_LIBTPU_PORT = 8471  # on which the hosts of a slice find each other
_REPLACEMENTS = 1000  # of servers and routers; in effect no limit
_POOL = "alpha.jobset.sigs.k8s.io/exclusive-topology"

Json = dict[str, Any]


def render_gke(cluster: Cluster) -> Rendered:
    """The files for GKE and XPK, and the next commands of the user."""
    roles = [_trainer(cluster), _servers(cluster, cluster.name), _router(cluster, cluster.name)]
    files = {"jobset.yaml": to_yaml([_service(cluster, cluster.name), _jobset(cluster, cluster.name, roles)])}
    where = f"--cluster={cluster.gke.cluster} --zone={cluster.zone} --project={cluster.project}"
    commands = [
        f"gcloud container clusters get-credentials {cluster.gke.cluster} --location={cluster.zone} "
        f"--project={cluster.project}",
        "kubectl apply --dry-run=server -f gke/jobset.yaml",
        "kubectl apply -f gke/jobset.yaml",
        f"kubectl logs -f -n {cluster.gke.namespace} -l jobset.sigs.k8s.io/jobset-name={cluster.name},"
        "jobset.sigs.k8s.io/replicatedjob-name=trainer",
    ]
    if tpu := cluster.trainer.tpu:
        name = f"{cluster.name}-servers"
        serving = [_servers(cluster, name), _router(cluster, name)]
        files["servers.yaml"] = to_yaml([_service(cluster, name), _jobset(cluster, name, serving)])
        files["xpk.env"] = "".join(f"{variable}\n" for variable in (*_plain(cluster), *cluster.secret_names))
        files["xpk.sh"] = text(
            "xpk.sh.j2",
            cluster=cluster,
            where=where,
            env=_plain(cluster),
            tpu_type=tpu.xpk_type(cluster.trainer.topology),
            script=_literal(one_line(trainer_script(cluster, _router_host(cluster), None))),
        )
        commands.append("or, with XPK: bash gke/xpk.sh")
    return Rendered("gke", files, commands)


def _router_host(cluster: Cluster) -> str:
    return f"{cluster.name}-router.{cluster.gke.namespace}.svc.cluster.local"


def _jobset(cluster: Cluster, name: str, roles: list[Json]) -> Json:
    trains = any(role["name"] == "trainer" for role in roles)
    failure: Json = {"maxRestarts": cluster.max_restarts}
    if trains:
        failure["rules"] = [
            {
                "name": "preempted",
                "action": "RestartJobSetAndIgnoreMaxRestarts",
                "onJobFailureReasons": ["PodFailurePolicy"],
                "targetReplicatedJobs": ["trainer"],
            }
        ]
    spec: Json = {"network": {"enableDNSHostnames": True, "publishNotReadyAddresses": True}}
    if trains:  # servers never end by themselves
        spec["successPolicy"] = {"operator": "All", "targetReplicatedJobs": ["trainer"]}
    return {
        "apiVersion": "jobset.x-k8s.io/v1alpha2",
        "kind": "JobSet",
        "metadata": {"name": name, "namespace": cluster.gke.namespace},
        "spec": {**spec, "failurePolicy": failure, "replicatedJobs": roles},
    }


def _service(cluster: Cluster, jobset: str) -> Json:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": f"{cluster.name}-router", "namespace": cluster.gke.namespace},
        "spec": {
            "type": "ClusterIP",
            "selector": {
                "jobset.sigs.k8s.io/jobset-name": jobset,
                "jobset.sigs.k8s.io/replicatedjob-name": "router",
            },
            "ports": [{"name": "http", "port": ROUTER_PORT, "targetPort": ROUTER_PORT}],
        },
    }


def _trainer(cluster: Cluster) -> Json:
    trainer = cluster.trainer
    process = None
    if not trainer.tpu:
        process = Process(f"{cluster.name}-trainer-0-0.{cluster.name}", Expanded("${JOB_COMPLETION_INDEX}"))
    container: Json = {
        "name": "trainer",
        "image": cluster.image,
        "command": ["bash", "-c", _literal(trainer_script(cluster, _router_host(cluster), process))],
        "env": _environment(cluster),
        "resources": {"limits": {"google.com/tpu" if trainer.tpu else "nvidia.com/gpu": trainer.chips_per_host}},
    }
    if trainer.tpu:
        container["ports"] = [{"containerPort": _LIBTPU_PORT}]
        container["securityContext"] = {"privileged": True}
    # Slices communicate over the machines' own network, because a pod network would halve the speed.
    network: Json = {"hostNetwork": True, "dnsPolicy": "ClusterFirstWithHostNet"} if trainer.slices > 1 else {}
    pod = _pod(cluster, container, trainer.spot, _trainer_nodes(cluster), memory=not trainer.tpu, **network)
    job = {
        **_pods(trainer.hosts_per_slice),
        "backoffLimit": 0,
        "podFailurePolicy": {
            "rules": [{"action": "FailJob", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}]
        },
        "template": {**pod, "spec": {"restartPolicy": "Never", **pod["spec"]}},
    }
    template: Json = {"spec": job}
    if trainer.tpu:  # each slice has a node pool of its own; the GPU roles of the JobSet share one
        template = {"metadata": {"annotations": {_POOL: "cloud.google.com/gke-nodepool"}}, **template}
    return {"name": "trainer", "replicas": trainer.slices, "template": template}


def _trainer_nodes(cluster: Cluster) -> Json:
    trainer = cluster.trainer
    nodes = {"cloud.google.com/gke-accelerator": GPUS.get(trainer.accelerator, "")}
    if trainer.tpu:
        nodes = {
            "cloud.google.com/gke-tpu-accelerator": trainer.tpu.gke,
            "cloud.google.com/gke-tpu-topology": trainer.topology,
        }
    if trainer.reservation:
        nodes["cloud.google.com/reservation-name"] = trainer.reservation
    return nodes


def _servers(cluster: Cluster, jobset: str) -> Json:
    rollout = cluster.rollout
    server, relay_port = server_words(cluster, "0.0.0.0", str(SERVER_PORT)), SERVER_PORT + RELAY_OFFSET
    words = with_relay(server, f"127.0.0.1:{SERVER_PORT}", "0.0.0.0", str(relay_port))
    container = {
        "name": "server",
        "image": rollout.image,
        "command": ["bash", "-c", _literal(f"exec {shell(words)}\n")],
        "env": _references(cluster.relay_secret_names),
        "ports": [{"containerPort": SERVER_PORT, "name": "http"}, {"containerPort": relay_port, "name": "relay"}],
        "resources": {"limits": {"nvidia.com/gpu": rollout.tensor_parallel}},
        "startupProbe": _probe("/ready", SERVER_PORT, failures=-(-cluster.startup_seconds // 10)),
        "readinessProbe": _probe("/ready", SERVER_PORT, failures=3),
    }
    nodes = {"cloud.google.com/gke-accelerator": GPUS[rollout.accelerator]}
    pod = _pod(cluster, container, rollout.spot, nodes, memory=True)
    return _service_role("rollout", rollout.servers, pod)


def _router(cluster: Cluster, jobset: str) -> Json:
    servers = [f"{jobset}-rollout-0-{index}.{jobset}:{SERVER_PORT}" for index in range(cluster.rollout.servers)]
    container = {
        "name": "router",
        "image": cluster.rollout.image,
        "command": ["bash", "-c", _literal(f"exec {shell(router_words(cluster, '0.0.0.0', servers))}\n")],
        "ports": [{"containerPort": ROUTER_PORT, "name": "http"}],
        "resources": {"requests": {"cpu": 4, "memory": "16Gi"}},
        "readinessProbe": _probe("/readiness", ROUTER_PORT, failures=3),
    }
    return _service_role("router", 1, _pod(cluster, container, False, {}, model=False))


def _service_role(name: str, pods: int, pod: Json) -> Json:
    """A role that serves. Its containers are restarted when they end; lost pods are replaced."""
    job = {**_pods(pods), "backoffLimit": _REPLACEMENTS}
    job["template"] = {**pod, "spec": {"restartPolicy": "OnFailure", **pod["spec"]}}
    return {"name": name, "replicas": 1, "template": {"spec": job}}


def _pods(number: int) -> Json:
    return {"parallelism": number, "completions": number, "completionMode": "Indexed"}


def _pod(
    cluster: Cluster,
    container: Json,
    spot: bool,
    nodes: Json,
    model: bool = True,
    memory: bool = False,
    **network: Any,
) -> Json:
    """A pod template with one container; ``model`` mounts the bucket, ``memory`` is for NCCL between GPUs."""
    volumes: list[Json] = []
    mounts: list[Json] = []
    if model and cluster.model_bucket:
        attributes = {"bucketName": cluster.model_bucket, "mountOptions": "implicit-dirs"}
        if network:
            attributes["hostNetworkPodKSA"] = "true"
        driver = {"driver": "gcsfuse.csi.storage.gke.io", "readOnly": True, "volumeAttributes": attributes}
        volumes.append({"name": "models", "csi": driver})
        mounts.append({"name": "models", "mountPath": f"/gcs/{cluster.model_bucket}", "readOnly": True})
    if memory:
        volumes.append({"name": "shm", "emptyDir": {"medium": "Memory"}})
        mounts.append({"name": "shm", "mountPath": "/dev/shm"})
    spec: Json = {
        "terminationGracePeriodSeconds": cluster.grace_seconds,
        "serviceAccountName": cluster.gke.service_account,
        **network,
    }
    if spot:
        nodes = {**nodes, "cloud.google.com/gke-spot": "true"}
        taint = {"key": "cloud.google.com/gke-spot", "operator": "Equal", "value": "true", "effect": "NoSchedule"}
        spec["tolerations"] = [taint]
    if nodes:
        spec["nodeSelector"] = nodes
    spec["containers"] = [{**container, **({"volumeMounts": mounts} if mounts else {})}]
    if volumes:
        spec["volumes"] = volumes
    fuse = any("csi" in volume for volume in volumes)
    return {**({"metadata": {"annotations": {"gke-gcsfuse/volumes": "true"}}} if fuse else {}), "spec": spec}


def _plain(cluster: Cluster) -> dict[str, str]:
    return {"JAX_PLATFORMS": platforms(cluster), "PYTHONUNBUFFERED": "1"}


def _environment(cluster: Cluster) -> list[Json]:
    plain = [{"name": name, "value": value} for name, value in _plain(cluster).items()]
    return [*plain, *_references(cluster.secret_names)]


def _references(names: Mapping[str, str]) -> list[Json]:
    return [
        {"name": variable, "valueFrom": {"secretKeyRef": {"name": name, "key": variable}}}
        for variable, name in names.items()
    ]


def _probe(path: str, port: int, failures: int) -> Json:
    get = {"path": path, "port": port}
    return {"httpGet": get, "periodSeconds": 10, "timeoutSeconds": 5, "failureThreshold": failures}


def _literal(script: str) -> str:
    """``script``, escaped: Kubernetes expands $(VARIABLE) in commands, and bash must see it unchanged."""
    return script.replace("$(", "$$(")
