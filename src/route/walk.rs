//! Who is asked next? A walk over a model's targets, tier by tier, in the order of its strategy, past those that rest.
//!
//! It looks at as few of them as it can: most requests are answered by the first, and a model may have a thousand.

use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;
use tokio::time::Instant;

use super::health::Health;
use super::pace::{load, wait};
use super::strategy::{Asks, Basis};
use super::targets::Tier;
use super::{Pace, Route, StickyBy, Strategy, Target, Targets};
use crate::usage::Money;

/// Of a tier of up to so many targets all are looked at, of a larger one as many as chance names. That many are taken by
/// strategy, too; whoever has been turned down so often takes the others as they come.
const SCANNED: usize = 16;

/// Of a large tier two are compared, which does almost as much as to look at all; and whoever seems loaded with so many.
const DRAWN: usize = 4;

/// Whoever has no more requests under way than this is not loaded.
const LOADED: u32 = 8;

/// A walk over the targets of one route, for one request.
#[derive(Clone, Debug)]
pub struct Walk<'r> {
    route: &'r Route,
    basis: Basis,
    dice: u64,
    /// Which tier.
    tier: usize,
    /// How many of it were taken by strategy, and up to where it was gone through as it is.
    taken: usize,
    gone: usize,
    /// Those that were given, of this tier.
    given: SmallVec<[usize; 4]>,
    is_fresh: bool,
}

impl Route {
    /// The way of a request.
    pub fn walk(&self, asks: &Asks<'_>) -> Walk<'_> {
        self.walk_by(self.basis(asks), asks.seed)
    }

    /// The way of a request that was decided before, by what was noted of it then.
    pub fn walk_again(
        &self,
        mark: impl Fn(&StickyBy) -> Option<u64>,
        cost: impl Fn(&Target) -> Option<Money>,
        seed: u64,
    ) -> Walk<'_> {
        self.walk_by(self.basis_of(mark, cost, seed), seed)
    }

    fn walk_by(&self, basis: Basis, seed: u64) -> Walk<'_> {
        Walk {
            route: self,
            basis,
            dice: seed,
            tier: 0,
            taken: 0,
            gone: 0,
            given: SmallVec::new(),
            is_fresh: true,
        }
    }
}

