//! Is a target worth asking? What its answers and failures tell of the model, of the provider's key and of its endpoint.
//!
//! Each is judged by its own: a connection that fails is the endpoint's fault, a key that is refused the key's, an error
//! the model's, over all routes; what is wrong with a request is nobody's. It outlives plans.

use std::collections::HashMap;
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::Share;
use super::allowance::Allowance;
use super::breaker::{Breaker, Resort, Resting, Why};
use super::pace::{Back, Pace};

/// With so many failures in a row a model, or an endpoint, rests.
const ROW: u32 = 5;
/// A key that is refused will not be accepted a moment later; but some providers refuse a single model like this.
const REFUSALS: u32 = 3;

/// What is known of a target. Of a model's thousand targets a request looks at two that nobody has at hand: what it looks at
/// lies together, at the beginning.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Health {
    provider: Arc<Parts>,
    pace: Pace,
    model: Breaker,
    name: Arc<str>,
    /// Leave to have it load its model: there is one.
    loads: Arc<Semaphore>,
}

/// What all models of a provider have in common.
#[derive(Debug)]
struct Parts {
    key: Breaker,
    endpoint: Breaker,
    /// When one of the two began to work again, as their paces count it.
    back: Arc<AtomicU32>,
}

impl Default for Parts {
    fn default() -> Self {
        Self {
            key: Breaker::new(REFUSALS),
            endpoint: Breaker::new(ROW),
            back: Arc::default(),
        }
    }
}

/// Who works again with each part.
const WHOSE: [Back; 3] = [Back::Provider, Back::Provider, Back::Target];

/// Whose fault a failure is, as far as a target's health goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// The provider could not be reached.
    Endpoint,
    /// It refuses our key.
    Key,
    /// It failed, is not there, or broke off.
    Model,
    /// It says itself that it will not answer for so long.
    Busy(Duration),
    /// The client's: it was reached, and knows us.
    Request,
    /// Nobody's that is known: it was given up.
    Nobody,
}

impl Health {
    /// Of a target that nobody knows by name: what is learned of its model is forgotten with it.
    #[must_use]
    pub fn unknown(&self, name: &Arc<str>) -> Self {
        Self {
            name: Arc::clone(name),
            model: Breaker::new(ROW),
            provider: Arc::clone(&self.provider),
            pace: self.pace.anew(),
            loads: Arc::new(Semaphore::new(1)),
        }
    }

    /// How fast it is, and how much it has to do.
    pub fn pace(&self) -> &Pace {
        &self.pace
    }

    fn parts(&self) -> [&Breaker; 3] {
        [&self.provider.endpoint, &self.provider.key, &self.model]
    }

    /// Whether nothing is known against any part of it: so it is with most, and they cost a look.
    fn is_well(&self) -> bool {
        self.parts().into_iter().all(Breaker::is_well)
    }

    /// Tells the operator that it rests, if it begins to.
    fn tells(&self, rest: Option<Duration>, why: &str) {
        if let Some(rest) = rest {
            let seconds = (rest.as_secs_f64() * 10.0).round() / 10.0;
            let target = &*self.name;
            tracing::warn!(target, seconds, why, "a target is not asked for a while");
        }
    }

    /// Whether it would be asked, and if not, when: as soon as no part of it rests. What is parked is asked by nobody until
    /// then.
    pub fn look(&self, now: Instant) -> Result<(), Resting> {
        match self.is_well() {
            true => Ok(()),
            false => self.rests(now),
        }
    }

    #[cold]
    fn rests(&self, now: Instant) -> Result<(), Resting> {
        let parts = self.parts().into_iter();
        let resting = parts.filter_map(|part| part.look(now).err());
        let both = |one: Resting, other: Resting| Resting {
            wait: one.wait.max(other.wait),
            why: if one.why == Why::Parked {
                one.why
            } else {
                other.why
            },
        };
        resting.reduce(both).map_or(Ok(()), Err)
    }

    /// Whoever loads its model has come to something.
    pub async fn loaded(&self) {
        // It is never closed.
        let _ = self.loads.acquire().await;
    }

