//! What do `general_settings`, `litellm_settings` and the rest of the file say of the gateway as a whole?

use std::collections::BTreeMap;

use super::amounts;
use super::marks::{Mark, Marks, Note};
use super::params::DROPS;
use super::toml::{Section, Value};
use super::yaml::Node;

/// What is written outside of providers and models.
pub(super) struct Whole {
    pub server: Section,
    pub admin: Section,
    pub keys: Vec<Section>,
    pub defaults: Section,
    pub total: Section,
    /// Of keys that have none of their own.
    limits: Vec<(String, Value)>,
    limit_notes: Vec<Note>,
}

impl Whole {
    pub(super) fn read(root: &Node, marks: &mut Marks) -> Self {
        let mut whole = Self {
            server: Section::new(&["server"]),
            admin: Section::new(&["admin"]),
            keys: Vec::new(),
            defaults: Section::new(&["defaults"]),
            total: Section::new(&["total"]),
            limits: Vec::new(),
            limit_notes: Vec::new(),
        };
        let general = root
            .get("general_settings")
            .map(Node::members)
            .unwrap_or_default();
        let library = root
            .get("litellm_settings")
            .map(Node::members)
            .unwrap_or_default();
        whole.listen(library, marks);
        for (key, node) in general.iter().filter(|(_, node)| !node.is_null()) {
            whole.general(key, node, marks);
        }
        for (key, node) in library.iter().filter(|(_, node)| !node.is_null()) {
            whole.library(key, node, marks);
        }
        whole.budget(library, marks);
        if !whole.limits.is_empty() {
            let limits = Value::Table(std::mem::take(&mut whole.limits));
            let notes = std::mem::take(&mut whole.limit_notes);
            whole.defaults.put("limits", limits, notes);
        }
        for (key, node) in general {
            marks.tell("general_settings", key, node);
        }
        for (key, node) in library {
            marks.tell("litellm_settings", key, node);
        }
        for (key, node) in root.members() {
            match key.as_str() {
                "environment_variables" => variables(node, marks),
                _ => marks.tell("top level", key, node),
            }
        }
        whole
    }

    fn listen(&mut self, library: &[(String, Node)], marks: &mut Marks) {
        let address = Value::text("127.0.0.1:4000");
        let text = "LiteLLM listens on 0.0.0.0:4000; before you do, write `names`, and keys";
        let note = Note {
            mark: Mark::Approximate,
            text: text.into(),
        };
        self.server.put("listen", address, vec![note]);
        let json = library.iter().find(|(key, _)| key == "json_logs");
        if let Some((_, node)) = json {
            if node.truth() == Some(true) {
                self.server.put("log", Value::text("json"), Vec::new());
            }
            match node.truth() {
                Some(_) => marks.exact(node, "server.log"),
                None => drop(marks.manual(
                    node,
                    "it is neither true nor false: write `log` under [server]",
                )),
            }
        }
    }

    fn general(&mut self, key: &str, node: &Node, marks: &mut Marks) {
        match key {
            "master_key" => self.master(node, marks),
            "max_parallel_requests" | "global_max_parallel_requests" => {
                let limit = node.whole().filter(|n| (1..=1_000_000_000).contains(n));
                match (limit, key) {
                    (Some(limit), "max_parallel_requests") => {
                        let note =
                            marks.approximate(node, "of each key that has no limits of its own");
                        self.limit("concurrency", limit, note);
                    }
                    (Some(limit), _) => {
                        let note = marks.approximate(node, "beyond it callers get 503, not 429");
                        self.server
                            .put("max_in_flight", Value::bare(limit), vec![note]);
                    }
                    (None, _) => {
                        let text = "it is no limit from 1 on: write `concurrency` under [defaults], or `max_in_flight` under [server]";
                        marks.manual(node, text);
                    }
                }
            }
            _ => {}
        }
    }

    /// The one key that may do everything.
    fn master(&mut self, node: &Node, marks: &mut Marks) {
        let (variable, note) = match node.variable() {
            Some(name) => {
                let text = "a caller's key, and the token of [admin]; everybody else needs a key of their own (`tollgate keys new`)";
                (name.to_owned(), marks.approximate(node, text))
            }
            None => {
                let text = format!(
                    "the key itself stands in the file, line {}: put it into LITELLM_MASTER_KEY",
                    node.line
                );
                ("LITELLM_MASTER_KEY".to_owned(), marks.manual(node, text))
            }
        };
        let secret = Value::text(format!("env:{variable}"));
        self.admin.put("token", secret.clone(), Vec::new());
        let mut key = Section::new(&["keys", "master"]);
        key.put("key", secret, vec![note]);
        self.keys.push(key);
    }

