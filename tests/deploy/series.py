"""What a real Prometheus makes of the dashboard and of the alerts, while it watches a real gateway that has something to count.

Every query of the dashboard must answer with data; every alert must be evaluated, and everything that it selects must be there.
"""

import json
import math
import os
import pathlib
import re
import sys
import urllib.parse
import urllib.request

import yaml

from house import Wrong, check, end, need

DEPLOY = pathlib.Path(os.environ["ROOT"]) / "deploy"
PROMETHEUS = os.environ["PROMETHEUS"]
ADMIN = os.environ["ADMIN_URL"]
BOARD = json.loads((DEPLOY / "grafana/dashboard.json").read_text())
ALERTS = [rule for group in yaml.safe_load((DEPLOY / "prometheus/alerts.yaml").read_text())["groups"] for rule in group["rules"]]
ROWS = ["Traffic", "Errors", "Latency", "Tokens and money", "Targets", "Limits and budgets", "Ledger and process"]
PERIODS = {"$__rate_interval": "30s", "$__interval": "5s", "$__range": "2m"}
NAME = r"\b(?:tollgate_\w+|process_\w+|up)\b"


def ask(path, **parameters):
    url = f"{PROMETHEUS}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
    try:
        with urllib.request.urlopen(url, timeout=20) as answer:
            return json.load(answer)["data"]
    except urllib.error.HTTPError as error:
        raise Wrong(f"{json.load(error)['error']}\n{parameters}") from error


def variables():
    return [it for it in BOARD["templating"]["list"] if it["type"] == "query"]


def values_of(variable):
    """What Grafana offers to choose from."""
    asked = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["definition"])
    need(asked, f"{variable['definition']} is not understood here")
    series = ask("series", **{"match[]": fill(asked[1], {})})
    # Prometheus has no labels that are empty.
    found = {it[asked[2]] for it in series if asked[2] in it}
    need(found, f"{asked[1]} has no label {asked[2]}")
    return sorted(found)


def fill(query, chosen):
    """As Grafana does: periods, and what is chosen of each variable; else all."""
    for name, period in PERIODS.items():
        query = query.replace(name, period)
    for variable in variables():
        query = query.replace(f"${variable['name']}", chosen.get(variable["name"], variable["allValue"]))
    need("$" not in query, f"a variable is left over: {query}")
    return query


def has_data(query, legend):
    """And all labels that the legend is made of."""
    found = ask("query", query=query)["result"]
    numbers = [float(it["value"][1]) for it in found]
    need(any(math.isfinite(number) for number in numbers), f"no data: {query}\n{found}")
    for label in re.findall(r"\{\{(\w+)\}\}", legend):
        need(any(label in it["metric"] for it in found), f"no {label}: {query}\n{found}")


def panels():
    return [it for it in BOARD["panels"] if it["type"] != "row"]


def panel_has_data(panel, chosen):
    for target in panel["targets"]:
        has_data(fill(target["expr"], {}), target["legendFormat"])
        # With each variable set to all that there is, one by one, as Grafana writes a choice of several.
        has_data(fill(target["expr"], chosen), target["legendFormat"])


def board_is_well_made():
    need([it["title"] for it in BOARD["panels"] if it["type"] == "row"] == ROWS, "the rows are others")
    ids = [it["id"] for it in BOARD["panels"]]
    need(len(ids) == len(set(ids)), "two panels have one number")
    taken = {}
    for panel in BOARD["panels"]:
        place = panel["gridPos"]
        need(place["x"] + place["w"] <= 24, f"{panel['title']} reaches beyond the edge")
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                need((x, y) not in taken, f"{panel['title']} lies on {taken.get((x, y))}")
                taken[x, y] = panel["title"]
    for panel in panels():
        need(panel["title"] and panel["targets"], f"panel {panel['id']} is empty")
        for thing in [panel, *panel["targets"]]:
            need(thing["datasource"]["uid"] == "${datasource}", f"{panel['title']} has a source of data of its own")
    (source,) = [it for it in BOARD["templating"]["list"] if it["type"] == "datasource"]
    need((source["name"], source["query"]) == ("datasource", "prometheus"), "the source of data cannot be chosen")
    names = {it["name"] for it in variables()}
    need(names == {"instance", "model", "target", "key"}, f"the variables are {names}")


def variables_have_their_labels():
    """What has a label that can be chosen goes by the choice."""
    labels = exposed()
    for panel in panels():
        for target in panel["targets"]:
            for metric, selector in re.findall(rf"({NAME})\{{([^}}]*)\}}", target["expr"]):
                need('instance=~"$instance"' in selector, f"{panel['title']}: {metric} is of all gateways")
                for label in {"model", "target", "key"} & labels.get(metric, set()):
                    # Of the requests of a model no key is left out, and the other way round.
                    if f'{label}=~"${label}"' not in selector:
                        raise Wrong(f"{panel['title']}: {metric} has a {label}, and it cannot be chosen")