    /// Leave to ask it. If it then rests, it does so for about `cooldown` at first, or never, if that is zero.
    pub fn enter(
        self: &Arc<Self>,
        cooldown: Duration,
        resort: Resort,
        now: Instant,
    ) -> Result<Trial, Resting> {
        let mut trial = Trial {
            health: Arc::clone(self),
            cooldown,
            began: now,
            tries: [false; 3],
            loads: None,
        };
        self.pace.enters();
        if !self.is_well() {
            trial.enters(resort, now)?;
        }
        Ok(trial)
    }
}

/// One request to one target, which tells what came of it. Dropped, it has found nothing out.
#[derive(Debug)]
pub struct Trial {
    health: Arc<Health>,
    cooldown: Duration,
    began: Instant,
    /// Which parts it tries, after they rested.
    tries: [bool; 3],
    /// It has its model loaded, as the only one.
    loads: Option<OwnedSemaphorePermit>,
}

impl Trial {
    /// Asks each part for leave.
    #[cold]
    fn enters(&mut self, resort: Resort, now: Instant) -> Result<(), Resting> {
        let health = Arc::clone(&self.health);
        for (part, tries) in health.parts().into_iter().zip(&mut self.tries) {
            // Whoever is turned down gives back what it was to try.
            *tries = part.enter(now, resort)?;
        }
        Ok(())
    }

    /// It may have to load its model first. False if another request has it do so.
    pub fn loads(&mut self) -> bool {
        if self.health.pace.is_cold(self.began) {
            self.loads = Arc::clone(&self.health.loads).try_acquire_owned().ok();
            return self.loads.is_some();
        }
        true
    }

    /// Whether it has the model loaded.
    pub fn is_loading(&self) -> bool {
        self.loads.is_some()
    }

    /// Whether there is nothing that an answer could change.
    fn is_plain(&self) -> bool {
        self.tries == [false; 3] && self.health.is_well()
    }

    /// An answer has begun: whatever was tried works again, and it was reached, and knows us. Gives how long that took.
    pub fn begins(&mut self, now: Instant) -> Duration {
        if !self.is_plain() {
            self.worked(2, now);
            self.found(true, now);
        }
        let after = now.saturating_duration_since(self.began);
        self.health.pace.warms(now);
        if self.loads.take().is_none() {
            self.health.pace.answers(after, now);
        }
        after
    }

    /// The first parts did what was theirs to do.
    #[cold]
    fn worked(&mut self, parts: usize, now: Instant) {
        let all = self.health.parts().into_iter().zip(&mut self.tries);
        for ((part, tries), who) in all.zip(WHOSE).take(parts) {
            let was_trying = std::mem::take(tries);
            part.worked(was_trying, now);
            if was_trying {
                self.health.pace.returns(who, now);
            }
        }
    }

    /// Another was faster. So long it took at the least, and that is news: whoever is stopped when it is slow would seem fast.
    pub fn is_outrun(&mut self, now: Instant) {
        if self.is_loading() {
            return;
        }
        let after = now.saturating_duration_since(self.began);
        self.health.pace.answers(after, now);
    }

    /// It has answered, and says that it will not do so again for a while.
    pub fn parks(&mut self, wait: Duration, now: Instant) {
        let rest = self.health.model.parks(false, wait, now);
        self.health.tells(rest, "is at its limit");
    }

    /// The answer came to its end, and was well.
    pub fn answered(&mut self, now: Instant) {
        if !self.is_plain() {
            self.found(true, now);
            let parts = self.health.parts().into_iter();
            parts.for_each(|part| part.answered(now));
        }
    }

    /// It came to nothing, or broke off.
    pub fn failed(&mut self, blame: Blame, now: Instant) {
        let health = Arc::clone(&self.health);
        let [endpoint, key, model] = health.parts();
        let [_, _, tries_model] = self.tries;
        // Whoever refuses us was reached, and whoever fails knows us.
        let (reached, part, why) = match blame {
            Blame::Endpoint => (0, endpoint, "cannot be reached"),
            Blame::Key => (1, key, "refuses our key"),
            Blame::Model => (2, model, "fails"),
            Blame::Busy(wait) => {
                self.worked(2, now);
                health.tells(model.parks(tries_model, wait, now), "is at its limit");
                self.tries = [false; 3];
                return;
            }
            Blame::Request => return self.worked(2, now),
            Blame::Nobody => return,
        };
        self.worked(reached, now);
        let was_trying = self.tries.get_mut(reached).is_some_and(std::mem::take);
        health.tells(part.failed(was_trying, self.cooldown, now), why);
    }