impl<'r> Walk<'r> {
    /// The next target that does not rest. None: there are no more.
    pub fn next(&mut self, now: Instant) -> Option<&'r Arc<Target>> {
        let targets = &self.route.targets;
        self.next_of(&Live { targets, now })
    }

    /// The same, by what is seen of targets.
    pub fn next_of(&mut self, view: &(impl View + ?Sized)) -> Option<&'r Arc<Target>> {
        let targets = &self.route.targets;
        while let Some(tier) = targets.tiers().get(self.tier) {
            if let Some(n) = self.pick(tier, view) {
                self.is_fresh = false;
                self.given.push(n);
                return targets.get(n);
            }
            self.tier += 1;
            (self.taken, self.gone) = (0, 0);
            self.given.clear();
        }
        None
    }

    /// Whether it has given none.
    pub fn is_fresh(&self) -> bool {
        self.is_fresh
    }

    /// From its beginning, as if none had been given.
    pub fn begins_anew(&mut self) {
        (self.tier, self.taken, self.gone) = (0, 0, 0);
        self.given.clear();
        self.is_fresh = true;
    }

    /// Nobody else is asked.
    pub fn ends(&mut self) {
        self.is_fresh = false;
        self.tier = usize::MAX;
    }

    /// Whether there is another target that does not rest.
    pub fn has_more(&self, now: Instant) -> bool {
        let targets = &self.route.targets;
        let tiers = targets.tiers().iter().skip(self.tier);
        let mut rest = tiers.flat_map(|tier| tier.all.clone());
        let view = Live { targets, now };
        rest.any(|n| self.is_open(n, &view))
    }

    fn pick(&mut self, tier: &Tier, view: &(impl View + ?Sized)) -> Option<usize> {
        if matches!(self.route.strategy, Strategy::Order) || self.taken >= SCANNED {
            return self.as_it_comes(tier, view);
        }
        self.taken += 1;
        let picked = match (&self.route.strategy, &self.basis) {
            (Strategy::Weight, _) => self.by_weight(tier, view),
            (Strategy::Latency, _) => self.by_latency(tier, view),
            (Strategy::LeastBusy, _) => self.by_load(tier, view),
            (Strategy::Cost, Basis::Costs(costs)) => self.by_cost(tier, costs, view),
            (Strategy::Sticky(_), Basis::Mark(mark)) => self.by_mark(tier, *mark, view),
            _ => None,
        };
        picked.or_else(|| self.as_it_comes(tier, view))
    }

    /// Whether a target can be given: it was not before, and does not rest.
    fn is_open(&self, n: usize, view: &(impl View + ?Sized)) -> bool {
        !self.given.contains(&n) && view.is_open(n)
    }

    fn as_it_comes(&mut self, tier: &Tier, view: &(impl View + ?Sized)) -> Option<usize> {
        let (before, rest) = (tier.all.clone(), tier.all.clone().skip(self.gone));
        // Of those before it some may have rested long enough meanwhile.
        let mut all = rest.chain(before.take(self.gone));
        let next = all.find(|n| self.is_open(*n, view))?;
        self.gone = self.gone.max(next + 1 - tier.all.start);
        Some(next)
    }

    /// Another random number.
    fn draw(&mut self) -> u64 {
        self.dice = self.dice.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mixed(self.dice)
    }

    /// Any number below another.
    fn below(&mut self, most: u64) -> u64 {
        let scaled = (u128::from(self.draw()) * u128::from(most)) >> 64;
        u64::try_from(scaled).unwrap_or(0)
    }

    /// Any target of a tier, each as often as any other.
    fn any(&mut self, tier: &Tier) -> usize {
        let n = self.below(tier.all.len() as u64);
        tier.all.start + usize::try_from(n).unwrap_or(0)
    }

    /// Those that are compared: all that are open, or some by chance, each once.
    fn open(
        &mut self,
        tier: &Tier,
        most: usize,
        view: &(impl View + ?Sized),
    ) -> SmallVec<[usize; SCANNED]> {
        if tier.all.len() <= SCANNED {
            let all = tier.all.clone();
            return all.filter(|n| self.is_open(*n, view)).collect();
        }
        let mut some = SmallVec::new();
        for _ in 0..2 * DRAWN {
            let n = self.any(tier);
            if !some.contains(&n) && self.is_open(n, view) {
                some.push(n);
            }
            if some.len() == most {
                return some;
            }
        }
        // Few of them are open: the next ones from anywhere, so that those do not all fall to the first.
        let (start, rest) = (self.any(tier), tier.all.clone());
        for n in (start..tier.all.end).chain(rest.take(start - tier.all.start)) {
            if some.len() == most {
                break;
            }
            if !some.contains(&n) && self.is_open(n, view) {
                some.push(n);
            }
        }
        some
    }

    fn by_weight(&mut self, tier: &Tier, view: &(impl View + ?Sized)) -> Option<usize> {
        if tier.all.len() > SCANNED
            && let Some(n) = self.by_weight_of_many(tier, view)
        {
            return Some(n);
        }
        // In thousandths, for whoever works again gets but a part of its share.
        let share = |n: usize| {
            let weight = self.route.targets.get(n).map_or(0, |target| target.weight);
            u64::from(weight) * thousandths(view.warmth(n))
        };
        let open = tier.all.clone().filter(|n| self.is_open(*n, view));
        let open: SmallVec<[(usize, u64); SCANNED]> = open.map(|n| (n, share(n))).collect();
        let all: u64 = open.iter().map(|(_, share)| share).sum();
        if all == 0 {
            return None;
        }
        let mut point = self.below(all);
        let hit = open.iter().find(|(_, share)| {
            let is_hit = point < *share;
            point = point.saturating_sub(*share);
            is_hit
        });
        hit.map(|(n, _)| *n)
    }

    /// None: of those that chance named none is open, or has its share yet.
    fn by_weight_of_many(&mut self, tier: &Tier, view: &(impl View + ?Sized)) -> Option<usize> {
        let all = tier.weights.last().copied().filter(|all| *all > 0)?;
        for _ in 0..2 * DRAWN {
            let point = self.below(all);
            let n = tier.weights.partition_point(|sum| *sum <= point) + tier.all.start;
            let warmth = view.warmth(n);
            let is_taken = warmth >= 1.0 || self.below(1_000) < thousandths(warmth);
            if is_taken && self.is_open(n, view) {
                return Some(n);
            }
        }
        None
    }

    /// Of two the one that would answer sooner, for all that is known: to take the best of all would send everybody there at
    /// once.
    fn by_latency(&mut self, tier: &Tier, view: &(impl View + ?Sized)) -> Option<usize> {
        let open = self.open(tier, 2, view);
        let first = self.below(open.len() as u64);
        let mut second = self.below((open.len() as u64).checked_sub(1)?);
        second += u64::from(second >= first);
        let at = |n: u64| open.get(usize::try_from(n).unwrap_or(0)).copied();
        let wait = |n: Option<usize>| n.map(|n| view.wait(n));
        match open.len() {
            1 => at(0),
            _ if wait(at(second)) < wait(at(first)) => at(second),
            _ => at(first),
        }
    }

    fn by_load(&mut self, tier: &Tier, view: &(impl View + ?Sized)) -> Option<usize> {
        let open = self.open(tier, 2, view);
        // Of those with as little to do any.
        let start = usize::try_from(self.below(open.len() as u64)).unwrap_or(0);
        let turned = open.iter().cycle().skip(start).take(open.len());
        let load = |n: &usize| load(view.busy(*n), view.warmth(*n));
        turned
            .min_by(|one, other| load(one).total_cmp(&load(other)))
            .copied()
    }

    /// Of those as cheap the first; whose price is not known comes last.
    fn by_cost(
        &self,
        tier: &Tier,
        costs: &[Option<Money>],
        view: &(impl View + ?Sized),
    ) -> Option<usize> {
        let cost = |kind: usize| costs.get(kind).copied().flatten();
        let mut kinds: SmallVec<[_; SCANNED]> = tier.kinds.iter().collect();
        kinds.sort_by_key(|(kind, members)| {
            let cost = cost(*kind);
            (cost.is_none(), cost, members.first().copied())
        });
        // Those that cost the same stay together, in the order in which they are written.
        let mut found: Option<(Option<Money>, usize)> = None;
        for (kind, members) in kinds {
            let cost = cost(*kind);
            if found.is_some_and(|(known, _)| known != cost) {
                break;
            }
            let first = members.iter().copied().find(|n| self.is_open(*n, view));
            if let Some(n) = first
                && found.is_none_or(|(_, known)| n < known)
            {
                found = Some((cost, n));
            }
        }
        found.map(|(_, n)| n)
    }

    /// By rendezvous: each target draws a number for what the request belongs to, and the highest has it. Who has far more to
    /// do than the others is passed over for the next, and so is for most who has just begun to work again.
    fn by_mark(&mut self, tier: &Tier, mark: u64, view: &(impl View + ?Sized)) -> Option<usize> {
        let mut passed: SmallVec<[usize; 4]> = SmallVec::new();
        let mut first = None;
        loop {
            // Most requests go to the first that is looked at.
            let highest = match passed.is_empty() && self.given.is_empty() {
                true => first_of(tier, mark),
                false => {
                    let is_left = |n: usize| !passed.contains(&n) && !self.given.contains(&n);
                    drawn(tier, mark).filter(|(_, n)| is_left(*n)).max()
                }
            };
            let Some((number, n)) = highest else {
                return first;
            };
            if self.is_open(n, view) {
                first = first.or(Some(n));
                if is_warm(view, n, number) && !self.is_loaded(tier, n, view) {
                    return Some(n);
                }
            }
            passed.push(n);
            if passed.len() > SCANNED {
                return first.or_else(|| self.highest(tier, mark, view));
            }
        }
    }

    /// Of all that are open the one with the highest number.
    #[cold]
    fn highest(&self, tier: &Tier, mark: u64, view: &(impl View + ?Sized)) -> Option<usize> {
        let open = drawn(tier, mark).filter(|(_, n)| self.is_open(*n, view));
        open.max().map(|(_, n)| n)
    }

    /// Whether it has more than twice as much to do as the others, on average.
    fn is_loaded(&mut self, tier: &Tier, n: usize, view: &(impl View + ?Sized)) -> bool {
        let own = view.busy(n);
        if own <= LOADED {
            return false;
        }
        let others = self.open(tier, DRAWN, view);
        let others = others.iter().filter(|other| **other != n);
        let (sum, count) = others.fold((0_u64, 0_u64), |(sum, count), other| {
            (sum + u64::from(view.busy(*other)), count + 1)
        });
        count > 0 && u64::from(own) * count > 2 * sum.max(1)
    }
}

