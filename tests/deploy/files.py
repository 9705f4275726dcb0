"""What can be said of the files of deploy/ without running them, by the tools in $TOOLS and the schemas of the Python packages."""

import copy
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import tomllib

import yaml
from cloudcoil.models.prometheus_operator import v1 as operator
from grafana_foundation_sdk.cog import plugins
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard
from kubernetes_validate import validate

from house import Wrong, check, end, need, skip

ROOT = pathlib.Path(os.environ["ROOT"])
DEPLOY = ROOT / "deploy"
TOOLS = pathlib.Path(os.environ["TOOLS"])
GATEWAY = os.environ["GATEWAY"]
BIN = pathlib.Path(sys.executable).parent
CHART = DEPLOY / "helm/tollgate"
# A cluster of this version, and the oldest that the chart says it is for.
KUBERNETES = ["1.37.0", "1.29.0"]
# Whatever the schemas of Prometheus' operator say, and no others.
CUSTOM = {"PodMonitor": operator.PodMonitor, "PrometheusRule": operator.PrometheusRule}
EVERYTHING = [
    "podMonitor.enabled=true", "prometheusRule.enabled=true", "dashboard.enabled=true", "networkPolicy.enabled=true",
    "podMonitor.labels.release=monitoring", "secrets.values.groq=gsk-1", "secrets.values.admin-token=t",
    "env[0].name=HTTPS_PROXY", "env[0].value=http://proxy.example.com:3128", "ledger.storageClassName=fast",
    "image.pullSecrets[0].name=registry", "nodeSelector.disk=local", "priorityClassName=high", "podAnnotations.a=b",
    "podLabels.c=d", "secrets.tls=gateway-tls", "image.digest=sha256:" + "0" * 64, "tolerations[0].operator=Exists", "service.annotations.e=f",
]  # fmt: skip
BARE = ["ledger.persistent=false", "podDisruptionBudget.enabled=false", "secrets.existing=mine", "replicas=3"]


