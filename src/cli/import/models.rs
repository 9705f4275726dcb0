//! Which providers and models do the deployments come to? Those that are asked in the same way are one provider; those of one
//! name are the targets of one model.

use std::collections::{BTreeMap, BTreeSet};

use super::amounts;
use super::deployments::Deployment;
use super::fallbacks;
use super::marks::{Marks, Note};
use super::routing::{Allowed, Routing};
use super::sites::{Site, slug};
use super::targets::{Model, Target};
use super::toml::{Section, Value};
use super::yaml::Node;

/// `[providers.NAME]`.
#[derive(Debug)]
struct Provider {
    name: String,
    site: Site,
    /// LiteLLM's names of it.
    prefixes: BTreeSet<String>,
    notes: Vec<Note>,
    budget: Option<(Value, Vec<Note>)>,
}

/// All of them, in the order of the file.
#[derive(Debug, Default)]
pub(super) struct Providers(Vec<Provider>);

impl Providers {
    /// The name of the provider that is asked as a deployment is.
    fn of(&mut self, deployment: &Deployment<'_>) -> String {
        let place = &deployment.place;
        if let Some(known) = self.0.iter_mut().find(|known| known.site == place.site) {
            known.prefixes.insert(place.prefix.clone());
            known.notes.extend(place.notes.iter().cloned());
            return known.name.clone();
        }
        let like = match &place.site.base_url {
            Some(url) if place.site.preset == "openai-compatible" => slug(host(url)),
            _ if is_name(&place.prefix) => place.prefix.clone(),
            _ => slug(&place.prefix),
        };
        let numbered = (2..).map(|n| format!("{like}-{n}"));
        let mut names = std::iter::once(like.clone()).chain(numbered);
        let name = names.find(|name| !self.has(name)).unwrap_or(like);
        self.add(name.clone(), deployment);
        name
    }

    fn has(&self, name: &str) -> bool {
        self.0.iter().any(|known| known.name == name)
    }

    fn add(&mut self, name: String, deployment: &Deployment<'_>) {
        let place = &deployment.place;
        self.0.push(Provider {
            name,
            site: place.site.clone(),
            prefixes: BTreeSet::from([place.prefix.clone()]),
            notes: place.notes.clone(),
            budget: None,
        });
    }

    /// A deployment for all models of a provider: clients ask it by the provider's own name, or cannot.
    fn pattern(&mut self, deployment: &Deployment<'_>, marks: &mut Marks) {
        let group = deployment.group.as_str();
        let node = deployment
            .entry
            .get("model_name")
            .unwrap_or(deployment.entry);
        let wanted = group
            .split_once("/*")
            .filter(|(name, rest)| rest.is_empty() && is_name(name));
        let wanted = wanted.map(|(name, _)| name);
        let is_same = |known: &Provider| known.site == deployment.place.site;
        let free = wanted.filter(|name| {
            let known = self.0.iter().find(|known| known.name == *name);
            known.is_none_or(is_same)
        });
        let name = match free {
            Some(name) if self.has(name) => self.of(deployment),
            Some(name) => {
                self.add(name.to_owned(), deployment);
                name.to_owned()
            }
            None => self.of(deployment),
        };
        if free.is_some() && name == free.unwrap_or_default() && deployment.place.model == "*" {
            marks.exact(
                node,
                format!("[providers.{name}]: `{name}/MODEL` always works"),
            );
            return;
        }
        let text = match wanted {
            Some(wanted) if wanted == name => {
                format!(
                    "`{name}/MODEL` always works, for every model that it has; write `models` with the keys that may ask for less"
                )
            }
            _ => format!(
                "no name of a model is a pattern: clients ask for `{name}/MODEL`, or write [models.NAME] for each"
            ),
        };
        let note = marks.manual(node, text);
        let known = self.0.iter_mut().find(|known| known.name == name);
        if let Some(known) = known {
            known.notes.push(note);
        }
    }

    fn budget(&mut self, allowed: &Allowed<'_>, marks: &mut Marks) {
        let mut all = self
            .0
            .iter_mut()
            .filter(|known| known.prefixes.contains(&allowed.prefix));
        match (all.next(), all.next()) {
            (Some(only), None) => {
                marks.exact(allowed.node, format!("providers.{}.budget", only.name));
                let fields = vec![
                    ("usd".to_owned(), Value::Bare(allowed.usd.clone())),
                    ("per".to_owned(), Value::text(allowed.per)),
                ];
                only.budget = Some((Value::Table(fields), allowed.notes.clone()));
            }
            (Some(_), Some(_)) => {
                let text = "several providers are this one's here: share it out among them, as `budget` of each";
                marks.manual(allowed.node, text);
            }
            (None, _) => drop(marks.unsupported(allowed.node, "no such provider was carried over")),
        }
    }