/// Whether it works again for long enough for whatever drew this number: each comes back once, at a time of its own.
fn is_warm(view: &(impl View + ?Sized), n: usize, number: u64) -> bool {
    let warmth = view.warmth(n);
    warmth >= 1.0 || mixed(number) % 1_000 < thousandths(warmth)
}

/// The highest of all these numbers, and where it stands.
fn first_of(tier: &Tier, mark: u64) -> Option<(u64, usize)> {
    let (mut highest, mut place) = (0, None);
    for (at, own) in tier.marks.iter().enumerate() {
        let number = mixed(mark ^ own);
        if number >= highest {
            (highest, place) = (number, Some(at));
        }
    }
    place.map(|at| (highest, tier.all.start + at))
}

/// What a walk goes by of the targets of its route, by their numbers.
pub trait View {
    /// Whether it does not rest.
    fn is_open(&self, n: usize) -> bool;
    /// Requests under way.
    fn busy(&self, n: usize) -> u32;
    /// What part of its share it gets.
    fn warmth(&self, n: usize) -> f64;
    /// How long one more request would take, for all that is known.
    fn wait(&self, n: usize) -> f64;
}

/// As they are.
struct Live<'r> {
    targets: &'r Targets,
    now: Instant,
}

impl Live<'_> {
    fn pace(&self, n: usize) -> Option<&Pace> {
        self.targets.health(n).map(Health::pace)
    }
}