    fn library(&mut self, key: &str, node: &Node, marks: &mut Marks) {
        match key {
            "drop_params" => drop(marks.approximate(node, DROPS)),
            "callbacks" | "success_callback" | "failure_callback" | "service_callback"
            | "input_callback" => {
                let one = [node];
                let all = node
                    .elements()
                    .iter()
                    .chain(one.into_iter().filter(|node| node.text().is_some()));
                for node in all {
                    match node.text() {
                        Some("prometheus" | "prometheus_system") => {
                            marks.approximate(node, "/metrics of [admin], by tollgate's own names");
                        }
                        _ => marks.tell("litellm_settings", "callbacks", node),
                    }
                }
            }
            "timezone" => match node.text() {
                Some("UTC" | "Etc/UTC" | "utc") => marks.exact(node, "budgets begin anew by UTC"),
                _ => drop(marks.unsupported(node, "budgets begin anew by UTC")),
            },
            "default_key_generate_params" => self.key_defaults(node, marks),
            _ => {}
        }
    }

    fn key_defaults(&mut self, node: &Node, marks: &mut Marks) {
        let names = [
            ("rpm_limit", "rpm"),
            ("tpm_limit", "tpm"),
            ("max_parallel_requests", "concurrency"),
        ];
        let text = "of each key that says nothing of its own, also of those in the file";
        for (name, limit) in names {
            let node = node.get(name);
            let number = node
                .and_then(Node::whole)
                .filter(|n| (1..=1_000_000_000_000).contains(n));
            if let (Some(node), Some(number)) = (node, number) {
                let note = marks.approximate(node, text);
                self.limit(limit, number, note);
            }
        }
        let members = node.members();
        if let Some((budget, mut notes)) = budget(members, marks) {
            for name in ["max_budget", "budget_duration"] {
                notes.extend(node.get(name).map(|node| marks.approximate(node, text)));
            }
            self.defaults.put("budget", budget, notes);
        }
        for (_, node) in members.iter().filter(|(_, node)| !node.is_null()) {
            if marks.is_open(node) {
                marks.manual(
                    node,
                    "say it when a key is made: `tollgate keys new --help`",
                );
            }
        }
    }

    /// Of two that say the same the first holds.
    fn limit(&mut self, name: &str, limit: u64, note: Note) {
        if self.limits.iter().all(|(known, _)| known != name) {
            self.limits.push((name.to_owned(), Value::bare(limit)));
            self.limit_notes.push(note);
        }
    }

    fn budget(&mut self, library: &[(String, Node)], marks: &mut Marks) {
        if let Some((budget, notes)) = budget(library, marks) {
            self.total.put("budget", budget, notes);
        }
    }
}

/// `max_budget` in `budget_duration`.
fn budget(members: &[(String, Node)], marks: &mut Marks) -> Option<(Value, Vec<Note>)> {
    let get = |name: &str| {
        members
            .iter()
            .find(|(key, node)| key == name && !node.is_null())
    };
    let time = get("budget_duration").map(|(_, node)| node);
    let Some((_, limit)) = get("max_budget") else {
        if let Some(time) = time {
            marks.exact(time, "there is no budget that it would be of");
        }
        return None;
    };
    let window = match time {
        None => Some(("total", true)),
        Some(time) => time.text().and_then(amounts::window),
    };
    let (Some(usd), Some((per, is_same))) = (amounts::dollars(limit), window) else {
        let text = "it is no amount in a time that there is: write `budget` yourself";
        marks.manual(limit, text);
        if let Some(time) = time {
            marks.manual(time, text);
        }
        return None;
    };
    let mut notes = Vec::new();
    marks.exact(limit, "`budget.usd`");
    match (time, is_same) {
        (Some(time), true) => marks.exact(time, "`budget.per`"),
        (Some(time), false) => {
            let text = format!("the next longer window that there is, a {per}");
            notes.push(marks.approximate(time, text));
        }
        (None, _) => {}
    }
    let fields = vec![
        ("usd".to_owned(), Value::Bare(usd)),
        ("per".to_owned(), Value::text(per)),
    ];
    Some((Value::Table(fields), notes))
}

fn variables(node: &Node, marks: &mut Marks) {
    for (name, node) in node.members() {
        match node.is_null() {
            true => marks.exact(node, "nothing is set"),
            false => {
                let text = format!(
                    "set {name} in the environment before tollgate starts, if it is still needed"
                );
                marks.manual(node, text);
            }
        }
    }
}

/// What `environment_variables` sets, by name.
pub(super) fn set(root: &Node) -> BTreeMap<String, String> {
    let all = root
        .get("environment_variables")
        .map(Node::members)
        .unwrap_or_default();
    let each = all
        .iter()
        .filter_map(|(name, node)| Some((name.clone(), node.text()?.to_owned())));
    each.collect()
}
