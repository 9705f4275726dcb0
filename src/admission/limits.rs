//! How much may someone do at once, and in a minute? What a request takes of its limits, and gives back.
//!
//! What is counted is taken of all limits or of none, under their locks at once, so that nobody is refused for what
//! another was refused, too. A request that is not sent gives all of it back: who is refused has consumed nothing.
//!
//! Where a gate has a line, whoever finds no slot may wait for one ([`Gate::queue`]), and then enters with it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use smallvec::SmallVec;
use smol_str::SmolStr;
use tokio::time::Instant;

use super::capacity::Capacity;
pub use super::capacity::{Concurrency, Feeling};
pub use super::charge::Charge;
pub use super::line::Line;
pub use super::told::{Left, Limited, What, Whose, tell};
use super::turns::{Turns, Wake};
use super::units::Windows;
pub use super::waiting::{Crowd, Waiting};
pub use super::window::MINUTE;
use super::window::Window;
use crate::usage::{UNITS, Unit, Usage};

/// What may be done. None: as much as one likes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Requests in any 60 seconds.
    pub rpm: Option<u64>,
    /// Tokens in any 60 seconds, of input and output.
    pub tpm: Option<u64>,
    /// What is no token, in any 60 seconds; in the order of [`Unit::ALL`].
    pub per_minute: [Option<u64>; UNITS],
    /// Requests under way.
    pub concurrency: Option<Concurrency>,
    /// Who finds as many under way as may be waits in it. None: is refused.
    pub line: Option<Line>,
}

impl Limits {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// How many of a unit, in any 60 seconds.
    pub(super) fn unit(&self, unit: Unit) -> Option<u64> {
        unit.of(self.per_minute)
    }

    /// Whether more is to be known of requests under way than how many they are.
    fn takes_turns(&self) -> bool {
        let is_found = matches!(self.concurrency, Some(Concurrency::Adaptive { .. }));
        is_found || (self.line.is_some() && self.concurrency.is_some())
    }
}

/// What has been taken of someone's limits. Outlives plans: a limit that changes does not refill.
#[derive(Debug, Default)]
pub(super) struct Used {
    pub(super) requests: Window,
    pub(super) tokens: Window,
    /// What is no token. None: nobody has limited it.
    pub(super) units: Option<Box<Windows>>,
    pub(super) slots: u64,
    /// Who waits for slots. None: nobody may, and there are as many as the gate says.
    pub(super) turns: Option<Box<Turns>>,
}

/// Someone's limits, and what has been taken of them.
#[derive(Debug)]
pub struct Gate {
    whose: Whose,
    name: SmolStr,
    pub(super) limits: Limits,
    used: Arc<Mutex<Used>>,
}

impl Gate {
    pub(super) fn used(&self) -> MutexGuard<'_, Used> {
        // Nothing in here panics.
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its owner's name.
    pub fn name(&self) -> &SmolStr {
        &self.name
    }

    /// Whose it is.
    pub fn whose(&self) -> Whose {
        self.whose
    }

    pub(super) fn limited(&self, what: What, limit: u64, wait: Duration) -> Limited {
        let (whose, name) = (self.whose, self.name.clone());
        Limited {
            whose,
            name,
            what,
            limit,
            wait,
        }
    }

    /// How many may be under way: as the plan in force has it, which may be a later one. None: as many as come.
    pub(super) fn most(&self, used: &Used) -> Option<u64> {
        let own = self.limits.concurrency?;
        let turns = used.turns.as_deref();
        match turns.and_then(|turns| turns.capacity.as_ref()) {
            Some(capacity) => capacity.limit(),
            None => Some(own.first()),
        }
    }

    /// Whoever comes this way shows that its plan is in force.
    pub(super) fn begin(&self, used: &mut Used) {
        if let Some(turns) = &mut used.turns
            && self.limits.takes_turns()
        {
            let rule = self.limits.concurrency;
            turns.capacity.get_or_insert_with(|| Capacity::new(rule));
        }
    }

    /// All slots are taken; somebody would wait for so long, if that is known.
    pub(super) fn busy(&self, limit: u64, wait: Option<Duration>) -> Limited {
        self.limited(What::Concurrency, limit, wait.unwrap_or(BUSY))
    }