impl View for Live<'_> {
    fn is_open(&self, n: usize) -> bool {
        let health = self.targets.health(n);
        health.is_some_and(|health| health.look(self.now).is_ok())
    }

    fn busy(&self, n: usize) -> u32 {
        self.pace(n).map_or(0, Pace::busy)
    }

    fn warmth(&self, n: usize) -> f64 {
        self.pace(n).map_or(1.0, |pace| pace.warmth(self.now))
    }

    fn wait(&self, n: usize) -> f64 {
        self.pace(n).map_or(0.0, |pace| pace.wait(self.now))
    }
}

/// As one of them was.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// It did not rest.
    pub is_open: bool,
    /// Requests under way.
    pub busy: u32,
    /// What part of its share it got, in thousandths.
    pub warmth: u32,
    /// The mean time to its first content, in microseconds, if anybody had seen one of late.
    pub latency_us: Option<u64>,
}

impl Seen {
    /// What is known of a target now.
    pub fn of(target: &Target, now: Instant) -> Self {
        let pace = target.health.pace();
        Self {
            is_open: target.health.look(now).is_ok(),
            busy: pace.busy(),
            warmth: u32::try_from(thousandths(pace.warmth(now))).unwrap_or(1_000),
            latency_us: pace.latency(now).map(micros),
        }
    }
}

/// In whole microseconds, as it is logged: or else it would be decided otherwise when it is read back.
fn micros(latency: Duration) -> u64 {
    u64::try_from(latency.as_micros()).unwrap_or(u64::MAX)
}

impl View for [Seen] {
    fn is_open(&self, n: usize) -> bool {
        self.get(n).is_some_and(|seen| seen.is_open)
    }

    fn busy(&self, n: usize) -> u32 {
        self.get(n).map_or(0, |seen| seen.busy)
    }

    fn warmth(&self, n: usize) -> f64 {
        self.get(n).map_or(1.0, |seen| f64::from(seen.warmth) / 1e3)
    }

    fn wait(&self, n: usize) -> f64 {
        let seen = self.get(n);
        seen.map_or(0.0, |seen| {
            let latency = seen.latency_us.map(Duration::from_micros);
            wait(latency, seen.busy, self.warmth(n))
        })
    }
}

/// The numbers that the targets of a tier draw for what a request belongs to, and where they stand.
fn drawn(tier: &Tier, mark: u64) -> impl Iterator<Item = (u64, usize)> {
    let marks = tier.marks.iter().zip(tier.all.clone());
    marks.map(move |(own, n)| (mixed(mark ^ own), n))
}

fn thousandths(part: f64) -> u64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a part is between 0 and 1"
    )]
    let thousandths = (part.clamp(0.0, 1.0) * 1_000.0) as u64;
    thousandths
}

/// Stirs a number, so that of two that hardly differ nothing alike is left: the last step of splitmix64.
fn mixed(n: u64) -> u64 {
    let n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ (n >> 31)
}
