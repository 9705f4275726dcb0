//! What has a request taken of limits that count? As much as it may come to, of all of them or of none; what it did not use
//! goes back, and what it used beyond is owed.

use std::sync::Arc;

use smallvec::SmallVec;
use tokio::time::Instant;

use super::limits::{Gate, Used};
use super::told::{Left, Limited, What, Whose};
use super::units::Own;
use super::window::Window;
use crate::usage::Unit;

/// What a request has taken of limits that count: whoever has one was let in by [`enter`](super::limits::enter). Dropped
/// before it is [spent](Self::spend) it gives all of that back, and afterwards what was not used; what was used beyond is owed.
#[derive(Debug)]
pub struct Charge {
    /// Of one gate as a rule: a key's, or a target's. Each stream holds two of these.
    taken: SmallVec<[Taken; 1]>,
    /// What it takes that is no token. Most take none, or of no limit.
    own: Option<Box<Own>>,
    used: u64,
    is_spent: bool,
}

#[derive(Debug)]
struct Taken {
    gate: Arc<Gate>,
    /// When the request was counted.
    request: Option<Instant>,
    /// When how many tokens were.
    tokens: Option<(Instant, u64)>,
}

impl Charge {
    pub(super) fn of_nothing() -> Self {
        Self {
            taken: SmallVec::new(),
            own: None,
            used: 0,
            is_spent: false,
        }
    }

    /// It was let in at a gate, and counted there as a request then.
    pub(super) fn passes(&mut self, gate: Arc<Gate>, request: Option<Instant>) {
        self.taken.push(Taken {
            gate,
            request,
            tokens: None,
        });
    }

    /// Counts what a request will probably use, tokens and what it takes of a unit of its own, at all gates or at none. Of a
    /// limit that is lower it takes all that there is. What it has counted before does not count any more: whoever asks for
    /// another model asks once. Tells what is left of the caller's own limits.
    pub fn take(
        &mut self,
        tokens: u64,
        own: Option<(Unit, u64)>,
        now: Instant,
    ) -> Result<Vec<Left>, Limited> {
        let Self {
            taken, own: kept, ..
        } = self;
        let mut left = Vec::new();
        if taken.is_empty() {
            return Ok(left);
        }
        let own =
            own.filter(|(unit, _)| taken.iter().any(|it| it.gate.limits.unit(*unit).is_some()));
        let mut own = own.map(|(unit, count)| {
            let own = kept.get_or_insert_with(|| Box::new(Own::of(unit, taken.len())));
            (own.unit, count, own.taken.iter_mut())
        });
        // Always in the order in which a caller has them, so that nobody waits in a circle.
        let all = taken.iter_mut();
        let mut all: SmallVec<[_; 2]> = all
            .map(|it| (&*it.gate, it.gate.used(), &mut it.tokens))
            .collect();
        let mut parts: SmallVec<[Part<'_>; 4]> = SmallVec::new();
        for (gate, used, had) in &mut all {
            let Used {
                tokens: window,
                units,
                ..
            } = &mut **used;
            let mut wants = |what, limit: u64, count: u64, window, had| {
                parts.push(Part {
                    gate,
                    what,
                    limit,
                    amount: count.min(limit),
                    window,
                    had,
                });
            };
            if let Some(limit) = gate.limits.tpm {
                wants(What::Tpm, limit, tokens, window, had);
            }
            if let Some((unit, count, all)) = &mut own
                && let (Some(had), Some(units)) = (all.next(), units)
                && let Some(limit) = gate.limits.unit(*unit)
            {
                wants(What::Unit(*unit), limit, *count, units.of(*unit), had);
            }
        }
        take_all(&mut parts, now)?;
        drop(parts);
        for (gate, used, _) in &mut all {
            if gate.whose() == Whose::Key {
                left = gate.lefts(used, now);
            }
        }
        Ok(left)
    }

    /// Hands over all that was taken; of this there is nothing left.
    #[must_use]
    pub fn hand_over(&mut self) -> Self {
        Self {
            taken: std::mem::take(&mut self.taken),
            own: self.own.take(),
            ..*self
        }
    }

    /// The request is sent: it counts, whatever becomes of it.
    pub fn spend(&mut self) {
        self.is_spent = true;
    }

    /// So many tokens were used, and so many of the unit of its own.
    pub fn uses(&mut self, tokens: u64, own: u64) {
        self.used = self.used.saturating_add(tokens);
        if let Some(it) = &mut self.own {
            it.used = it.used.saturating_add(own);
        }
    }

    /// Nothing more will be used: what was not is given back.
    pub fn settle(&mut self, now: Instant) {
        let own = self.own.take();
        for (n, taken) in self.taken.drain(..).enumerate() {
            let Taken {
                gate,
                request,
                tokens,
            } = taken;
            let back = request.filter(|_| !self.is_spent);
            let tokens = tokens.filter(|(_, amount)| *amount != self.used);
            let own = own.as_ref().and_then(|own| Some((own, own.wrong(n)?)));
            if back.is_none() && tokens.is_none() && own.is_none() {
                continue;
            }
            let mut used = gate.used();
            if let Some(at) = back {
                used.requests.pay_back(at, 1, now);
            }
            if let Some(taken) = tokens {
                used.tokens.settle(taken, self.used, now);
            }
            if let (Some((own, taken)), Some(units)) = (own, &mut used.units) {
                units.of(own.unit).settle(taken, own.used, now);
            }
        }
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        if !self.taken.is_empty() {
            self.settle(Instant::now());
        }
    }
}

/// What is wanted of one limit.
struct Part<'c> {
    gate: &'c Gate,
    what: What,
    limit: u64,
    amount: u64,
    window: &'c mut Window,
    /// What was counted before.
    had: &'c mut Option<(Instant, u64)>,
}