    /// What one more request, which may have a slot, would have to wait for, longest first.
    fn refuses(&self, used: &mut Used, has_slot: bool, now: Instant) -> Option<Limited> {
        self.begin(used);
        if !has_slot
            && let Some(limit) = self.most(used)
            && used.slots >= limit
        {
            // Who it is is not known here: it is told what somebody new would be.
            let wait = used.turns.as_ref().and_then(|_| self.foresee(used, "", 1));
            return Some(self.busy(limit, wait));
        }
        let limit = self.limits.rpm?;
        let wait = used.requests.wait(now, 1, limit)?;
        Some(self.limited(What::Rpm, limit, wait))
    }

    /// What is left of each of its limits.
    pub fn left(&self, now: Instant) -> Vec<Left> {
        let mut used = self.used();
        let mut left = self.lefts(&mut used, now);
        if let Some(units) = &mut used.units {
            left.extend(Unit::ALL.into_iter().filter_map(|unit| {
                let limit = self.limits.unit(unit)?;
                Some(units.of(unit).left(What::Unit(unit), limit, now))
            }));
        }
        left
    }

    /// The same of those that heads of answers tell of: what is no token is none of them.
    pub(super) fn lefts(&self, used: &mut Used, now: Instant) -> Vec<Left> {
        let Limits { rpm, tpm, .. } = self.limits;
        let rpm = rpm.map(|limit| used.requests.left(What::Rpm, limit, now));
        let tpm = tpm.map(|limit| used.tokens.left(What::Tpm, limit, now));
        let slots = self.most(used).map(|limit| Left {
            what: What::Concurrency,
            limit,
            left: limit.saturating_sub(used.slots),
            reset: Duration::ZERO,
        });
        [rpm, tpm, slots].into_iter().flatten().collect()
    }
}

/// How long to wait for a request under way to end: nobody knows.
const BUSY: Duration = Duration::from_secs(1);

/// The slots that a request has, given back by `Drop`. There are none but those that [`enter`] and a line give.
#[derive(Debug)]
pub struct Slots {
    gates: SmallVec<[Arc<Gate>; 2]>,
    /// Since when it has the first of them.
    since: Instant,
    /// Whether that tells how long others have theirs.
    is_used: bool,
}

impl Slots {
    pub(super) fn none(now: Instant) -> Self {
        Self {
            gates: SmallVec::new(),
            since: now,
            is_used: true,
        }
    }

    /// With one that is taken already.
    pub(super) fn of(gate: Arc<Gate>, since: Instant) -> Self {
        let mut slots = Self::none(since);
        slots.gates.push(gate);
        slots
    }

    /// Whether the request is sent. If not, how long it has them says nothing of how long others will.
    pub fn set_used(&mut self, is_used: bool) {
        self.is_used = is_used;
    }

    fn has(&self, gate: &Gate) -> bool {
        let mut gates = self.gates.iter();
        gates.any(|held| Arc::ptr_eq(&held.used, &gate.used))
    }
}

impl Drop for Slots {
    fn drop(&mut self) {
        for gate in &self.gates {
            gate.give_back(self.is_used.then_some(self.since));
        }
    }
}

impl Gate {
    /// One slot is free again, or goes to whoever is next. It was held since then, unless nothing was sent meanwhile.
    pub(super) fn give_back(&self, since: Option<Instant>) {
        let mut used = self.used();
        let Used { slots, turns, .. } = &mut *used;
        *slots = slots.saturating_sub(1);
        let Some(turns) = turns else { return };
        let now = Instant::now();
        if let Some(since) = since {
            turns.held.add(now.saturating_duration_since(since));
        }
        let wake = turns.serve(slots, now);
        drop(used);
        wake.wake();
    }
}

/// Lets a request in at all gates or at none: it takes a slot of each that has some, and counts there.
pub fn enter(gates: &[Arc<Gate>], now: Instant) -> Result<(Slots, Charge), Limited> {
    enter_with(Slots::none(now), gates, now)
}