    #[cold]
    fn found(&mut self, works: bool, now: Instant) {
        let all = self.health.parts().into_iter().zip(&mut self.tries);
        for ((part, tries), who) in all.zip(WHOSE) {
            if std::mem::take(tries) {
                part.tried(works, now);
                if works {
                    self.health.pace.returns(who, now);
                }
            }
        }
    }
}

impl Drop for Trial {
    fn drop(&mut self) {
        self.health.pace.leaves();
        // The clock does not matter to who has found nothing out.
        if self.tries != [false; 3] {
            self.found(false, Instant::now());
        }
    }
}

/// What is known of all targets. Outlives plans: a reload forgets no failure.
#[derive(Debug)]
pub struct Healths {
    known: Mutex<Known>,
    born: Instant,
}

#[derive(Debug, Default)]
struct Known {
    targets: HashMap<Arc<str>, Arc<Health>>,
    providers: HashMap<Arc<str>, Arc<Parts>>,
    allowances: HashMap<Arc<str>, Arc<Allowance>>,
    shares: HashMap<Arc<str>, Arc<Share>>,
}

impl Healths {
    /// Of which nothing is known yet.
    pub fn new(now: Instant) -> Self {
        Self {
            known: Mutex::default(),
            born: now,
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // Nothing in here panics.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known of a provider's target, by its full name.
    pub fn of(&self, provider: &Arc<str>, target: &str) -> Arc<Health> {
        let known = &mut *self.known();
        if let Some(health) = known.targets.get(target) {
            return Arc::clone(health);
        }
        let parts = known.providers.entry(Arc::clone(provider)).or_default();
        let health = Arc::new(Health {
            name: target.into(),
            model: Breaker::new(ROW),
            provider: Arc::clone(parts),
            pace: Pace::new(&parts.back, self.born),
            loads: Arc::new(Semaphore::new(1)),
        });
        known
            .targets
            .insert(Arc::clone(&health.name), Arc::clone(&health));
        health
    }

    /// What may be retried of the requests for a model.
    pub fn allowance(&self, model: &str) -> Arc<Allowance> {
        Arc::clone(self.known().allowances.entry(model.into()).or_default())
    }

    /// How many of the requests for a model may still be hedged.
    pub fn share(&self, model: &str) -> Arc<Share> {
        Arc::clone(self.known().shares.entry(model.into()).or_default())
    }

    /// Another configuration is in force. What it no longer has is forgotten, and what is known of keys: they may be others
    /// now, and that is often why there is another configuration.
    pub fn reloaded(&self, now: Instant) {
        let known = &mut *self.known();
        known.targets.retain(|_, it| Arc::strong_count(it) > 1);
        known.providers.retain(|_, it| Arc::strong_count(it) > 1);
        known.allowances.retain(|_, it| Arc::strong_count(it) > 1);
        known.shares.retain(|_, it| Arc::strong_count(it) > 1);
        for provider in known.providers.values() {
            provider.key.tried(true, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COOLDOWN: Duration = Duration::from_secs(2);

    fn targets() -> (Arc<Health>, Arc<Health>) {
        let (healths, groq) = (Healths::new(Instant::now()), "groq".into());
        (healths.of(&groq, "groq/a"), healths.of(&groq, "groq/b"))
    }

    fn fail(target: &Arc<Health>, blame: Blame, times: u32, now: Instant) {
        for _ in 0..times {
            let mut trial = target.enter(COOLDOWN, Resort::Other, now).unwrap();
            trial.failed(blame, now);
        }
    }

    #[test]
    fn each_failure_is_blamed_on_whose_fault_it_is() {
        let now = Instant::now();
        for (blame, times, rests) in [
            (Blame::Model, ROW, [true, false]),
            (Blame::Endpoint, ROW, [true, true]),
            (Blame::Key, REFUSALS, [true, true]),
            (Blame::Busy(Duration::from_secs(9)), 1, [true, false]),
            (Blame::Request, 100, [false, false]),
            (Blame::Nobody, 100, [false, false]),
        ] {
            let (one, other) = targets();
            fail(&one, blame, times, now);
            let found = [&one, &other].map(|target| target.look(now).is_err());
            assert_eq!(found, rests, "{blame:?}");
        }
    }

    #[test]
    fn whoever_tries_it_says_what_works_and_the_rest_is_tried_by_the_next() {
        let now = Instant::now();
        let (one, other) = targets();
        fail(&one, Blame::Endpoint, ROW, now);
        let now = now + Duration::from_secs(3);
        let trial = one.enter(COOLDOWN, Resort::Other, now).unwrap();
        assert!(
            other.enter(COOLDOWN, Resort::Other, now).is_err(),
            "one at a time"
        );
        drop(trial);
        let mut trial = other.enter(COOLDOWN, Resort::Other, now).unwrap();
        // It was reached.
        trial.failed(Blame::Model, now);
        assert_eq!((one.look(now), other.look(now)), (Ok(()), Ok(())));
    }

    #[test]
    fn who_says_no_was_reached_and_who_is_busy_knows_us() {
        let now = Instant::now();
        for (blame, parts) in [
            (Blame::Key, [true, false]),
            (Blame::Busy(Duration::ZERO), [true, true]),
            (Blame::Request, [true, true]),
            (Blame::Nobody, [false, false]),
        ] {
            let (one, _) = targets();
            for _ in 1..ROW {
                one.provider.endpoint.failed(false, COOLDOWN, now);
            }
            one.provider.key.failed(false, COOLDOWN, now);
            fail(&one, blame, 1, now);
            let rests = one.provider.endpoint.failed(false, COOLDOWN, now);
            assert_eq!(rests.is_none(), parts[0], "{blame:?}: the endpoint");
            // Two refusals are one too few, and the third of three is not.
            let rests = one.provider.key.failed(false, COOLDOWN, now);
            assert_eq!(rests.is_some(), blame == Blame::Key, "{blame:?}: the key");
        }
    }

    #[test]
    fn of_all_that_rests_the_longest_counts_and_nobody_goes_past_what_is_parked() {
        let now = Instant::now();
        let (one, _) = targets();
        fail(&one, Blame::Busy(Duration::from_secs(600)), 1, now);
        for _ in 0..ROW {
            one.provider.endpoint.failed(false, COOLDOWN, now);
        }
        let resting = one.look(now).unwrap_err();
        assert_eq!((resting.wait.as_secs(), resting.why), (600, Why::Parked));
    }

    #[test]
    fn an_answer_that_begins_ends_the_rest_and_one_that_breaks_off_is_a_failure_all_the_same() {
        let now = Instant::now();
        let (one, _) = targets();
        fail(&one, Blame::Model, ROW, now);
        let now = now + Duration::from_secs(3);
        let mut trial = one.enter(COOLDOWN, Resort::Other, now).unwrap();
        trial.begins(now);
        assert_eq!(
            one.look(now),
            Ok(()),
            "the others need not wait for its end"
        );
        trial.failed(Blame::Model, now);
        fail(&one, Blame::Model, ROW - 1, now);
        assert_eq!(one.look(now).unwrap_err().why, Why::Failing);
    }

    #[test]
    fn a_reload_forgets_no_failure_but_keys_that_were_refused() {
        let now = Instant::now();
        let (healths, groq) = (Healths::new(now), "groq".into());
        let (one, other) = (healths.of(&groq, "groq/a"), healths.of(&groq, "groq/b"));
        fail(&one, Blame::Model, ROW, now);
        fail(&other, Blame::Key, REFUSALS, now);
        healths.reloaded(now);
        assert!(healths.of(&groq, "groq/a").look(now).is_err());
        assert_eq!(healths.of(&groq, "groq/b").look(now), Ok(()));
        drop((one, other));
        healths.reloaded(now);
        assert_eq!(healths.of(&groq, "groq/a").look(now), Ok(()));
    }
}
