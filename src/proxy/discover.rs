//! What do providers serve? Asked from time to time, and never by a request: a list that is old is better than one that
//! is waited for.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, interval, timeout};

use crate::gateway::Gateway;
use crate::upstream::Client;

/// How often we look who is to be asked: a new provider's models are listed after this.
const LOOK: Duration = Duration::from_secs(2);
/// A list is asked for again after this.
const FRESH: Duration = Duration::from_secs(300);
/// One that did not come, after this.
const AGAIN: Duration = Duration::from_secs(30);
/// How long a provider may take to list its models.
const WITHIN: Duration = Duration::from_secs(20);

/// When each provider is to be asked next.
#[derive(Default)]
struct Calendar(HashMap<Box<str>, Instant>);

impl Calendar {
    /// Whether a provider is to be asked now. It counts as asked then.
    fn is_due(&mut self, name: &str, now: Instant) -> bool {
        if self.0.get(name).is_some_and(|next| now < *next) {
            return false;
        }
        self.0.insert(name.into(), now + FRESH);
        true
    }

    fn failed(&mut self, name: &str, now: Instant) {
        self.0.insert(name.into(), now + AGAIN);
    }

    /// Forgets those that are gone, so that one that comes back is asked at once.
    fn keep(&mut self, known: impl Fn(&str) -> bool) {
        self.0.retain(|name, _| known(name));
    }
}

/// Asks those providers that the plan in force says, again and again. Ends when it is dropped.
pub async fn discover(gateway: &Gateway) {
    let client = Arc::new(Client::default());
    let mut calendar = Calendar::default();
    let mut asked = JoinSet::new();
    let mut look = interval(LOOK);
    loop {
        tokio::select! {
            now = look.tick() => {
                client.sweep(now);
                let plan = gateway.plan();
                let wanted = |name: &str| plan.providers.get(name).is_some_and(|p| p.provider.discover);
                calendar.keep(wanted);
                forget(gateway, wanted);
                for (name, passage) in plan.providers.iter().filter(|(name, _)| wanted(name)) {
                    if calendar.is_due(name, now) {
                        let (client, provider) = (Arc::clone(&client), Arc::clone(&passage.provider));
                        let name = name.clone();
                        asked.spawn(async move {
                            (name, timeout(WITHIN, client.models(&provider)).await)
                        });
                    }
                }
            }
            Some(Ok((name, answered))) = asked.join_next(), if !asked.is_empty() => {
                let why = match answered {
                    Ok(Ok(models)) => {
                        learn(gateway, name, models);
                        continue;
                    }
                    Ok(Err(cause)) => cause.to_string(),
                    Err(_) => format!("it took longer than {WITHIN:?}"),
                };
                tracing::warn!(provider = &*name, why, "its models could not be listed; the last list stays");
                calendar.failed(&name, Instant::now());
            }
        }
    }
}

/// Only one task ever writes the lists, so none can be lost between reading and writing.
fn learn(gateway: &Gateway, name: Box<str>, models: Vec<Box<str>>) {
    let lists = &gateway.state.discovered;
    let mut new = BTreeMap::clone(&lists.load());
    new.insert(name, models);
    lists.store(Arc::new(new));
}

fn forget(gateway: &Gateway, wanted: impl Fn(&str) -> bool) {
    let lists = &gateway.state.discovered;
    let old = lists.load();
    if old.keys().all(|name| wanted(name)) {
        return;
    }
    let mut new = BTreeMap::clone(&old);
    new.retain(|name, _| wanted(name));
    lists.store(Arc::new(new));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_is_asked_at_its_time() {
        let mut calendar = Calendar::default();
        let start = Instant::now();
        assert!(calendar.is_due("a", start));
        assert!(!calendar.is_due("a", start + LOOK));
        assert!(calendar.is_due("b", start + LOOK), "a new one at once");
        assert!(calendar.is_due("a", start + FRESH));
        calendar.failed("a", start + FRESH);
        assert!(!calendar.is_due("a", start + FRESH + LOOK));
        assert!(calendar.is_due("a", start + FRESH + AGAIN));
        calendar.keep(|name| name != "b");
        assert!(calendar.is_due("b", start + 2 * LOOK), "it came back");
    }
}
