"""deploy/rayjob.yaml is what KubeRay and Kubernetes take, and agrees with the project's pins."""

import re
import shlex
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
KUBERNETES = "1.34"
TEMPLATE = {"metadata", "spec"}
# The fields of KubeRay 1.6's public API reference (ray.io/v1), and which of them must be there.
FIELDS = {
    "RayJobSpec": {
        "activeDeadlineSeconds": int,
        "backoffLimit": int,
        "clusterSelector": dict,
        "deletionStrategy": dict,
        "entrypoint": str,
        "entrypointNumCpus": float,
        "entrypointNumGpus": float,
        "entrypointResources": str,
        "jobId": str,
        "managedBy": str,
        "metadata": dict,
        "preRunningDeadlineSeconds": int,
        "rayClusterSpec": dict,
        "runtimeEnvYAML": str,
        "shutdownAfterJobFinishes": bool,
        "submissionMode": str,
        "submitterConfig": dict,
        "submitterPodTemplate": dict,
        "suspend": bool,
        "ttlSecondsAfterFinished": int,
    },
    "RayClusterSpec": {
        "authOptions": dict,
        "autoscalerOptions": dict,
        "enableInTreeAutoscaling": bool,
        "gcsFaultToleranceOptions": dict,
        "headGroupSpec": dict,
        "headServiceAnnotations": dict,
        "managedBy": str,
        "rayVersion": str,
        "suspend": bool,
        "upgradeStrategy": dict,
        "workerGroupSpecs": list,
    },
    "AutoscalerOptions": {
        "env": list,
        "envFrom": list,
        "idleTimeoutSeconds": int,
        "image": str,
        "imagePullPolicy": str,
        "resources": dict,
        "securityContext": dict,
        "upscalingMode": str,
        "version": str,
        "volumeMounts": list,
    },
    "HeadGroupSpec": {
        "enableIngress": bool,
        "headService": dict,
        "labels": dict,
        "rayStartParams": dict,
        "resources": dict,
        "serviceType": str,
        "template": dict,
    },
    "WorkerGroupSpec": {
        "groupName": str,
        "idleTimeoutSeconds": int,
        "labels": dict,
        "maxReplicas": int,
        "minReplicas": int,
        "numOfHosts": int,
        "rayStartParams": dict,
        "replicas": int,
        "resources": dict,
        "scaleStrategy": dict,
        "suspend": bool,
        "template": dict,
    },
}
CHOICES = {
    "submissionMode": {"K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"},
    "upscalingMode": {"Default", "Aggressive", "Conservative"},
    "version": {"v1", "v2"},
    "serviceType": {"ClusterIP", "NodePort", "LoadBalancer", "ExternalName"},
}
REQUIRED = {
    "RayClusterSpec": {"headGroupSpec"},
    "HeadGroupSpec": {"template"},
    "WorkerGroupSpec": {"groupName", "minReplicas", "maxReplicas", "template"},
}


def faults(node, kind):
    """What KubeRay's API would refuse or, worse, drop without a word."""
    fields = FIELDS[kind]
    results = [f"{kind}: no field {name}" for name in node.keys() - fields.keys()]
    results += [f"{kind}: {name} is missing" for name in REQUIRED.get(kind, set()) - node.keys()]
    for name, value in node.items():
        wanted = fields.get(name, object)
        if not isinstance(value, wanted) or (wanted is int and isinstance(value, bool)):
            results.append(f"{kind}.{name}: {value!r} is no {wanted.__name__}")
        if value not in CHOICES.get(name, {value} if isinstance(value, str) else [value]):
            results.append(f"{kind}.{name}: {value!r}")
    for key, text in node.get("rayStartParams", {}).items():
        if not isinstance(text, str):
            results.append(f"{kind}.rayStartParams.{key}: {text!r} is no str")
    return results


def all_faults(job):
    cluster = job["spec"]["rayClusterSpec"]
    result = faults(job["spec"], "RayJobSpec") + faults(cluster, "RayClusterSpec")
    result += faults(cluster.get("autoscalerOptions", {}), "AutoscalerOptions")
    result += faults(cluster.get("headGroupSpec", {}), "HeadGroupSpec")
    for group in cluster.get("workerGroupSpecs", []):
        result += faults(group, "WorkerGroupSpec")
    return result


@pytest.fixture
def job():
    return yaml.safe_load((ROOT / "deploy/rayjob.yaml").read_text(encoding="utf-8"))