/// Lets a request in that has slots already, such as one that has waited for it. Refused, it gives them back.
pub fn enter_with(
    mut slots: Slots,
    gates: &[Arc<Gate>],
    now: Instant,
) -> Result<(Slots, Charge), Limited> {
    let mut charge = Charge::of_nothing();
    if gates.is_empty() {
        return Ok((slots, charge));
    }
    // Always in the order in which a caller has them, so that nobody waits in a circle.
    let mut all: SmallVec<[_; 2]> = gates.iter().map(|gate| gate.used()).collect();
    let both = gates.iter().zip(&mut all);
    let refused = both.filter_map(|(gate, used)| gate.refuses(used, slots.has(gate), now));
    if let Some(limited) = refused.max_by_key(|limited| limited.wait) {
        // The slots go back under the same locks.
        drop(all);
        slots.set_used(false);
        return Err(limited);
    }
    for (gate, used) in gates.iter().zip(&mut all) {
        if gate.limits.concurrency.is_some() && !slots.has(gate) {
            used.slots += 1;
            slots.gates.push(Arc::clone(gate));
        }
        let is_counted = gate.limits.rpm.is_some();
        let request = is_counted.then(|| used.requests.take(now, 1));
        charge.passes(Arc::clone(gate), request);
    }
    Ok((slots, charge))
}

/// What was taken of all limits, by their owners. Outlives plans.
#[derive(Debug, Default)]
pub struct Gates(Mutex<ByOwner>);

type ByOwner = HashMap<(Whose, SmolStr), Arc<Mutex<Used>>>;

impl Gates {
    /// Someone's limits, with what has been taken of them so far and who waits for it. How many may be under way changes
    /// for those who wait, and for plans before, once it is [enforced](Self::enforce).
    pub fn gate(&self, whose: Whose, name: &str, limits: Limits) -> Arc<Gate> {
        let name: SmolStr = name.into();
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let used = all.entry((whose, name.clone())).or_default();
        let used = Arc::clone(used);
        let mut known = used.lock().unwrap_or_else(PoisonError::into_inner);
        if limits.takes_turns() {
            known.turns.get_or_insert_default();
        }
        if limits.per_minute.iter().any(Option::is_some) {
            known.units.get_or_insert_default();
        }
        if let Some(turns) = &mut known.turns {
            turns.wanted = limits.concurrency;
        }
        drop(known);
        Arc::new(Gate {
            whose,
            name,
            limits,
            used,
        })
    }

    /// The plan with the gates that were made last is in force: where more may be under way than before, whoever waits
    /// goes on.
    pub fn enforce(&self, now: Instant) {
        let mut wake = Wake::default();
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for used in all.values() {
            let mut used = used.lock().unwrap_or_else(PoisonError::into_inner);
            let Used { slots, turns, .. } = &mut *used;
            if let Some(turns) = turns {
                wake.join(turns.enforce(slots, now));
            }
        }
        drop(all);
        wake.wake();
    }

    /// Whether nobody has any.
    pub fn is_empty(&self) -> bool {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_empty()
    }

    /// Counts what was taken before this began, if its owner has limits. To be told in the order of time.
    pub fn remember(&self, owner: (Whose, &str), requests: u64, usage: &Usage, at: Instant) {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(used) = all.get(&(owner.0, owner.1.into())) {
            let mut used = used.lock().unwrap_or_else(PoisonError::into_inner);
            used.requests.take(at, requests);
            used.tokens.take(at, usage.tokens());
            if let Some(units) = &mut used.units {
                units.remember(usage, at);
            }
        }
    }