def run(*command, wants=0, **more):
    """The output of a program that must end so."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False, **more)
    if done.returncode != wants:
        raise Wrong(f"{command[0]} ended with {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def seconds(text):
    """Of a span of time, as systemd, compose and gateway.toml write it."""
    parts = re.fullmatch(r"(\d+)(s|sec|m|min)?", text)
    need(parts, f"{text} is no span of time that is known here")
    return int(parts[1]) * (60 if (parts[2] or "s").startswith("m") else 1)


def documents(text):
    return [it for it in yaml.safe_load_all(text) if it]


def helm(*settings):
    flags = [part for it in settings for part in ("--set", it)]
    return documents(run(TOOLS / "helm", "template", "edge", CHART, "--namespace", "gateways", *flags))


# --- form ---


def yaml_is_well_formed():
    files = [it for it in DEPLOY.rglob("*.y*ml") if CHART / "templates" not in it.parents]
    need(len(files) > 15, f"only {len(files)} files")
    run(BIN / "yamllint", "--strict", "-c", ROOT / "tests/deploy/yamllint.yaml", *files)


def dockerfile_is_linted():
    run(BIN / "hadolint", "--failure-threshold", "style", DEPLOY / "Dockerfile")


def image_is_as_promised():
    lines = (DEPLOY / "Dockerfile").read_text().replace("\\\n", "").splitlines()
    last = len(lines) - [line.startswith("FROM ") for line in reversed(lines)].index(True) - 1
    final = "\n".join(lines[last:])
    for line in ("USER 65532:65532", "STOPSIGNAL SIGTERM", "VOLUME /var/lib/tollgate", "EXPOSE 4000 4001"):
        need(re.search(f"^{line}$", final, re.M), f"the last stage has no {line}")
    need("--locked" in "\n".join(lines), "it does not build --locked")
    need(not re.search("^RUN", final, re.M), "the last stage has no shell to run anything")
    # What is copied from outside must be there, and must be sent to the build.
    sent = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    copied = []
    for line in lines:
        words = line.split()
        if words[:1] == ["COPY"] and not any(word.startswith("--from") for word in words):
            copied += words[1:-1]
    need(len(copied) >= 5, f"copied is only {copied}")
    for name in copied:
        need((ROOT / name).exists(), f"{name} is not there")
        need(name in sent, f"{name} is not sent to the build: .dockerignore")
    # Those that the image of the last stage has.
    needed = re.findall(r"NEEDED\s+(\S+)", run("objdump", "-p", GATEWAY)) if has("objdump") else []
    strange = set(needed) - {"libc.so.6", "libm.so.6", "libgcc_s.so.1", "ld-linux-x86-64.so.2", "ld-linux-aarch64.so.1"}
    need(not strange, f"the binary needs {strange}, which that image does not have")


def has(program):
    return subprocess.run(["which", program], capture_output=True, check=False).returncode == 0


# --- configurations ---


def configurations(with_helm):
    """All that are in the folder: where, the text, the names of its secrets that are files, and who ends it after how long."""
    for path in ("gateway.toml", "compose/gateway.toml", "systemd/gateway.toml"):
        grace = None
        if path.startswith("compose"):
            grace = seconds(yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]["tollgate"]["stop_grace_period"])
        if path.startswith("systemd"):
            grace = seconds(re.search("^TimeoutStopSec=(.+)$", (DEPLOY / "tollgate.service").read_text(), re.M)[1])
        yield path, (DEPLOY / path).read_text(), None, grace
    sets = [("kubernetes/edge", edge()), ("kubernetes/sidecar", sidecar())]
    if with_helm:
        sets.append(("helm/tollgate", helm("secrets.values.groq=x")))
    for where, objects in sets:
        (config,) = [it["data"]["gateway.toml"] for it in objects if it["kind"] == "ConfigMap"]
        (secret,) = [it for it in objects if it["kind"] == "Secret"]
        (pod,) = [spec for _, spec in pods(objects)]
        yield where, config, {**secret.get("data", {}), **secret.get("stringData", {})}, pod.get("terminationGracePeriodSeconds", 30)


def configuration_is_fine(text, files):
    with tempfile.TemporaryDirectory() as folder:
        for name in files or ():
            (pathlib.Path(folder) / name).write_text("sk-0123456789abcdef0123456789abcdef")
        named = set(re.findall(r'^[^#]*"file:/run/secrets/tollgate/([^"]+)"', text, re.M))
        need(files is None or named <= set(files), f"{named} are read, and the Secret has {set(files or ())}")
        path = pathlib.Path(folder) / "gateway.toml"
        path.write_text(text.replace("/run/secrets/tollgate", folder))
        names = re.findall(r'"env:(\w+)"', text)
        secrets = {name: f"sk-{name.lower()}-0123456789abcdef0123456789abcdef" for name in names}
        done = subprocess.run(
            [GATEWAY, "check", "-c", path], capture_output=True, text=True, check=False, env={**os.environ, **secrets}
        )
        told = done.stdout + done.stderr
        need(done.returncode == 0, told)
        need("skipped" not in told, told)


def grace_is_long_enough(text, grace):
    server = tomllib.loads(text)["server"]
    drains = seconds(server.get("drain", "30s")) + seconds(server.get("drain_delay", "0s"))
    # The last words, the ledger's end.
    need(grace >= drains + 5, f"it is killed after {grace} s, and drains for {drains} s")


# --- compose ---


def compose_is_read_by_compose():
    secrets = {"TOLLGATE_KEY": "a", "TOLLGATE_ADMIN_TOKEN": "b", "GRAFANA_PASSWORD": "c"}
    command = [TOOLS / "docker-compose", "--file", DEPLOY / "compose.yaml", "config", "--format", "json"]
    read = json.loads(run(*command, env={**os.environ, **secrets}))
    for name, service in read["services"].items():
        image = service["image"]
        need(re.search(r":v?\d+\.\d+\.\d+$", image), f"{name}: the version of {image} is not pinned")
        for mount in service.get("volumes", ()):
            if mount["type"] == "bind":
                need(pathlib.Path(mount["source"]).exists(), f"{name} mounts {mount['source']}, which is not there")
        for port in service.get("ports", ()):
            need(port["host_ip"] == "127.0.0.1", f"{name} publishes {port} to the network")
    tollgate = read["services"]["tollgate"]
    need(tollgate["read_only"] and tollgate["cap_drop"] == ["ALL"], "the gateway's container is not locked down")
    # A secret that is forgotten is said.
    for name in secrets:
        fewer = {key: value for key, value in secrets.items() if key != name}
        done = subprocess.run([str(it) for it in command], capture_output=True, check=False, env={"PATH": os.environ["PATH"], **fewer})
        need(done.returncode != 0, f"it starts without {name}")


def compose_fits_the_specification():
    run(BIN / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", DEPLOY / "compose.yaml")


# --- Kubernetes ---


def files_of(folder):
    return {it: documents(it.read_text()) for it in sorted((DEPLOY / "kubernetes" / folder).glob("*.yaml"))}


def edge():
    return [it for objects in files_of("edge").values() for it in objects if it["kind"] != "Kustomization"]


def sidecar():
    return [it for objects in files_of("sidecar").values() for it in objects]


def fits(thing):
    """By the schema of its kind, strictly: no field that it does not know."""
    if thing["kind"] in CUSTOM:
        read = CUSTOM[thing["kind"]].model_validate(copy.deepcopy(thing))
        # The models let unknown fields go by; what they do not give back they did not know.
        back = read.model_dump(mode="json", by_alias=True, exclude_unset=True)
        need(back == thing, f"{thing['kind']}: fields that it does not have; it knows of this only\n{back}")
        return
    for version in KUBERNETES:
        try:
            validate(thing, version, strict=True)
        except Exception as wrong:
            raise Wrong(f"{thing['kind']} {thing['metadata']['name']}, Kubernetes {version}: {wrong}") from wrong


def all_fit(objects, kinds):
    for it in objects:
        fits(it)
    missing = set(kinds) - {it["kind"] for it in objects}
    need(not missing, f"there is no {missing}")


def pods(objects):
    for it in objects:
        if it["kind"] == "Pod":
            yield it["metadata"], it["spec"]
        elif it["kind"] in ("StatefulSet", "Deployment"):
            yield it["spec"]["template"]["metadata"], it["spec"]["template"]["spec"]


def pods_are_restricted(objects):
    """What the standard `restricted` wants, and a root file system that cannot be written."""
    found = list(pods(objects))
    need(found, "there is no Pod")
    for _, pod in found:
        whole = pod["securityContext"]
        need(whole["runAsNonRoot"] is True and whole["runAsUser"] > 0, "it may run as root")
        need(whole["seccompProfile"] == {"type": "RuntimeDefault"}, "it has no seccomp profile")
        need(pod["automountServiceAccountToken"] is False, "it gets a token of the cluster's")
        need(not {"hostNetwork", "hostPID", "hostIPC"} & set(pod), "it shares the node's namespaces")
        for container in pod["containers"] + pod.get("initContainers", []):
            own = container["securityContext"]
            need(own["allowPrivilegeEscalation"] is False, f"{container['name']} may gain privileges")
            need(own["readOnlyRootFilesystem"] is True, f"{container['name']} may write everywhere")
            need(own["capabilities"] == {"drop": ["ALL"]}, f"{container['name']} has capabilities")
            need("memory" in container["resources"]["limits"], f"{container['name']} has no limit of memory")


def probes_and_ports_fit(objects):
    """Whatever speaks of a port speaks of one that gateway.toml listens at."""
    (config,) = [it["data"]["gateway.toml"] for it in objects if it["kind"] == "ConfigMap" and "gateway.toml" in it["data"]]
    config = tomllib.loads(config)
    listens = {key: config[section]["listen"] for key, section in (("http", "server"), ("admin", "admin"))}
    for labels, pod in pods(objects):
        gateway = [it for it in pod["containers"] + pod.get("initContainers", []) if it["name"] == "tollgate"][0]
        ports = {it["name"]: it["containerPort"] for it in gateway["ports"]}
        for name, port in ports.items():
            need(listens[name] == f"0.0.0.0:{port}", f"{name} is port {port}, and it listens at {listens[name]}")
        probes = {name: it["httpGet"] for name, it in gateway.items() if name.endswith("Probe")}
        need(probes.keys() >= {"startupProbe", "livenessProbe"}, f"it has only {set(probes)}")
        for name, probe in probes.items():
            need(probe["port"] == "admin" and "admin" in ports, f"{name} asks {probe['port']}")
        need(probes["livenessProbe"]["path"] == "/health/live", "the liveness probe asks for something else")
        ready = probes.get("readinessProbe", probes["startupProbe"])
        need(ready["path"] == "/health/ready", "nothing asks whether it is ready")
        for it in objects:
            if it["kind"] == "Service":
                need(it["spec"]["selector"].items() <= labels["labels"].items(), f"{it['metadata']['name']} selects no Pod")
                for port in it["spec"]["ports"]:
                    need(port["targetPort"] in ports, f"{it['metadata']['name']} leads to {port['targetPort']}")
            if it["kind"] in ("PodMonitor", "PodDisruptionBudget"):
                chosen = it["spec"]["selector"]["matchLabels"]
                need(chosen.items() <= labels["labels"].items(), f"the {it['kind']} selects no Pod")
            if it["kind"] == "PodMonitor":
                need(it["spec"]["podMetricsEndpoints"][0]["port"] in ports, "the PodMonitor asks a port that is none")
                need(job_of(it, labels["labels"]) == "tollgate", "the alerts would not know the job")


def job_of(monitor, labels):
    for relabel in monitor["spec"]["podMetricsEndpoints"][0].get("relabelings", []):
        if relabel["targetLabel"] == "job":
            return relabel["replacement"]
    return labels.get(monitor["spec"].get("jobLabel"))


def one_writes_the_ledger(objects):
    (whole,) = [it["spec"] for it in objects if it["kind"] == "StatefulSet"]
    need(whole["replicas"] == 1, "there are several, and budgets are granted several times")
    (claim,) = whole["volumeClaimTemplates"]
    need(claim["spec"]["accessModes"] == ["ReadWriteOncePod"], "another Pod could write it, too")
    names = {it["metadata"]["name"] for it in objects if it["kind"] == "Service"}
    need(whole["serviceName"] in names, f"its Service {whole['serviceName']} is not there")


def kustomize_has_them_all():
    made = documents(run(TOOLS / "kubectl", "kustomize", DEPLOY / "kubernetes/edge"))
    names = sorted((it["kind"], it["metadata"]["name"]) for it in edge())
    need(sorted((it["kind"], it["metadata"]["name"]) for it in made) == names, "a file is not named in kustomization.yaml")
    all_fit(made, ["PodMonitor"])
    for it in made:
        need(it["kind"] == "Namespace" or it["metadata"]["namespace"] == "tollgate", f"{it['kind']} is in no namespace")


# --- Grafana ---

# Grafana has these, and the model does not.
UNKNOWN = {".templating.list.definition", ".annotations.list.titleFormat", ".annotations.list.textFormat", ".annotations.list.step", ".panels.options.tooltip.mode"}  # fmt: skip


def dashboard_is_one_of_grafanas():
    """The models drop what they do not know; so nothing may be missing of what they give back."""
    plugins.register_default_plugins()
    board = json.loads((DEPLOY / "grafana/dashboard.json").read_text())
    back = json.loads(JSONEncoder().encode(Dashboard.from_json(copy.deepcopy(board))))
    lost = []

    def compare(one, other, path):
        if isinstance(one, dict) and isinstance(other, dict):
            for key in one:
                if key in other:
                    compare(one[key], other[key], f"{path}.{key}")
                elif f"{path}.{key}" not in UNKNOWN:
                    lost.append(f"{path}.{key}")
        elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
            for parts in zip(one, other, strict=True):
                compare(*parts, path)
        elif one != other:
            lost.append(f"{path}: {one} becomes {other}")

    compare(board, back, "")
    need(not lost, "\n".join(lost))


# --- Helm ---

KINDS = ["StatefulSet", "Service", "ConfigMap", "Secret", "ServiceAccount", "PodDisruptionBudget"]


def chart_is_linted():
    for values in ([], EVERYTHING, BARE):
        flags = [part for it in values for part in ("--set", it)]
        run(TOOLS / "helm", "lint", "--strict", CHART, *flags)


def chart_is_like_the_manifests():
    """The two ways to the same thing do not part."""
    ours, theirs = ({it["kind"]: it for it in objects} for objects in (edge(), helm("networkPolicy.enabled=true", "podMonitor.enabled=true")))
    need(set(ours) - {"Namespace"} == set(theirs) - {"ServiceAccount"}, f"{set(ours)} and {set(theirs)}")
    one, other = (copy.deepcopy(it["StatefulSet"]["spec"]["template"]["spec"]) for it in (ours, theirs))
    for pod in (one, other):
        pod.pop("serviceAccountName", None)
        pod["containers"][0].pop("imagePullPolicy", None)
        for volume in pod["volumes"]:
            volume.get("configMap", {}).pop("name", None)
            volume.get("secret", {}).pop("secretName", None)
    need(one == other, f"the Pods differ\n{json.dumps(one, sort_keys=True)}\n{json.dumps(other, sort_keys=True)}")
    need(ours["StatefulSet"]["spec"]["volumeClaimTemplates"] == theirs["StatefulSet"]["spec"]["volumeClaimTemplates"], "the volumes differ")


def chart_refuses_what_is_misspelt():
    for wrong in (
        "replicaz=1", "replicas=two", "ledger.accessMode=ReadWriteMany", "image.pullPolicy=Sometimes", "ledger.size=lots",
        "service.type=Ingress", "image.digest=latest", "config=", "podMonitor.enable=true",
    ):  # fmt: skip
        done = subprocess.run([str(TOOLS / "helm"), "template", "edge", str(CHART), "--set", wrong], capture_output=True, text=True, check=False)
        need(done.returncode != 0 and "schema" in done.stderr, f"{wrong} goes through\n{done.stderr}")
    both = ["--set", "secrets.existing=a,secrets.values.b=c"]
    done = subprocess.run([str(TOOLS / "helm"), "template", "edge", str(CHART), *both], capture_output=True, text=True, check=False)
    need(done.returncode != 0 and "write one of them" in done.stderr, "two Secrets go through")


def every_value_is_said_and_known():
    """values.yaml and its schema name the same values."""

    def names(values, schema, path=""):
        known = schema.get("properties")
        if known is None:
            return
        need(set(values) | {"global"} == set(known) | {"global"}, f"values.yaml and the schema differ: {path} {set(values) ^ set(known)}")
        for name, value in values.items():
            if isinstance(value, dict):
                names(value, known[name], f"{path}{name}.")

    names(yaml.safe_load((CHART / "values.yaml").read_text()), json.loads((CHART / "values.schema.json").read_text()))


def chart_carries_alerts_and_dashboard():
    made = helm(*EVERYTHING)
    (rule,) = [it for it in made if it["kind"] == "PrometheusRule"]
    need(rule["spec"] == yaml.safe_load((DEPLOY / "prometheus/alerts.yaml").read_text()), "the alerts differ")
    (board,) = [it for it in made if it["kind"] == "ConfigMap" and "tollgate.json" in it["data"]]
    need(json.loads(board["data"]["tollgate.json"]) == json.loads((DEPLOY / "grafana/dashboard.json").read_text()), "the dashboards differ")


def main():
    check("YAML: yamllint", yaml_is_well_formed)
    check("Dockerfile: hadolint", dockerfile_is_linted)
    check("Dockerfile: what it promises and what it copies", image_is_as_promised)
    # What cannot be rendered cannot be looked at.
    with_helm = (TOOLS / "helm").exists() and check("helm: the chart is rendered", helm)
    for where, text, files, grace in configurations(with_helm):
        check(f"{where}: tollgate check", configuration_is_fine, text, files)
        if grace is not None:
            check(f"{where}: time to drain", grace_is_long_enough, text, grace)
    check("dashboard: Grafana's model of one", dashboard_is_one_of_grafanas)
    check("compose.yaml: the schema of the specification", compose_fits_the_specification)
    if (TOOLS / "docker-compose").exists():
        check("compose.yaml: docker compose config", compose_is_read_by_compose)
    else:
        skip("compose.yaml: docker compose config", "there is no compose for this machine")
    sets = [("kubernetes/edge", edge(), [*KINDS[:4], "PodMonitor", "PodDisruptionBudget", "NetworkPolicy"]), ("kubernetes/sidecar", sidecar(), ["Pod"])]
    if (TOOLS / "kubectl").exists():
        check("kubernetes/edge: kubectl kustomize", kustomize_has_them_all)
    else:
        skip("kubernetes/edge: kubectl kustomize", "there is no kubectl for this machine")
    if with_helm:
        check("helm: lint --strict", chart_is_linted)
        check("helm: the same as kubernetes/edge", chart_is_like_the_manifests)
        check("helm: values that are misspelt", chart_refuses_what_is_misspelt)
        check("helm: every value is in the schema", every_value_is_said_and_known)
        check("helm: alerts and dashboard", chart_carries_alerts_and_dashboard)
        sets += [
            ("helm", helm(), KINDS),
            ("helm, with everything", helm(*EVERYTHING), [*KINDS, "PodMonitor", "PrometheusRule", "NetworkPolicy"]),
            ("helm, bare", helm(*BARE), ["StatefulSet"]),
        ]
    elif not (TOOLS / "helm").exists():
        skip("helm", "there is no helm for this machine")
    for where, objects, kinds in sets:
        check(f"{where}: schemas of Kubernetes {' and '.join(KUBERNETES)}", all_fit, objects, kinds)
        check(f"{where}: restricted Pods", pods_are_restricted, objects)
        check(f"{where}: ports, probes and selectors", probes_and_ports_fit, objects)
        if where in ("kubernetes/edge", "helm", "helm, with everything"):
            check(f"{where}: one writer of the ledger", one_writes_the_ledger, objects)
    return end()


sys.exit(main())