def pod_templates(job):
    cluster = job["spec"]["rayClusterSpec"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    return [job["spec"]["submitterPodTemplate"], *(group["template"] for group in groups)]


def containers(job):
    return [item for template in pod_templates(job) for item in template["spec"]["containers"]]


def test_the_job_has_no_field_that_kuberay_does_not_know(job):
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    assert set(job) == {"apiVersion", "kind", "metadata", "spec"}
    assert re.fullmatch(r"[a-z]([-a-z0-9]{0,45}[a-z0-9])?", job["metadata"]["name"])
    assert all_faults(job) == []


@pytest.mark.parametrize(
    ("path", "value", "fault"),
    [
        (["ttlSeconds"], 600, "RayJobSpec: no field ttlSeconds"),
        (["backoffLimit"], "0", "RayJobSpec.backoffLimit: '0' is no int"),
        (["submissionMode"], "JobMode", "RayJobSpec.submissionMode: 'JobMode'"),
        (["rayClusterSpec", "headGroupSpec", "rayStartParams", "num-cpus"], 0,
         "HeadGroupSpec.rayStartParams.num-cpus: 0 is no str"),
        (["rayClusterSpec", "autoscalerOptions", "idleTimeoutMinutes"], 5,
         "AutoscalerOptions: no field idleTimeoutMinutes"),
    ],
)  # fmt: skip
def test_such_a_field_is_found(job, path, value, fault):
    node = job["spec"]
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value
    assert all_faults(job) == [fault]


def test_the_pods_are_as_the_schema_of_kubernetes_wants_them(job):
    from kubernetes_validate import validate

    for template in pod_templates(job):
        assert set(template) <= TEMPLATE
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, **template}
        assert validate(pod, KUBERNETES, strict=True) == KUBERNETES


def test_the_schema_of_kubernetes_finds_what_is_wrong(job):
    from kubernetes_validate import ValidationError, validate

    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, **pod_templates(job)[1]}
    pod["spec"]["containers"][0]["envfrom"] = []
    with pytest.raises(ValidationError, match="envfrom"):
        validate(pod, KUBERNETES, strict=True)


def test_rays_autoscaler_reads_an_idle_head_and_gpu_workers_from_zero(job):
    from ray.autoscaler._private.kuberay.autoscaling_config import (
        _derive_autoscaling_config_from_ray_cr,
    )

    cluster = job["spec"]["rayClusterSpec"]
    metadata = {"name": "audit", "namespace": "default"}
    config = _derive_autoscaling_config_from_ray_cr({"metadata": metadata, "spec": cluster})
    types = config["available_node_types"]
    head = types.pop(config["head_node_type"])
    assert head["resources"]["CPU"] == 0
    assert "GPU" not in head["resources"]
    (worker,) = types.values()
    assert worker["min_workers"] == 0 < worker["max_workers"] == config["max_workers"]
    assert (worker["resources"]["CPU"], worker["resources"]["GPU"]) == (8, 1)
    assert worker["idle_timeout_s"] == 300
    assert config["idle_timeout_minutes"] == 5
    assert cluster["enableInTreeAutoscaling"] is True


def test_the_cluster_goes_away_with_the_job(job):
    spec = job["spec"]
    assert spec["shutdownAfterJobFinishes"] is True
    assert spec["ttlSecondsAfterFinished"] > 0
    assert spec["backoffLimit"] == 0


def test_every_pod_runs_the_image_of_the_container_file_with_the_pinned_ray(job, pins):
    (image,) = {container["image"] for container in containers(job)}
    assert image.endswith(f"-ray{pins['ray']}")
    assert job["spec"]["rayClusterSpec"]["rayVersion"] == pins["ray"]
    assert f"-t {image} ." in (ROOT / "deploy/Containerfile").read_text(encoding="utf-8")


def test_secrets_come_by_name_and_nothing_runs_as_root(job):
    for container in containers(job):
        assert container["securityContext"]["runAsNonRoot"] is True
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        named = [entry["name"] for entry in container.get("env", [])]
        assert not [name for name in named if re.search("SECRET|PASSWORD|TOKEN|KEY", name)]
    for item in containers(job)[1:]:
        environment = {entry["name"]: entry["value"] for entry in item["env"]}
        assert environment["CLDMRAY_STORAGE"].startswith("s3://")
        assert environment["MLFLOW_TRACKING_URI"].startswith("http")
        assert [source["secretRef"]["name"] for source in item["envFrom"]] == ["cldmray-secrets"]
    assert job["spec"]["rayClusterSpec"]["authOptions"] == {"mode": "token"}
    assert job["spec"]["rayClusterSpec"]["headGroupSpec"]["serviceType"] == "ClusterIP"


def test_the_entrypoint_is_an_audit_that_can_be_composed(job):
    from hydra import compose, initialize_config_dir

    program, script, *overrides = shlex.split(job["spec"]["entrypoint"])
    assert (program, script) == ("python", "jobs/full_audit.py")
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        composed = compose("audit", overrides)
    assert composed.engine.gpus_per_actor == 1
    assert composed.output.startswith("s3://")