def every_metric_is_shown():
    with urllib.request.urlopen(f"{ADMIN}/metrics", timeout=20) as answer:
        families = set(re.findall(r"^# TYPE (tollgate_\w+)", answer.read().decode(), re.M))
    need(len(families) > 20, f"only {families}")
    text = json.dumps([it["targets"] for it in panels()])
    unseen = {it for it in families if not re.search(rf"\b{it}(_bucket|_count|_sum)?\b", text)}
    need(not unseen, f"nobody sees {unseen}")


def exposed():
    """The labels of each metric, as they are in Prometheus."""
    found = {}
    for series in ask("series", **{"match[]": '{job="tollgate"}'}):
        found.setdefault(series["__name__"], set()).update(set(series) - {"__name__"})
    return found


def alert_is_well_made(rule):
    need(rule["labels"]["severity"] in ("critical", "warning", "info"), "its severity is none")
    need(set(rule["annotations"]) == {"summary", "description"}, "it needs a summary and a description, and no more")
    need(len(rule["annotations"]["description"]) > 100, "its description does not say what to do")


def alert_can_be_asked(rule):
    ask("query", query=rule["expr"])
    for selector in set(re.findall(rf"{NAME}(?:\{{[^}}]*\}})?", rule["expr"])):
        need(ask("series", **{"match[]": selector}), f"nothing is selected by {selector}")


def alerts_are_evaluated():
    rules = [rule for group in ask("rules")["groups"] for rule in group["rules"]]
    need({it["name"] for it in rules} == {it["alert"] for it in ALERTS}, "Prometheus has other rules")
    for rule in rules:
        need(rule["health"] == "ok", f"{rule['name']} is {rule['health']}: {rule.get('lastError')}")
        for alert in rule["alerts"]:
            text = json.dumps(alert["annotations"])
            need("error expanding" not in text and "<no value>" not in text, f"{rule['name']} says {text}")
    need(any(rule["alerts"] for rule in rules), "none is even pending, though everything fails that can")


def tests_of_alerts_are_about_what_is():
    """The series that the unit tests make up have names and labels of real ones; each alert fires in one of them; and what an alert
    says in words of its labels is there when it does."""
    real = exposed()
    tests = yaml.safe_load((DEPLOY / "prometheus/alerts_test.yaml").read_text())["tests"]
    for test in tests:
        for series in test["input_series"]:
            name, labels = re.fullmatch(r"(\w+)\{(.*)\}", series["series"]).groups()
            need(name in real, f"{name} is no metric")
            strange = set(re.findall(r"(\w+)=", labels)) - real[name]
            need(not strange, f"{name} has no {strange}")
    fired = {}
    for test in tests:
        for case in test["promql_expr_test"]:
            for sample in case["exp_samples"]:
                labels = dict(re.findall(r'(\w+)="([^"]*)"', sample["labels"]))
                fired.setdefault(labels["alertname"], []).append(set(labels))
    for rule in ALERTS:
        need(rule["alert"] in fired, f"{rule['alert']} is not tested")
        spoken = set(re.findall(r"\$labels\.(\w+)", json.dumps(rule["annotations"])))
        for labels in fired[rule["alert"]]:
            need(spoken <= labels, f"{rule['alert']} speaks of {spoken - labels}, which it does not have")


def main():
    check("dashboard: rows, places, variables", board_is_well_made)
    check("dashboard: what can be chosen is heeded", variables_have_their_labels)
    check("dashboard: every metric is shown", every_metric_is_shown)
    chosen = {}
    for variable in variables():

        def choose(variable=variable):
            values = values_of(variable)
            chosen[variable["name"]] = "(" + "|".join(re.escape(it).replace("\\", "\\\\") for it in values) + ")"
        check(f"dashboard: choices of {variable['label']}", choose)
    for panel in panels():
        check(f"dashboard: {panel['title']}", panel_has_data, panel, chosen)
    for mark in BOARD["annotations"]["list"]:
        check(f"dashboard: marks of {mark['name']}", lambda mark=mark: ask("query", query=fill(mark["expr"], {})))
    for rule in ALERTS:
        check(f"alert {rule['alert']}: severity and words", alert_is_well_made, rule)
        check(f"alert {rule['alert']}: what it asks for is there", alert_can_be_asked, rule)
    check("alerts: evaluated by Prometheus", alerts_are_evaluated)
    check("alerts: unit tests are about real metrics, and about each alert", tests_of_alerts_are_about_what_is)
    return end()


sys.exit(main())