    /// The target that a client means by `provider/model`, if that provider stands for all of its models.
    pub(super) fn direct(&self, name: &str) -> Option<Target> {
        let (provider, model) = name.split_once('/')?;
        let is_known = !model.is_empty() && !model.contains('*') && self.has(provider);
        is_known.then(|| Target::plain(name))
    }

    /// All, as sections; what holds for each of them is told once.
    pub(super) fn write(&self, common: &[Note], out: &mut String) {
        for (n, known) in self.0.iter().enumerate() {
            let mut section = Section::new(&["providers", &known.name]);
            let common = common.iter().filter(|_| n == 0);
            for note in common.chain(&known.notes) {
                section.tell(note.clone());
            }
            let site = &known.site;
            if site.preset != known.name {
                section.put("preset", Value::text(site.preset), Vec::new());
            }
            let texts = [("base_url", &site.base_url), ("api_key", &site.api_key)];
            for (name, text) in texts {
                if let Some(text) = text {
                    section.put(name, Value::text(text), Vec::new());
                }
            }
            let headers = site
                .headers
                .iter()
                .map(|(name, value)| (name.clone(), Value::text(value)));
            let timeouts = site.timeouts.iter();
            let timeouts = timeouts
                .map(|(name, millis)| ((*name).to_owned(), Value::text(amounts::written(*millis))));
            for (name, fields) in [
                ("headers", headers.collect::<Vec<_>>()),
                ("timeouts", timeouts.collect()),
            ] {
                if !fields.is_empty() {
                    section.put(name, Value::Table(fields), Vec::new());
                }
            }
            if let Some(tries) = site.tries {
                section.put("tries", Value::bare(tries), Vec::new());
            }
            if let Some(cooldown) = &site.cooldown {
                section.put("cooldown", Value::text(cooldown), Vec::new());
            }
            if let Some((budget, notes)) = &known.budget {
                section.put("budget", budget.clone(), notes.clone());
            }
            section.write(out);
        }
    }
}

/// Whether a provider can be called so.
fn is_name(name: &str) -> bool {
    let fits = |c: char| matches!(c, 'a'..='z' | '0'..='9' | '_' | '-');
    !name.is_empty() && name.chars().all(fits)
}

/// The host and the port of an address.
fn host(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let host = rest.split_once('/').map_or(rest, |(host, _)| host);
    host.strip_suffix(".invalid").unwrap_or(host)
}

/// Providers and models.
pub(super) struct Written<'y> {
    pub providers: Providers,
    pub models: Vec<Model<'y>>,
}

/// Puts the deployments together.
pub(super) fn assemble<'y>(
    deployments: Vec<Deployment<'y>>,
    routing: &Routing<'y>,
    marks: &mut Marks,
) -> Written<'y> {
    let mut providers = Providers::default();
    // Whoever stands for all models of a provider gives it its name.
    let (patterns, plain): (Vec<_>, Vec<_>) =
        deployments.into_iter().partition(Deployment::is_pattern);
    for deployment in &patterns {
        providers.pattern(deployment, marks);
    }
    let mut models: Vec<Model<'y>> = Vec::new();
    let mut places: BTreeMap<String, usize> = BTreeMap::new();
    for deployment in plain {
        let provider = providers.of(&deployment);
        let place = *places
            .entry(deployment.group.clone())
            .or_insert(models.len());
        if place == models.len() {
            models.push(Model::new(&deployment.group));
        }
        if let Some(model) = models.get_mut(place) {
            let node = deployment
                .entry
                .get("model_name")
                .unwrap_or(deployment.entry);
            marks.exact(node, format!("models.{}", deployment.group));
            model.add(&provider, deployment, marks);
        }
    }
    for allowed in &routing.budgets {
        providers.budget(allowed, marks);
    }
    fallbacks::settle(&mut models, routing, &providers, marks);
    Written { providers, models }
}

/// What an entry says at `litellm_params`.
pub(super) fn param<'y>(entry: &'y Node, name: &str) -> Option<&'y Node> {
    entry.get("litellm_params")?.get(name)
}
