//! What do providers serve, and with which voices do they speak? Asked from time to time, and never by a request: a list that is old is better than one that
//! is waited for.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::task::JoinSet;
use tokio::time::{Instant, interval};

use crate::gateway::Gateway;
use crate::plan::Plan;
use crate::protocol::Voice;
use crate::provider::{Provider, Voices};
use crate::upstream::Client;

/// How often we look who is to be asked: a new provider's models are listed after this.
const LOOK: Duration = Duration::from_secs(2);
/// A list is asked for again after this.
const FRESH: Duration = Duration::from_secs(300);
/// One that did not come, after this.
const AGAIN: Duration = Duration::from_secs(30);

/// What a provider is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum List {
    Models,
    Voices,
}

impl List {
    fn is_wanted(self, provider: &Provider) -> bool {
        match self {
            Self::Models => provider.discover,
            Self::Voices => provider.voices == Voices::Asked(true),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Models => "models",
            Self::Voices => "voices",
        }
    }
}

/// A list of a provider's.
type Of = (List, Box<str>);

/// When each list is to be asked for next, and where it was asked for last.
#[derive(Default)]
struct Calendar(HashMap<Of, (Instant, Arc<str>)>);

impl Calendar {
    /// Whether a list is to be asked for at this place now. It counts as asked for then.
    fn is_due(&mut self, of: &Of, place: &Arc<str>, now: Instant) -> bool {
        if self.0.get(of).is_some_and(|(next, _)| now < *next) {
            return false;
        }
        self.0.insert(of.clone(), (now + FRESH, Arc::clone(place)));
        true
    }

    fn failed(&mut self, of: &Of, now: Instant) {
        if let Some((next, _)) = self.0.get_mut(of) {
            *next = now + AGAIN;
        }
    }

    /// Forgets those that are gone or have moved, so that one that comes back is asked for at once.
    fn keep(&mut self, is_at: impl Fn(&Of, &str) -> bool) {
        self.0.retain(|of, (_, place)| is_at(of, place));
    }

    /// Whether a list was asked for last at this place.
    fn knows(&self, of: &Of, place: &str) -> bool {
        self.0.get(of).is_some_and(|(_, asked)| **asked == *place)
    }
}

/// What a provider answered.
enum Told {
    Models(Vec<Box<str>>),
    Voices(Vec<Voice>),
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
                let wanted = wanted(&plan);
                calendar.keep(|of, place| wanted.get(of).is_some_and(|(_, at)| **at == *place));
                forget(gateway, &calendar);
                for (of, (provider, place)) in wanted {
                    if calendar.is_due(&of, &place, now) {
                        let (client, provider) = (Arc::clone(&client), Arc::clone(provider));
                        let now = (gateway.wall)();
                        asked.spawn(async move {
                            let told = match of.0 {
                                List::Models => client.models(&provider, now).await.map(Told::Models),
                                List::Voices => client.voices(&provider, now).await.map(Told::Voices),
                            };
                            (of, place, told)
                        });
                    }
                }
            }
            Some(Ok((of, place, told))) = asked.join_next(), if !asked.is_empty() => {
                // What has moved meanwhile is not listed by what it had elsewhere.
                if !calendar.knows(&of, &place) {
                    continue;
                }
                let why = match told {
                    Ok(told) => {
                        learn(gateway, of.1, told);
                        continue;
                    }
                    Err(cause) => cause.to_string(),
                };
                let list = of.0.name();
                tracing::warn!(provider = &*of.1, why, "its {list} could not be listed; the last list stays");
                calendar.failed(&of, Instant::now());
            }
        }
    }
}

/// Which lists are to be had, of whom, and where.
fn wanted(plan: &Plan) -> BTreeMap<Of, (&Arc<Provider>, Arc<str>)> {
    let providers = plan.providers.iter();
    let lists = providers.flat_map(|(name, passage)| {
        let provider = &passage.provider;
        let lists = [List::Models, List::Voices].into_iter();
        let lists = lists.filter(|list| list.is_wanted(provider));
        lists.map(move |list| ((list, name.clone()), (provider, provider.origin.key())))
    });
    lists.collect()
}

/// Only one task ever writes the lists, so none can be lost between reading and writing.
fn learn(gateway: &Gateway, name: Box<str>, told: Told) {
    let state = &gateway.state;
    match told {
        Told::Models(models) => put(&state.discovered, name, models),
        Told::Voices(voices) => put(&state.voices, name, voices),
    }
}

fn put<T: Clone>(lists: &ArcSwap<BTreeMap<Box<str>, T>>, name: Box<str>, list: T) {
    let mut new = BTreeMap::clone(&lists.load());
    new.insert(name, list);
    lists.store(Arc::new(new));
}

fn forget(gateway: &Gateway, calendar: &Calendar) {
    let is_wanted = |list, name: &str| calendar.0.contains_key(&(list, name.into()));
    keep(&gateway.state.discovered, |name| {
        is_wanted(List::Models, name)
    });
    keep(&gateway.state.voices, |name| is_wanted(List::Voices, name));
}

fn keep<T: Clone>(lists: &ArcSwap<BTreeMap<Box<str>, T>>, is_wanted: impl Fn(&str) -> bool) {
    let old = lists.load();
    if old.keys().all(|name| is_wanted(name)) {
        return;
    }
    let mut new = BTreeMap::clone(&old);
    new.retain(|name, _| is_wanted(name));
    lists.store(Arc::new(new));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_is_asked_at_its_time() {
        let (here, there): (Arc<str>, Arc<str>) = ("here".into(), "there".into());
        let [a, b]: [Of; 2] = ["a", "b"].map(|name| (List::Models, name.into()));
        let mut calendar = Calendar::default();
        let start = Instant::now();
        assert!(calendar.is_due(&a, &here, start));
        assert!(!calendar.is_due(&a, &here, start + LOOK));
        let new = calendar.is_due(&b, &here, start + LOOK);
        assert!(new, "a new one at once");
        assert!(calendar.is_due(&a, &here, start + FRESH));
        calendar.failed(&a, start + FRESH);
        assert!(!calendar.is_due(&a, &here, start + FRESH + LOOK));
        assert!(calendar.is_due(&a, &here, start + FRESH + AGAIN));
        calendar.keep(|of, place| *of == a && place == "here");
        assert!(calendar.is_due(&b, &here, start + 2 * LOOK), "it came back");
        calendar.keep(|_, place| place == "there");
        assert!(!calendar.knows(&a, "here"), "it has moved");
        assert!(calendar.is_due(&a, &there, start + 2 * LOOK));
        assert!(calendar.knows(&a, "there"));
        let voices = (List::Voices, "a".into());
        assert!(!calendar.knows(&voices, "there"), "each list for itself");
        assert!(calendar.is_due(&voices, &there, start + 2 * LOOK));
    }
}
