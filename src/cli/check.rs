//! `tollgate check`: read a configuration and name every flaw, with its place.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use anyhow::Context as _;
use tokio::task::JoinSet;

use super::progress::Progress;
use super::{Failed, Loaded, count};
use crate::config::load::Source;
use crate::config::secret::Environment;
use crate::plan::Plan;
use crate::provider::Origin;
use crate::telemetry::metrics::Metrics;
use crate::upstream::Client;

/// Reads, compiles and says what there is. With `probe`, also asks each provider for its models; with `strict`, it is not
/// fine if a budget needs a price that is not wholly known.
pub fn run(file: &Path, environment: Environment, probe: bool, strict: bool) -> Result<(), Failed> {
    let loaded = Loaded::read(Source::open(file)?, environment);
    let (plan, wanted) = loaded.checked()?;
    let mut lines = [plan.gaps.as_slice(), &plan.warnings].concat();
    lines.extend(wanted.certified(&Metrics::new(), SystemTime::now()));
    for (name, proxy) in proxies(&plan) {
        lines.push(format!("{name}: through the proxy {proxy}"));
    }
    lines.push(format!(
        "{}: fine: {}, {}, {}",
        file.display(),
        count(plan.providers.len(), "provider"),
        count(plan.models.len(), "model"),
        count(loaded.config.keys.len(), "key"),
    ));
    super::print(&lines);
    if probe {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let runtime = runtime.context("no runtime to probe with")?;
        let asking = Progress::of("asking the providers for their models");
        let silent = runtime.block_on(probe_all(&plan));
        drop(asking);
        if silent > 0 {
            let message = format!("{} did not answer", count(silent, "provider"));
            return Err(Failed::User(anyhow::Error::msg(message)));
        }
    }
    if strict && !plan.gaps.is_empty() {
        let message = "a budget needs prices that are not wholly known; docs/budgets.md says which";
        return Err(Failed::User(anyhow::Error::msg(message)));
    }
    Ok(())
}

/// Who is asked through a proxy, in order; the proxies without their credentials.
fn proxies(plan: &Plan) -> BTreeMap<&str, &str> {
    let providers = plan.providers.iter();
    let through = providers.filter_map(|(name, passage)| match &passage.provider.origin {
        Origin::Site(site) => Some((&**name, &*site.via.as_ref()?.name)),
        Origin::Echo => None,
    });
    through.collect()
}

/// The models that the configuration asks a provider for, and that it does not list.
fn unlisted<'p>(plan: &'p Plan, provider: &str, models: &[Box<str>]) -> Vec<&'p str> {
    let asked = plan.targets.keys().filter_map(|target| {
        let (name, model) = target.split_once('/')?;
        (name == provider).then_some(model)
    });
    // Ollama lists the tag that goes without saying.
    let is_listed = |model: &str| {
        let mut told = models.iter().map(AsRef::as_ref);
        told.any(|told: &str| told == model || told.strip_suffix(":latest") == Some(model))
    };
    asked.filter(|model| !is_listed(model)).collect()
}

/// Asks all providers for their models at once, and tells of each in order; how many did not answer.
async fn probe_all(plan: &Plan) -> usize {
    let client = Arc::new(Client::default());
    let mut asked = JoinSet::new();
    for (name, passage) in &plan.providers {
        let (client, provider) = (Arc::clone(&client), Arc::clone(&passage.provider));
        let name = name.clone();
        asked.spawn(async move { (name, client.models(&provider, SystemTime::now()).await) });
    }
    let mut answers = asked.join_all().await;
    answers.sort_by(|(one, _), (other, _)| one.cmp(other));
    for (name, answer) in &answers {
        let mut lines = vec![match answer {
            Ok(models) => format!("{name}: answers, {}", count(models.len(), "model")),
            Err(cause) => format!("{name}: {cause}"),
        }];
        let models = answer.as_ref().map_or(&[][..], Vec::as_slice);
        if answer.is_ok() {
            let missing = unlisted(plan, name, models).into_iter();
            lines.extend(missing.map(|model| format!("{name}: does not list {model}")));
        }
        super::print(&lines);
    }
    answers.iter().filter(|(_, answer)| answer.is_err()).count()
}