/// Counts what is wanted of all limits, or of none.
fn take_all(parts: &mut [Part<'_>], now: Instant) -> Result<(), Limited> {
    for part in &mut *parts {
        if let Some((at, amount)) = *part.had {
            part.window.pay_back(at, amount, now);
        }
    }
    let refused = parts.iter_mut().filter_map(|part| {
        let wait = part.window.wait(now, part.amount, part.limit)?;
        Some(part.gate.limited(part.what, part.limit, wait))
    });
    if let Some(limited) = refused.max_by_key(|limited| limited.wait) {
        // What was used of it before is still to be settled.
        for part in parts {
            if let Some((at, amount)) = part.had {
                *at = part.window.take(now, *amount);
            }
        }
        return Err(limited);
    }
    for part in parts {
        *part.had = Some((part.window.take(now, part.amount), part.amount));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::limits::{Gates, Limits, MINUTE, enter};
    use super::*;
    use std::time::Duration;

    fn images(limit: u64) -> Limits {
        Limits {
            per_minute: [None, None, Some(limit), None],
            ..Limits::default()
        }
    }

    fn pictures(count: u64) -> (Unit, u64) {
        (Unit::Images, count)
    }

    /// What is left of each limit, in the order in which they are told.
    fn left(gate: &Gate, now: Instant) -> Vec<u64> {
        gate.left(now).iter().map(|left| left.left).collect()
    }

    #[test]
    fn units_are_taken_of_all_limits_or_of_none() {
        let (gates, now) = (Gates::default(), Instant::now());
        let own = Limits {
            tpm: Some(100),
            ..images(8)
        };
        let both = [
            gates.gate(Whose::Key, "ann", own),
            gates.gate(Whose::Team, "t", images(3)),
        ];
        let mut first = enter(&both, now).unwrap().1;
        first.take(10, Some(pictures(2)), now).unwrap();
        let mut second = enter(&both, now).unwrap().1;
        let limited = second.take(10, Some(pictures(2)), now).unwrap_err();
        assert_eq!(
            limited.to_string(),
            "team t is at its limit of 3 images a minute (per_minute.images); there is room in 1m0s"
        );
        assert_eq!(
            (left(&both[0], now), left(&both[1], now)),
            (vec![90, 6], vec![1])
        );
        // Refused for its tokens: no picture. And other units have no limit.
        assert!(second.take(91, Some(pictures(1)), now).is_err());
        second.take(10, Some((Unit::Seconds, 900)), now).unwrap();
        assert_eq!(
            (left(&both[0], now), left(&both[1], now)),
            (vec![80, 6], vec![1])
        );
        drop((first, second));
        assert_eq!(
            (left(&both[0], now), left(&both[1], now)),
            (vec![100, 8], vec![3])
        );
    }

    #[test]
    fn units_that_are_not_used_go_back_and_what_is_used_beyond_is_owed() {
        let (gates, now) = (Gates::default(), Instant::now());
        let gate = [gates.gate(Whose::Key, "ann", images(10))];
        let mut charge = enter(&gate, now).unwrap().1;
        // Of a limit that is lower it takes all there is.
        charge.take(0, Some(pictures(50)), now).unwrap();
        assert_eq!(left(&gate[0], now), [0]);
        charge.spend();
        charge.uses(0, 4);
        charge.settle(now);
        assert_eq!(left(&gate[0], now), [6]);
        let mut charge = enter(&gate, now).unwrap().1;
        charge.take(0, Some(pictures(1)), now).unwrap();
        charge.spend();
        charge.uses(0, 30);
        let later = now + Duration::from_secs(20);
        charge.settle(later);
        let mut next = enter(&gate, later).unwrap().1;
        let limited = next.take(0, Some(pictures(1)), later).unwrap_err();
        assert_eq!(limited.wait, MINUTE, "29 are owed");
        next.take(5, None, later).unwrap();
    }

    #[test]
    fn units_go_over_to_whoever_asks_another_model() {
        let (gates, now) = (Gates::default(), Instant::now());
        let gate = [gates.gate(Whose::Key, "ann", images(10))];
        let mut first = enter(&gate, now).unwrap().1;
        first.take(0, Some(pictures(4)), now).unwrap();
        first.spend();
        first.uses(0, 3);
        let mut next = first.hand_over();
        drop(first);
        assert_eq!(left(&gate[0], now), [6]);
        next.take(0, Some(pictures(4)), now).unwrap();
        assert_eq!(left(&gate[0], now), [6], "one request asks once");
        next.uses(0, 4);
        next.settle(now);
        assert_eq!(left(&gate[0], now), [3], "both tries count");
    }

    #[test]
    fn a_limit_that_comes_and_goes_does_not_refill() {
        let (gates, now) = (Gates::default(), Instant::now());
        let gate = [gates.gate(Whose::Key, "ann", images(10))];
        let mut charge = enter(&gate, now).unwrap().1;
        charge.take(0, Some(pictures(4)), now).unwrap();
        charge.spend();
        charge.uses(0, 4);
        charge.settle(now);
        drop(gate);
        gates.prune(now);
        let rpm = Limits {
            rpm: Some(1),
            ..Limits::default()
        };
        gates.gate(Whose::Key, "ann", rpm);
        let gate = gates.gate(Whose::Key, "ann", images(5));
        assert_eq!(left(&gate, now), [1]);
    }

    /// One lies in the memory of every request.
    #[test]
    fn a_charge_is_short_and_units_lie_beside_it() {
        assert!(size_of::<Taken>() <= 48);
        assert!(
            size_of::<Charge>() <= 8 + 2 * 48 + 3 * 8,
            "{}",
            size_of::<Charge>()
        );
    }
}
