//! `tollgate check`: read a configuration and name every flaw, with its place.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context as _;

use super::{Failed, Loaded};
use crate::config::load::Source;
use crate::config::secret::Environment;
use crate::gateway::Gateway;
use crate::plan::Plan;
use crate::provider::Origin;
use crate::telemetry::Telemetry;
use crate::telemetry::metrics::Metrics;

/// Reads, compiles and says what there is. With `probe`, also asks each provider for its models.
#[expect(clippy::print_stdout, reason = "a command answers on standard output")]
pub fn run(file: &Path, environment: Environment, probe: bool) -> Result<(), Failed> {
    let loaded = Loaded::read(Source::open(file)?, environment);
    let telemetry = Telemetry::new(Metrics::new(), None);
    let gateway = match Gateway::new(&loaded.config, telemetry, loaded.surroundings()) {
        Ok(gateway) if loaded.flaws.is_empty() => gateway,
        Ok(_) => return Err(loaded.report(Vec::new()).into()),
        Err(found) => return Err(loaded.report(found).into()),
    };
    let plan = gateway.plan();
    for warning in &plan.warnings {
        println!("{warning}");
    }
    for (name, proxy) in proxies(&plan) {
        println!("{name}: through the proxy {proxy}");
    }
    println!(
        "{}: fine: {}, {}, {}",
        file.display(),
        count(plan.providers.len(), "provider"),
        count(plan.models.len(), "model"),
        count(loaded.config.keys.len(), "key"),
    );
    if probe {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let runtime = runtime.context("no runtime to probe with")?;
        let silent = runtime.block_on(probe_all(&plan));
        if silent > 0 {
            let message = format!("{} did not answer", count(silent, "provider"));
            return Err(Failed::User(anyhow::Error::msg(message)));
        }
    }
    Ok(())
}

fn count(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
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

/// Asks each provider for its models; how many did not answer.
#[expect(clippy::print_stdout, reason = "a command answers on standard output")]
async fn probe_all(plan: &Plan) -> usize {
    let client = crate::upstream::Client::default();
    let mut names: Vec<_> = plan.providers.keys().collect();
    names.sort_unstable();
    let mut silent = 0;
    for name in names {
        let Some(passage) = plan.providers.get(name) else {
            continue;
        };
        match client.models(&passage.provider).await {
            Ok(models) => {
                println!("{name}: answers, {}", count(models.len(), "model"));
                for missing in unlisted(plan, name, &models) {
                    println!("{name}: does not list {missing}");
                }
            }
            Err(cause) => {
                silent += 1;
                println!("{name}: {cause}");
            }
        }
    }
    silent
}
