"""The files under deploy/ say what the code understands and ask for no right they do not need."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml
from running_service import ROOT

from rlvr.commands.sandbox import sandbox as commands

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
