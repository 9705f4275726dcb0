//! What do providers serve? Asked from time to time, and never by a request: a list that is old is better than one that
//! is waited for.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, interval};

use crate::gateway::Gateway;
use crate::upstream::Client;

/// How often we look who is to be asked: a new provider's models are listed after this.
const LOOK: Duration = Duration::from_secs(2);
/// A list is asked for again after this.
const FRESH: Duration = Duration::from_secs(300);
/// One that did not come, after this.
const AGAIN: Duration = Duration::from_secs(30);

/// When each provider is to be asked next, and where it was asked last.
#[derive(Default)]
struct Calendar(HashMap<Box<str>, (Instant, Arc<str>)>);

impl Calendar {
    /// Whether a provider at this place is to be asked now. It counts as asked then.
    fn is_due(&mut self, name: &str, place: &Arc<str>, now: Instant) -> bool {
        if self.0.get(name).is_some_and(|(next, _)| now < *next) {
            return false;
        }
        self.0.insert(name.into(), (now + FRESH, Arc::clone(place)));
        true
    }

    fn failed(&mut self, name: &str, now: Instant) {
        if let Some((next, _)) = self.0.get_mut(name) {
            *next = now + AGAIN;
        }
    }

    /// Forgets those that are gone or have moved, so that one that comes back is asked at once.
    fn keep(&mut self, is_at: impl Fn(&str, &str) -> bool) {
        self.0.retain(|name, (_, place)| is_at(name, place));
    }

    /// Whether a provider was asked last at this place.
    fn knows(&self, name: &str, place: &str) -> bool {
        self.0.get(name).is_some_and(|(_, asked)| **asked == *place)
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
                let providers = plan.providers.iter().map(|(name, passage)| (name, &passage.provider));
                let wanted: BTreeMap<_, _> = providers
                    .filter(|(_, provider)| provider.discover)
                    .map(|(name, provider)| (&**name, (provider, provider.origin.key())))
                    .collect();
                calendar.keep(|name, place| wanted.get(name).is_some_and(|(_, at)| **at == *place));
                forget(gateway, |name| calendar.0.contains_key(name));
                for (name, (provider, place)) in wanted {
                    if calendar.is_due(name, &place, now) {
                        let (client, provider) = (Arc::clone(&client), Arc::clone(provider));
                        let name: Box<str> = name.into();
                        let now = (gateway.wall)();
                        asked.spawn(async move {
                            (name, place, client.models(&provider, now).await)
                        });
                    }
                }
            }
            Some(Ok((name, place, answered))) = asked.join_next(), if !asked.is_empty() => {
                // What has moved meanwhile is not listed by what it had elsewhere.
                if !calendar.knows(&name, &place) {
                    continue;
                }
                let why = match answered {
                    Ok(models) => {
                        learn(gateway, name, models);
                        continue;
                    }
                    Err(cause) => cause.to_string(),
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
        let (here, there): (Arc<str>, Arc<str>) = ("here".into(), "there".into());
        let mut calendar = Calendar::default();
        let start = Instant::now();
        assert!(calendar.is_due("a", &here, start));
        assert!(!calendar.is_due("a", &here, start + LOOK));
        let new = calendar.is_due("b", &here, start + LOOK);
        assert!(new, "a new one at once");
        assert!(calendar.is_due("a", &here, start + FRESH));
        calendar.failed("a", start + FRESH);
        assert!(!calendar.is_due("a", &here, start + FRESH + LOOK));
        assert!(calendar.is_due("a", &here, start + FRESH + AGAIN));
        calendar.keep(|name, place| name == "a" && place == "here");
        assert!(
            calendar.is_due("b", &here, start + 2 * LOOK),
            "it came back"
        );
        calendar.keep(|_, place| place == "there");
        assert!(!calendar.knows("a", "here"), "it has moved");
        assert!(calendar.is_due("a", &there, start + 2 * LOOK));
        assert!(calendar.knows("a", "there"));
    }
}