    /// Forgets those that no plan has any more and of which nothing counts.
    pub fn prune(&self, now: Instant) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, used| {
            let mut seen = used.lock().unwrap_or_else(PoisonError::into_inner);
            let units = seen.units.as_mut();
            let is_idle = units.is_none_or(|units| units.are_idle(now))
                && seen.slots == 0
                && seen.requests.sum(now) == 0
                && seen.tokens.sum(now) == 0;
            Arc::strong_count(used) > 1 || !is_idle
        });
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::time::advance;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        /// Of which caller, and how many tokens and pictures it may use.
        Enter(usize, u64, Option<u64>),
        /// Of which request.
        Spend(usize),
        /// Of which request, and how many tokens and pictures it used.
        Uses(usize, u64, u64),
        /// Of which request.
        Drop(usize),
        /// After how many milliseconds.
        Later(u64),
        /// To which limits of everybody.
        Reload(u64, u64, u64, u64),
        /// All that is open ends, and what was taken is read back from what was sent.
        Restart,
    }

    #[tokio::test(start_paused = true)]
    async fn tokens_that_were_used_count_though_more_are_refused() {
        let (gates, now) = (Gates::default(), Instant::now());
        let limits = Limits {
            tpm: Some(100),
            ..Limits::default()
        };
        let gate = [gates.gate(Whose::Key, "ann", limits)];
        let charge = || enter(&gate, now).unwrap().1;
        let mut first = charge();
        first.take(10, None, now).unwrap();
        first.spend();
        first.uses(60, 0);
        // Another takes all that is left meanwhile.
        let mut other = charge();
        other.take(90, None, now).unwrap();
        other.spend();
        other.uses(90, 0);
        other.settle(now);
        // Asked for another model, for which there is nothing left.
        let mut next = first.hand_over();
        assert!(next.take(50, None, now).is_err());
        next.settle(now);
        let left = gate[0].left(now).iter().map(|left| left.left).sum::<u64>();
        assert_eq!(left, 0, "150 of 100");
        advance(MINUTE / 2).await;
        let sum = gate[0].used().tokens.sum(Instant::now());
        assert_eq!(sum, 150);
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            8 => (0..3_usize, 0..40_u64, proptest::option::of(0..6_u64)).prop_map(|(who, tokens, images)| Step::Enter(who, tokens, images)),
            5 => (0..6_usize).prop_map(Step::Spend),
            4 => (0..6_usize, 0..60_u64, 0..6_u64).prop_map(|(which, tokens, images)| Step::Uses(which, tokens, images)),
            6 => (0..6_usize).prop_map(Step::Drop),
            5 => (0..20_000_u64).prop_map(Step::Later),
            1 => (1..9_u64, 20..90_u64, 1..6_u64, 1..9_u64).prop_map(|(a, b, c, d)| Step::Reload(a, b, c, d)),
            1 => Just(Step::Restart),
        ];
        proptest::collection::vec(step, 1..120)
    }

    /// A request that was let in.
    struct Open {
        who: usize,
        _slots: Slots,
        charge: Charge,
        at: Instant,
        /// Tokens and pictures, as many as it may use.
        wanted: [u64; 2],
        used: [u64; 2],
        /// It takes pictures.
        has_own: bool,
        is_spent: bool,
    }

    /// What counts of one owner: when, how many requests, tokens and pictures.
    type Counted = Vec<(Instant, [u64; 3])>;

    #[derive(Default)]
    struct World {
        gates: Gates,
        limits: Limits,
        open: Vec<Open>,
        /// What has ended, by caller.
        counted: [Counted; 3],
        /// Requests that were sent: of whom, when, and how many tokens and pictures they used.
        sent: Vec<(usize, Instant, [u64; 2])>,
    }

    impl World {
        /// Everybody has limits of their own, and the first two share others, which are as high.
        fn of(&self, who: usize) -> Vec<Arc<Gate>> {
            let own = self.gates.gate(Whose::Key, &who.to_string(), self.limits);
            let team = self.gates.gate(Whose::Team, "team", self.limits);
            [own].into_iter().chain((who < 2).then_some(team)).collect()
        }

        /// What counts now of these callers: requests, tokens, pictures, slots.
        fn sum(&self, whose: &[usize], now: Instant) -> [u64; 4] {
            let mine = self.open.iter().filter(|open| whose.contains(&open.who));
            let slots = mine.clone().count() as u64;
            let open = mine.map(|open| (open.at, [1, open.wanted[0], open.wanted[1]]));
            let ended = whose.iter().flat_map(|who| &self.counted[*who]).copied();
            let all = open.chain(ended).filter(|(at, _)| *at + MINUTE > now);
            let sum = all.fold([0; 3], |sum, (_, adds)| {
                std::array::from_fn(|n| sum[n] + adds[n])
            });
            [sum[0], sum[1], sum[2], slots]
        }

        fn enter(&mut self, who: usize, (tokens, images): (u64, Option<u64>), now: Instant) {
            let concurrency = self.limits.concurrency.map(Concurrency::first);
            let most = self.limits.unit(Unit::Images);
            let limits = [self.limits.rpm, self.limits.tpm, most, concurrency].map(Option::unwrap);
            let shared = if who < 2 { &[0, 1][..] } else { &[2] };
            let wanted = [tokens.min(limits[1]), images.unwrap_or(0).min(limits[2])];
            let fits = [&[who][..], shared].into_iter().all(|whose| {
                let sums = self.sum(whose, now);
                let adds = [1, wanted[0], wanted[1], 1];
                // Who takes no pictures is not held up by a debt of them.
                (0..4).all(|n| (n == 2 && images.is_none()) || sums[n] + adds[n] <= limits[n])
            });
            let own = images.map(|images| (Unit::Images, images));
            let entered = enter(&self.of(who), now).and_then(|(slots, mut charge)| {
                charge.take(tokens, own, now)?;
                Ok((slots, charge))
            });
            match entered {
                Ok((slots, charge)) => {
                    assert!(fits);
                    self.open.push(Open {
                        who,
                        _slots: slots,
                        charge,
                        at: now,
                        wanted,
                        used: [0; 2],
                        has_own: own.is_some(),
                        is_spent: false,
                    });
                }
                Err(limited) => assert!(!fits, "{limited}"),
            }
        }

        fn end(&mut self, which: usize, now: Instant) {
            let open = self.open.swap_remove(which);
            let mine = &mut self.counted[open.who];
            let used = if open.is_spent { open.used } else { [0; 2] };
            if open.is_spent {
                self.sent.push((open.who, open.at, used));
            }
            let [tokens, images] = [0, 1].map(|n| {
                (
                    used[n].min(open.wanted[n]),
                    used[n].saturating_sub(open.wanted[n]),
                )
            });
            mine.push((open.at, [open.is_spent.into(), tokens.0, images.0]));
            mine.push((now, [0, tokens.1, images.1]));
        }

        fn restart(&mut self, now: Instant) {
            while !self.open.is_empty() {
                self.end(0, now);
            }
            self.gates = Gates::default();
            self.counted = Default::default();
            self.sent.sort_by_key(|(_, at, _)| *at);
            for who in 0..3 {
                self.of(who);
            }
            for (who, at, [tokens, images]) in self.sent.clone() {
                self.counted[who].push((at, [1, tokens, images]));
                let used = Usage {
                    output: tokens,
                    ..Usage::default()
                };
                let used = used.with(Unit::Images, images);
                self.gates
                    .remember((Whose::Key, &who.to_string()), 1, &used, at);
                if who < 2 {
                    self.gates.remember((Whose::Team, "team"), 1, &used, at);
                }
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        #[test]
        fn no_minute_has_more_than_may_be_and_what_fits_is_let_in(steps in steps()) {
            let runtime = tokio::runtime::Builder::new_current_thread();
            let runtime = { runtime }.enable_time().start_paused(true).build().unwrap();
            runtime.block_on(async {
                let limits = |[rpm, tpm, images, concurrency]: [u64; 4]| Limits {
                    rpm: Some(rpm),
                    tpm: Some(tpm),
                    per_minute: [None, None, Some(images), None],
                    concurrency: Some(Concurrency::Fixed(concurrency)),
                    line: None,
                };
                let mut world = World { limits: limits([4, 60, 8, 3]), ..World::default() };
                for step in steps {
                    let now = Instant::now();
                    match step {
                        Step::Enter(who, tokens, images) => world.enter(who, (tokens, images), now),
                        Step::Spend(which) => {
                            if let Some(open) = world.open.get_mut(which) {
                                open.charge.spend();
                                open.is_spent = true;
                            }
                        }
                        Step::Uses(which, tokens, images) => {
                            if let Some(open) = world.open.get_mut(which).filter(|open| open.is_spent) {
                                let images = if open.has_own { images } else { 0 };
                                open.charge.uses(tokens, images);
                                open.used[0] += tokens;
                                open.used[1] += images;
                            }
                        }
                        Step::Drop(which) if which < world.open.len() => world.end(which, now),
                        Step::Drop(_) => {}
                        Step::Restart => world.restart(now),
                        Step::Later(millis) => advance(Duration::from_millis(millis)).await,
                        Step::Reload(rpm, tpm, concurrency, images) => {
                            world.limits = limits([rpm, tpm, images, concurrency]);
                            world.gates.prune(now);
                        }
                    }
                }
                world.open.clear();
                for who in 0..3 {
                    for gate in world.of(who) {
                        assert_eq!(gate.used().slots, 0, "permits held are open answers");
                    }
                }
            });
        }
    }
}
