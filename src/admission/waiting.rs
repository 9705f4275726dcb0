//! How does one wait for a slot? In the line of its gate, for as long as it may, and by no means longer than it must.
//!
//! Whoever would wait for too long is turned away at once, and told how long it is. So is whoever is last in the fair
//! order of a line that is full: that is not always who comes last. Dropped, one leaves the line, and what was handed to it
//! meanwhile goes to the next.

use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use smol_str::SmolStr;
use tokio::time::{Instant, Sleep, sleep_until};

use super::capacity::{Concurrency, Feeling};
use super::limits::{Gate, Limited, Slots, Used, What};
use super::turns::Wake;

/// One that waits for a slot.
#[derive(Debug)]
#[must_use = "whoever does not await its turn leaves the line"]
pub struct Waiting {
    gate: Arc<Gate>,
    caller: SmolStr,
    weight: u32,
    until: Instant,
    place: Place,
    /// Tells when its time is up. None: it has not been polled yet.
    alarm: Option<Pin<Box<Sleep>>>,
}

#[derive(Debug)]
enum Place {
    /// It need not wait.
    Given(Slots),
    /// In the line, or called from it, with this ticket.
    InLine(u64),
    /// It waits no more.
    Left,
}

/// What is to be seen of a gate's slots and the line in front of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Crowd {
    /// How many requests have a slot.
    pub held: u64,
    /// How many may. None: as many as come.
    pub limit: Option<u64>,
    /// How many wait.
    pub waiting: usize,
    /// How long the next of somebody new would wait. None: nobody knows.
    pub wait: Option<Duration>,
}

impl Gate {
    /// Waits for a slot, by a deadline and no longer than the gate's line allows. Without a wait if there is one. Refuses at
    /// once whoever would wait for longer, or would stand last in a line that is full, and tells how long it would be.
    pub fn queue(
        self: &Arc<Self>,
        caller: &SmolStr,
        weight: u32,
        now: Instant,
        deadline: Instant,
    ) -> Result<Waiting, Limited> {
        let mut guard = self.used();
        let used = &mut *guard;
        self.begin(used);
        let waiting = |place, until| Waiting {
            gate: Arc::clone(self),
            caller: caller.clone(),
            weight,
            until,
            place,
            alarm: None,
        };
        let limit = match self.free(used, now) {
            Ok(slots) => return Ok(waiting(Place::Given(slots), now)),
            Err(limit) => limit,
        };
        let until = self.until(used, (caller, weight), limit, (now, deadline))?;
        let (Some(line), Some(turns)) = (self.limits.line, &mut used.turns) else {
            return Err(self.busy(limit, None));
        };
        let mut wake = Wake::default();
        if turns.queue.len() >= line.most
            && let Some(last) = turns.queue.make_room(caller, weight)
        {
            wake.add(last.waker);
        }
        let ticket = turns.queue.arrive(caller, weight, until);
        drop(guard);
        wake.wake();
        Ok(waiting(Place::InLine(ticket), until))
    }

    /// Until when one more request of a caller may wait in line. Refuses whoever would wait for longer, or would stand last in
    /// a line that is full.
    fn until(
        &self,
        used: &mut Used,
        (caller, weight): (&str, u32),
        limit: u64,
        (now, deadline): (Instant, Instant),
    ) -> Result<Instant, Limited> {
        let wait = self.foresee(used, caller, weight);
        let busy = || self.busy(limit, wait);
        let (Some(line), Some(turns)) = (self.limits.line, &used.turns) else {
            return Err(busy());
        };
        let longest = now.checked_add(line.wait).unwrap_or(deadline);
        let until = deadline.min(longest);
        let may = until.saturating_duration_since(now);
        if may.is_zero() || wait.is_some_and(|wait| wait > may) {
            return Err(busy());
        }
        let is_full = turns.queue.len() >= line.most;
        if is_full && !turns.queue.may_make_room(caller, weight) {
            return Err(busy());
        }
        // Nor is a slot of any use to whoever may not be counted even then.
        if let Some(rpm) = self.limits.rpm
            && let Some(wait) = used.requests.wait(now, 1, rpm)
            && wait > may
        {
            return Err(self.limited(What::Rpm, rpm, wait));
        }
        Ok(until)
    }

    /// Whether one more request of a caller would be let wait, or need not. Nobody's place is changed by this.
    pub fn would_queue(&self, caller: &str, weight: u32, now: Instant, deadline: Instant) -> bool {
        let used = &mut *self.used();
        match self.most(used) {
            Some(limit) if used.slots >= limit => {
                let until = self.until(used, (caller, weight), limit, (now, deadline));
                until.is_ok()
            }
            _ => true,
        }
    }

    /// A slot, if there is a free one: nobody waits then. Else the limit that is reached.
    fn free(self: &Arc<Self>, used: &mut Used, now: Instant) -> Result<Slots, u64> {
        if self.limits.concurrency.is_none() {
            return Ok(Slots::none(now));
        }
        match self.most(used) {
            Some(limit) if used.slots >= limit => Err(limit),
            _ => {
                used.slots += 1;
                Ok(Slots::of(Arc::clone(self), now))
            }
        }
    }

    /// How long one more request of a caller would wait for a slot: if it stood in line now, where it would stand, and all
    /// that are under way took as long as others did of late. None: nobody knows.
    pub fn expected(&self, caller: &str, weight: u32) -> Option<Duration> {
        self.foresee(&self.used(), caller, weight)
    }

    pub(super) fn foresee(&self, used: &Used, caller: &str, weight: u32) -> Option<Duration> {
        let limit = self.most(used).unwrap_or(u64::MAX);
        match &used.turns {
            Some(turns) => turns.expected((used.slots, limit), caller, weight),
            None => (used.slots < limit).then_some(Duration::ZERO),
        }
    }

    /// Whether one may wait for its slots.
    pub fn has_line(&self) -> bool {
        self.limits.line.is_some()
    }

    /// Who has its slots, and who waits for them.
    pub fn crowd(&self) -> Crowd {
        let used = self.used();
        Crowd {
            held: used.slots,
            limit: self.most(&used),
            waiting: used.turns.as_ref().map_or(0, |turns| turns.queue.len()),
            wait: self.foresee(&used, "", 1),
        }
    }

    /// Learns from an answer how many requests at once are good. To be told by whoever still has its slot.
    pub fn feels(&self, feeling: Feeling, now: Instant) {
        let Some(Concurrency::Adaptive { .. }) = self.limits.concurrency else {
            return;
        };
        let mut used = self.used();
        let Used { slots, turns, .. } = &mut *used;
        let Some(turns) = turns else { return };
        let held = turns.held.get();
        if let Some(capacity) = &mut turns.capacity {
            capacity.feels(feeling, *slots, held, now);
        }
        let wake = turns.serve(slots, now);
        drop(used);
        wake.wake();
    }
}

impl Waiting {
    /// Its slot, if it was called meanwhile, or that it waits no more. Else it goes on waiting, and is woken.
    fn look(&self, ticket: u64, is_late: bool, cx: &Context<'_>) -> Poll<Result<Slots, Limited>> {
        // Made before there is a lock, and dropped after: it is not ours.
        let waker = cx.waker().clone();
        let mut left = None;
        let mut used = self.gate.used();
        if let Some(turns) = &mut used.turns {
            if let Some(since) = turns.claim(ticket) {
                return Poll::Ready(Ok(Slots::of(Arc::clone(&self.gate), since)));
            }
            if !is_late && let Some(waiter) = turns.queue.get(&self.caller, ticket) {
                let before = waiter.waker.replace(waker);
                drop(used);
                drop(before);
                return Poll::Pending;
            }
            left = turns.queue.leave(&self.caller, ticket);
        }
        let refused = self.refused(&used);
        drop(used);
        drop(left);
        Poll::Ready(Err(refused))
    }

    fn refused(&self, used: &Used) -> Limited {
        let limit = self.gate.most(used).unwrap_or(u64::MAX);
        let wait = self.gate.foresee(used, &self.caller, self.weight);
        self.gate.busy(limit, wait)
    }
}

impl Future for Waiting {
    type Output = Result<Slots, Limited>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let ticket = match &mut this.place {
            Place::InLine(ticket) => *ticket,
            place => {
                return Poll::Ready(match mem::replace(place, Place::Left) {
                    Place::Given(slots) => Ok(slots),
                    _ => Err(this.refused(&this.gate.used())),
                });
            }
        };
        let until = this.until;
        let alarm = this
            .alarm
            .get_or_insert_with(|| Box::pin(sleep_until(until)));
        let is_late = alarm.as_mut().poll(cx).is_ready();
        let seen = ready!(this.look(ticket, is_late, cx));
        this.place = Place::Left;
        Poll::Ready(seen)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let Place::InLine(ticket) = self.place else {
            return;
        };
        let mut used = self.gate.used();
        let Some(turns) = &mut used.turns else { return };
        let is_called = turns.claim(ticket).is_some();
        let left = turns.queue.leave(&self.caller, ticket);
        drop(used);
        drop(left);
        if is_called {
            self.gate.give_back(None);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Waker;

    use proptest::prelude::*;
    use tokio::sync::Semaphore;
    use tokio::task::JoinSet;
    use tokio::time::{advance, sleep, timeout};

    use super::super::limits::{Gates, Limits, Line, Whose, enter, enter_with};
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn limits(concurrency: u64, most: usize, wait: Duration) -> Limits {
        Limits {
            concurrency: Some(Concurrency::Fixed(concurrency)),
            line: Some(Line { most, wait }),
            ..Limits::default()
        }
    }

    fn gate(gates: &Gates, limits: Limits) -> Arc<Gate> {
        gates.gate(Whose::Target, "local/small", limits)
    }

    /// Stands in line for ten minutes at most, as somebody who weighs one.
    fn stand(gate: &Arc<Gate>, caller: &str) -> Result<Waiting, Limited> {
        let now = Instant::now();
        gate.queue(&caller.into(), 1, now, now + 600 * SECOND)
    }

    fn take(gate: &Arc<Gate>) -> Slots {
        enter(std::slice::from_ref(gate), Instant::now()).unwrap().0
    }

    /// Whether it is its turn, if that is known already.
    fn is_called(waiting: &mut Waiting) -> Option<Result<Slots, Limited>> {
        let mut cx = Context::from_waker(Waker::noop());
        match Pin::new(waiting).poll(&mut cx) {
            Poll::Ready(said) => Some(said),
            Poll::Pending => None,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_slot_goes_from_hand_to_hand() {
        let gates = Gates::default();
        let gate = gate(&gates, limits(1, 4, 60 * SECOND));
        let slots = take(&gate);
        let mut first = stand(&gate, "ann").unwrap();
        let second = stand(&gate, "ben").unwrap();
        assert!(is_called(&mut first).is_none());
        drop(slots);
        // It is nobody else's, though nobody has looked yet.
        assert_eq!((gate.crowd().held, gate.crowd().waiting), (1, 1));
        assert!(enter(std::slice::from_ref(&gate), Instant::now()).is_err());
        let slots = timeout(SECOND, first).await.unwrap().unwrap();
        let (second, ()) = tokio::join!(second, async {
            sleep(SECOND).await;
            drop(slots);
        });
        drop(second.unwrap());
        assert_eq!((gate.crowd().held, gate.crowd().waiting), (0, 0));
        // Whoever comes to a free slot has it.
        assert!(matches!(
            is_called(&mut stand(&gate, "ann").unwrap()),
            Some(Ok(_))
        ));
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_is_dropped_loses_no_slot() {
        let gates = Gates::default();
        let gate = gate(&gates, limits(1, 4, 60 * SECOND));
        let slots = take(&gate);
        let [gone, called, next] = ["ann", "ben", "eve"].map(|who| stand(&gate, who).unwrap());
        drop(gone);
        assert_eq!(gate.crowd().waiting, 2);
        drop(slots);
        assert_eq!((gate.crowd().held, gate.crowd().waiting), (1, 1));
        drop(called);
        assert_eq!((gate.crowd().held, gate.crowd().waiting), (1, 0));
        drop(timeout(SECOND, next).await.unwrap().unwrap());
        assert_eq!(gate.crowd().held, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_longer_than_it_may() {
        let gates = Gates::default();
        let gate = gate(&gates, limits(1, 9, 5 * SECOND));
        let (slots, begin) = (take(&gate), Instant::now());
        let none = gate.queue(&"eve".into(), 1, begin, begin);
        assert_eq!(none.unwrap_err().wait, SECOND, "it has no time at all");
        let late = stand(&gate, "ann").unwrap();
        let hurried = gate.queue(&"ben".into(), 1, begin, begin + 2 * SECOND);
        let (hurried, late) = tokio::join!(
            async { (hurried.unwrap().await.unwrap_err(), begin.elapsed()) },
            async { (late.await.unwrap_err(), begin.elapsed()) },
        );
        assert_eq!(hurried.1, 2 * SECOND);
        assert_eq!(late.1, 5 * SECOND);
        assert_eq!(late.0.what, What::Concurrency);
        assert_eq!(late.0.wait, SECOND, "nobody knows");
        drop(slots);
        assert_eq!(gate.crowd().held, 0, "nobody was left to have it");
        // Whose time is up when there is a slot at last, is passed over, though it has not noticed.
        let gate = self::gate(&Gates::default(), limits(1, 9, 5 * SECOND));
        let slots = take(&gate);
        let mut late = stand(&gate, "ann").unwrap();
        advance(3 * SECOND).await;
        let mut next = stand(&gate, "ben").unwrap();
        advance(2 * SECOND).await;
        drop(slots);
        assert!(matches!(is_called(&mut late), Some(Err(_))));
        assert!(matches!(is_called(&mut next), Some(Ok(_))));
        let passed = gate.queue(&"ann".into(), 1, begin, begin);
        assert!(passed.is_ok(), "there is a free slot");
        assert!(gate.queue(&"ann".into(), 1, begin, begin).is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_told_how_long_it_is() {
        let gates = Gates::default();
        let gate = gate(&gates, limits(2, 9, 10 * SECOND));
        assert_eq!(gate.expected("ann", 1), Some(Duration::ZERO));
        for _ in 0..3 {
            let slots = take(&gate);
            sleep(6 * SECOND).await;
            drop(slots);
        }
        let _slots = [take(&gate), take(&gate)];
        let mut line = Vec::new();
        for place in 1..=3 {
            assert_eq!(gate.expected("ann", 1), Some(3 * SECOND * place));
            line.push(stand(&gate, "ann").unwrap());
        }
        let limited = stand(&gate, "ann").unwrap_err();
        assert_eq!(limited.what, What::Concurrency);
        assert_eq!((limited.limit, limited.wait), (2, 12 * SECOND));
        // Another stands before most of them, and is turned away only where it has no time.
        assert_eq!(gate.expected("ben", 1), Some(6 * SECOND));
        let now = Instant::now();
        let hurried = gate.queue(&"ben".into(), 1, now, now + 5 * SECOND);
        assert_eq!(hurried.unwrap_err().wait, 6 * SECOND);
        line.push(stand(&gate, "ben").unwrap());
        let crowd = gate.crowd();
        assert_eq!((crowd.held, crowd.limit, crowd.waiting), (2, Some(2), 4));
        assert_eq!(crowd.wait, Some(9 * SECOND));
        let refused = enter(std::slice::from_ref(&gate), now).unwrap_err();
        assert_eq!(refused.wait, 9 * SECOND);
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_line_turns_away_who_is_last() {
        let gates = Gates::default();
        let gate = gate(&gates, limits(1, 2, 60 * SECOND));
        let slots = take(&gate);
        let mut flood = [stand(&gate, "ann").unwrap(), stand(&gate, "ann").unwrap()];
        assert!(stand(&gate, "ann").is_err());
        let other = stand(&gate, "ben").unwrap();
        assert_eq!(gate.crowd().waiting, 2);
        assert!(matches!(is_called(&mut flood[1]), Some(Err(_))));
        assert!(is_called(&mut flood[0]).is_none());
        assert!(stand(&gate, "eve").is_err());
        drop(slots);
        drop(flood);
        drop(other.await.unwrap());
        assert_eq!((gate.crowd().held, gate.crowd().waiting), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_limit_that_grows_is_for_those_who_wait() {
        let gates = Gates::default();
        let old = gate(&gates, limits(1, 9, 60 * SECOND));
        let slots = take(&old);
        let line = ["ann", "ben", "eve", "joe"].map(|who| stand(&old, who).unwrap());
        let [first, second, third, mut last] = line;
        // A plan that is made, and may have a flaw, changes nothing.
        let new = gate(&gates, limits(3, 9, 60 * SECOND));
        assert_eq!((old.crowd().held, old.crowd().waiting), (1, 4));
        gates.enforce(Instant::now());
        assert_eq!((new.crowd().held, new.crowd().waiting), (3, 2));
        let held = [first.await.unwrap(), second.await.unwrap()];
        assert!(enter(std::slice::from_ref(&old), Instant::now()).is_err());
        // Lowered, nobody is called until fewer are under way.
        let plain = Limits {
            line: None,
            ..limits(2, 0, SECOND)
        };
        let plain = gate(&gates, plain);
        gates.enforce(Instant::now());
        gates.prune(Instant::now());
        drop(slots);
        assert_eq!((plain.crowd().held, plain.crowd().waiting), (2, 2));
        assert!(stand(&plain, "zoe").is_err(), "there is no line any more");
        drop(held);
        drop(third.await.unwrap());
        assert!(matches!(is_called(&mut last), Some(Ok(_))));
        // And where nothing is limited any more, nobody waits.
        let slots = [take(&plain), take(&plain)];
        let waiting = stand(&new, "zoe").unwrap();
        gate(
            &gates,
            Limits {
                rpm: Some(9),
                ..Limits::default()
            },
        );
        gates.enforce(Instant::now());
        drop(waiting.await.unwrap());
        drop(slots);
        assert_eq!((old.crowd().held, old.crowd().waiting), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_plan_with_a_line_comes_into_force_with_its_first_request() {
        let gates = Gates::default();
        let minute = Limits {
            rpm: Some(9),
            ..Limits::default()
        };
        let free = gate(&gates, minute);
        let plain = gate(
            &gates,
            Limits {
                line: None,
                ..limits(3, 0, SECOND)
            },
        );
        let slots = [take(&plain), take(&plain)];
        let lined = gate(&gates, limits(2, 9, SECOND));
        assert_eq!(plain.crowd().limit, Some(3), "it may never come into force");
        assert!(enter(std::slice::from_ref(&lined), Instant::now()).is_err());
        assert_eq!(plain.crowd().limit, Some(2));
        assert!(enter(std::slice::from_ref(&free), Instant::now()).is_ok());
        let waiting = stand(&lined, "ann").unwrap();
        drop(slots);
        drop(waiting.await.unwrap());
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_its_slot_is_counted_like_everybody() {
        let gates = Gates::default();
        let limits = Limits {
            rpm: Some(2),
            ..limits(1, 9, 30 * SECOND)
        };
        let target = gate(&gates, limits);
        let both = [gates.gate(Whose::Team, "t", limits), Arc::clone(&target)];
        let (slots, mut charge) = enter(&both, Instant::now()).unwrap();
        charge.spend();
        let waiting = [stand(&target, "ann"), stand(&target, "ben")].map(Result::unwrap);
        drop(slots);
        let [first, second] = waiting;
        let slots = first.await.unwrap();
        let (slots, mut charge) = enter_with(slots, &both, Instant::now()).unwrap();
        assert_eq!((both[0].crowd().held, target.crowd().held), (1, 1));
        charge.spend();
        drop(slots);
        let slots = second.await.unwrap();
        let refused = enter_with(slots, &both, Instant::now()).unwrap_err();
        assert_eq!(refused.what, What::Rpm);
        assert_eq!((both[0].crowd().held, target.crowd().held), (0, 0));
        // Nobody waits for a slot who could not be counted then.
        let _slots = stand(&target, "ann").unwrap().await.unwrap();
        assert_eq!(stand(&target, "ann").unwrap_err().what, What::Rpm);
        advance(31 * SECOND).await;
        assert!(stand(&target, "ann").is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_gate_without_a_line_is_as_it_was() {
        let gates = Gates::default();
        let plain = gate(
            &gates,
            Limits {
                line: None,
                ..limits(1, 0, SECOND)
            },
        );
        assert_eq!(plain.expected("ann", 1), Some(Duration::ZERO));
        let slots = take(&plain);
        assert!(plain.used().turns.is_none());
        let refused = enter(std::slice::from_ref(&plain), Instant::now()).unwrap_err();
        assert_eq!((refused.limit, refused.wait), (1, SECOND));
        assert_eq!(stand(&plain, "ann").unwrap_err(), refused);
        assert_eq!((plain.expected("ann", 1), plain.crowd().waiting), (None, 0));
        drop(slots);
        drop(stand(&plain, "ann").unwrap());
        assert_eq!(plain.crowd().held, 0);
        let free = gate(
            &gates,
            Limits {
                rpm: Some(1),
                ..Limits::default()
            },
        );
        drop(stand(&free, "ann").unwrap());
        assert_eq!(free.crowd().held, 0);
    }

    /// An engine that does so much at once. What is more waits inside of it, or is refused.
    struct Engine {
        places: Semaphore,
        refuses: bool,
        refused: AtomicUsize,
        begin: Duration,
        rest: Duration,
    }

    impl Engine {
        fn new(capacity: usize, refuses: bool) -> Arc<Self> {
            Arc::new(Self {
                places: Semaphore::new(capacity),
                refuses,
                refused: AtomicUsize::new(0),
                begin: SECOND / 5,
                rest: SECOND,
            })
        }

        async fn ask(&self, gate: &Gate) {
            let asked = Instant::now();
            let place = if self.refuses {
                let Ok(place) = self.places.try_acquire() else {
                    self.refused.fetch_add(1, Ordering::Relaxed);
                    sleep(Duration::from_millis(10)).await;
                    gate.feels(Feeling::Overloaded, Instant::now());
                    return;
                };
                place
            } else {
                self.places.acquire().await.unwrap()
            };
            sleep(self.begin).await;
            gate.feels(Feeling::Good(asked.elapsed()), Instant::now());
            sleep(self.rest).await;
            drop(place);
        }
    }

    /// What limits were in force in ten minutes of a crowd that would like more, from the second on; and how many were
    /// answered.
    async fn found(engine: &Arc<Engine>) -> (Vec<u64>, usize) {
        let gates = Gates::default();
        let limits = Limits {
            concurrency: Some(Concurrency::Adaptive {
                least: 1,
                most: 200,
            }),
            ..limits(0, 100, 100 * SECOND)
        };
        let gate = gate(&gates, limits);
        let (mut clients, answered) = (JoinSet::new(), Arc::new(AtomicUsize::new(0)));
        for n in 0..60 {
            let (gate, engine) = (Arc::clone(&gate), Arc::clone(engine));
            let answered = Arc::clone(&answered);
            clients.spawn(async move {
                loop {
                    let Ok(waiting) = stand(&gate, &format!("{}", n % 7)) else {
                        sleep(SECOND).await;
                        continue;
                    };
                    if let Ok(_slots) = waiting.await {
                        engine.ask(&gate).await;
                        answered.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
        sleep(60 * SECOND).await;
        let mut limits = Vec::new();
        for _ in 0..540 {
            sleep(SECOND).await;
            let crowd = gate.crowd();
            assert!(crowd.waiting > 0 && crowd.held >= crowd.limit.unwrap());
            limits.push(crowd.limit.unwrap());
        }
        clients.shutdown().await;
        let crowd = gate.crowd();
        assert_eq!((crowd.held, crowd.waiting), (0, 0));
        (limits, answered.load(Ordering::Relaxed))
    }

    #[tokio::test(start_paused = true)]
    async fn what_an_engine_bears_is_found_by_how_soon_it_answers() {
        for capacity in [3, 8, 20] {
            let engine = Engine::new(capacity, false);
            let (limits, answered) = found(&engine).await;
            let mean = limits.iter().sum::<u64>() / limits.len() as u64;
            let near = capacity as u64 * 7 / 10..=capacity as u64 * 3 / 2;
            assert!(near.contains(&mean), "{mean} of {capacity}");
            let most = limits.iter().max().unwrap();
            assert!(*most <= capacity as u64 * 3, "{most} of {capacity}");
            let best = capacity * 500;
            assert!(answered >= best * 9 / 10, "{answered} of {best}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_an_engine_bears_is_found_by_what_it_refuses() {
        for capacity in [3, 8, 20] {
            let engine = Engine::new(capacity, true);
            let (limits, asked) = found(&engine).await;
            let mean = limits.iter().sum::<u64>() / limits.len() as u64;
            let near = capacity as u64 * 7 / 10..=capacity as u64;
            assert!(near.contains(&mean), "{mean} of {capacity}");
            assert!(limits.iter().all(|limit| *limit <= capacity as u64 + 1));
            let refused = engine.refused.load(Ordering::Relaxed);
            let (answered, best) = (asked - refused, capacity * 500);
            assert!(answered >= best * 4 / 5, "{answered} of {best}");
            assert!(refused * 4 < answered, "{refused} of {asked}");
        }
    }

    #[test]
    fn no_slot_is_lost_between_threads() {
        let gates = Gates::default();
        let gate = gate(&gates, limits(3, 40, 50 * Duration::from_millis(1)));
        let (held, most, served) = (
            AtomicUsize::new(0),
            AtomicUsize::new(0),
            AtomicUsize::new(0),
        );
        let work = async |thread: u64| {
            let mut seed = thread + 1;
            let mut dice = |sides: u64| {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (seed >> 33) % sides
            };
            for _ in 0..1_500 {
                let patience = Duration::from_micros(dice(3_000));
                let who = dice(3).to_string();
                let Ok(waiting) = stand(&gate, &who) else {
                    continue;
                };
                let Ok(Ok(_slots)) = timeout(patience, waiting).await else {
                    continue;
                };
                let now = held.fetch_add(1, Ordering::SeqCst) + 1;
                most.fetch_max(now, Ordering::SeqCst);
                served.fetch_add(1, Ordering::SeqCst);
                for _ in 0..dice(4) {
                    tokio::task::yield_now().await;
                }
                held.fetch_sub(1, Ordering::SeqCst);
            }
        };
        std::thread::scope(|threads| {
            for thread in 0..4 {
                let work = &work;
                threads.spawn(move || {
                    let runtime = tokio::runtime::Builder::new_current_thread();
                    let runtime = { runtime }.enable_time().build().unwrap();
                    let both = [thread * 2, thread * 2 + 1].map(work);
                    let [a, b] = both;
                    runtime.block_on(async { tokio::join!(a, b) });
                });
            }
        });
        assert!(most.into_inner() <= 3 && served.into_inner() > 100);
        let crowd = gate.crowd();
        assert_eq!((crowd.held, crowd.waiting), (0, 0));
    }

    #[derive(Clone, Debug)]
    enum Step {
        /// Of which caller, with how many milliseconds until its deadline.
        Arrive(usize, u64),
        /// Without a thought for the line.
        Barge,
        /// Whoever was woken looks.
        Poll,
        /// Of which that has a slot.
        Finish(usize),
        /// Of which that waits, called or not.
        Leave(usize),
        /// After how many milliseconds.
        Later(u64),
        /// To which concurrency, and which line.
        Reload(Concurrency, Option<Line>),
        Feel(Feeling),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let concurrency = prop_oneof![
            3 => (1..5_u64).prop_map(Concurrency::Fixed),
            1 => (1..3_u64, 3..6_u64)
                .prop_map(|(least, most)| Concurrency::Adaptive { least, most }),
        ];
        let line = (0..7_usize, 500..9_000_u64).prop_map(|(most, wait)| Line {
            most,
            wait: Duration::from_millis(wait),
        });
        let reload = (concurrency, proptest::option::weighted(0.8, line));
        let feeling = prop_oneof![
            3 => (50..150_u64).prop_map(|it| Feeling::Good(Duration::from_millis(it))),
            1 => Just(Feeling::Overloaded),
        ];
        let step = prop_oneof![
            1 => (0..3_usize).prop_map(|who| Step::Arrive(who, 0)),
            12 => (0..3_usize, 0..12_000_u64).prop_map(|(who, by)| Step::Arrive(who, by)),
            2 => Just(Step::Barge),
            6 => Just(Step::Poll),
            7 => (0..6_usize).prop_map(Step::Finish),
            3 => (0..6_usize).prop_map(Step::Leave),
            5 => (1..2_500_u64).prop_map(Step::Later),
            1 => reload.prop_map(|(concurrency, line)| Step::Reload(concurrency, line)),
            3 => feeling.prop_map(Step::Feel),
        ];
        proptest::collection::vec(step, 1..150)
    }

    const WEIGHTS: [u32; 3] = [1, 2, 5];

    /// What wakes one that waits.
    #[derive(Default)]
    struct Bell(AtomicUsize);

    impl std::task::Wake for Bell {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// One that waits, and what is known of it.
    struct Stood {
        waiting: Waiting,
        bell: Arc<Bell>,
        who: usize,
        until: Instant,
        /// Since when it has a slot, which it may not know.
        called: Option<Instant>,
        /// It is in the line no more, and has no slot.
        is_out: bool,
        /// How many of each caller were called since it was the first of its own.
        passed: Option<[u32; 3]>,
    }

    impl Stood {
        fn is_in_line(&self) -> bool {
            self.called.is_none() && !self.is_out
        }
    }

    /// The line as one would write it down, in the order of arrival, and the gate that is held to it.
    struct World {
        gates: Gates,
        gate: Arc<Gate>,
        limit: u64,
        held: Vec<(Slots, Instant)>,
        stood: Vec<Stood>,
        mean: Option<Duration>,
        /// Where each caller's next stands, in tenths of a round, and where the line does.
        places: HashMap<usize, u64>,
        place: u64,
    }

    impl World {
        fn slots(&self) -> u64 {
            let called = self.stood.iter().filter(|it| it.called.is_some());
            (self.held.len() + called.count()) as u64
        }

        fn line(&self) -> Vec<usize> {
            let all = 0..self.stood.len();
            all.filter(|n| self.stood[*n].is_in_line()).collect()
        }

        /// Where each in the line stands, and one more of a caller would; the foremost first.
        fn order(&self, more: Option<usize>) -> Vec<(u64, usize)> {
            let mut next: HashMap<usize, u64> = HashMap::new();
            let line = self.line().into_iter().map(|n| (n, self.stood[n].who));
            let mut order: Vec<(u64, usize)> = line
                .chain(more.map(|who| (usize::MAX, who)))
                .map(|(n, who)| {
                    let known = self.places.get(&who).copied().unwrap_or(0);
                    let is_idle = n == usize::MAX && !next.contains_key(&who);
                    let first = if is_idle {
                        known.max(self.place)
                    } else {
                        known
                    };
                    let place = next.entry(who).or_insert(first);
                    let here = *place;
                    *place += 10 / u64::from(WEIGHTS[who]);
                    (here, n)
                })
                .collect();
            order.sort_unstable();
            order
        }

        /// How long one more of a caller would wait.
        fn wait(&self, more: usize) -> Option<Duration> {
            let Some(over) = self.slots().checked_sub(self.limit) else {
                return Some(Duration::ZERO);
            };
            let order = self.order(Some(more));
            let ahead = order.iter().position(|(_, n)| *n == usize::MAX).unwrap() as u64;
            let slots = u32::try_from(self.slots()).unwrap();
            Some(self.mean? * u32::try_from(over + ahead + 1).unwrap() / slots)
        }

        fn is_told_truly(&self, limited: &Limited, who: usize) {
            assert_eq!(limited.what, What::Concurrency);
            assert_eq!(limited.limit, self.limit);
            assert_eq!(limited.wait, self.wait(who).unwrap_or(SECOND));
        }

        fn serve(&mut self, now: Instant) {
            while self.slots() < self.limit {
                let order = self.order(None);
                let Some((place, n)) = order.first().copied() else {
                    self.places.clear();
                    self.place = 0;
                    break;
                };
                if self.stood[n].until <= now {
                    self.stood[n].is_out = true;
                    continue;
                }
                let who = self.stood[n].who;
                self.place = self.place.max(place);
                self.places
                    .insert(who, place + 10 / u64::from(WEIGHTS[who]));
                self.stood[n].called = Some(now);
                self.is_fair(n);
            }
        }

        /// Notes who is called before whom, and that it is not too often.
        fn is_fair(&mut self, called: usize) {
            let who = self.stood[called].who;
            let mut seen = [false; 3];
            for it in self.stood.iter_mut().filter(|it| it.is_in_line()) {
                let is_first = !mem::replace(&mut seen[it.who], true);
                if !is_first {
                    continue;
                }
                let passed = it.passed.get_or_insert([0; 3]);
                passed[who] += 1;
                let fair = WEIGHTS[who].div_ceil(WEIGHTS[it.who]) + 1;
                assert!(it.who == who || passed[who] <= fair, "{passed:?}");
            }
        }

        fn arrive(&mut self, who: usize, by: u64, now: Instant) {
            let deadline = now + Duration::from_millis(by);
            let (slots, wait) = (self.slots(), self.wait(who));
            let line = self.gate.limits.line;
            let until = line.map_or(now, |line| deadline.min(now + line.wait));
            let may = until - now;
            let is_patient = !may.is_zero() && wait.is_none_or(|wait| wait <= may);
            let order = self.order(Some(who));
            let is_full = line.is_none_or(|line| order.len() > line.most);
            let last = order.last().map(|(_, n)| *n);
            let name = who.to_string().into();
            let came = self.gate.queue(&name, WEIGHTS[who], now, deadline);
            let mut waiting = match came {
                Ok(waiting) => waiting,
                Err(limited) => {
                    assert!(slots >= self.limit, "there was a slot");
                    assert!(!is_patient || (is_full && last == Some(usize::MAX)));
                    self.is_told_truly(&limited, who);
                    return;
                }
            };
            if slots < self.limit {
                let slots = is_called(&mut waiting).unwrap().unwrap();
                self.held.push((slots, now));
                return;
            }
            assert!(is_patient && (!is_full || last != Some(usize::MAX)));
            if is_full {
                self.stood[last.unwrap()].is_out = true;
            }
            if !self.stood.iter().any(|it| it.is_in_line() && it.who == who) {
                let place = self.places.entry(who).or_insert(0);
                *place = self.place.max(*place);
            }
            self.stood.push(Stood {
                waiting,
                bell: Arc::default(),
                who,
                until,
                called: None,
                is_out: false,
                passed: None,
            });
        }

        /// Whoever was woken looks, and whoever has not looked yet.
        fn poll(&mut self, now: Instant) {
            let mut n = 0;
            while n < self.stood.len() {
                let it = &mut self.stood[n];
                let (is_new, is_in_line) = (it.waiting.alarm.is_none(), it.is_in_line());
                let is_woken = it.bell.0.swap(0, Ordering::Relaxed) > 0;
                if !is_new && !is_woken {
                    assert!(is_in_line && now < it.until, "it was not woken");
                    n += 1;
                    continue;
                }
                let waker = Waker::from(Arc::clone(&it.bell));
                let mut cx = Context::from_waker(&waker);
                match Pin::new(&mut it.waiting).poll(&mut cx) {
                    Poll::Pending => {
                        assert!(is_in_line && now < it.until);
                        n += 1;
                    }
                    Poll::Ready(said) => {
                        let it = self.stood.remove(n);
                        match said {
                            Ok(slots) => self.held.push((slots, it.called.unwrap())),
                            Err(limited) => {
                                assert!(it.called.is_none());
                                assert!(it.is_out || now >= it.until);
                                self.is_told_truly(&limited, it.who);
                            }
                        }
                    }
                }
            }
        }

        fn finish(&mut self, which: usize, now: Instant) {
            let (slots, since) = self.held.swap_remove(which);
            drop(slots);
            let held = now - since;
            self.mean = Some(self.mean.map_or(held, |mean| (mean * 7 + held) / 8));
            self.serve(now);
        }

        fn reload(&mut self, concurrency: Concurrency, line: Option<Line>, now: Instant) {
            let limits = Limits {
                concurrency: Some(concurrency),
                line,
                ..Limits::default()
            };
            let before = self.gate.crowd();
            let made = gate(&self.gates, limits);
            assert_eq!(self.gate.crowd(), before, "it is not in force");
            self.gates.enforce(now);
            self.gates.prune(now);
            self.gate = made;
            self.limit = self.gate.crowd().limit.unwrap();
            if let Concurrency::Fixed(most) = concurrency {
                assert_eq!(self.limit, most);
            }
            self.serve(now);
        }

        fn step(&mut self, step: &Step, now: Instant) {
            match *step {
                Step::Arrive(who, by) => self.arrive(who, by, now),
                Step::Barge => {
                    let entered = enter(std::slice::from_ref(&self.gate), now);
                    assert_eq!(entered.is_ok(), self.slots() < self.limit);
                    if let Ok((slots, _)) = entered {
                        self.held.push((slots, now));
                    }
                }
                Step::Poll => self.poll(now),
                Step::Finish(which) if which < self.held.len() => self.finish(which, now),
                Step::Leave(which) if which < self.stood.len() => {
                    drop(self.stood.remove(which));
                    self.serve(now);
                }
                Step::Reload(concurrency, line) => self.reload(concurrency, line, now),
                Step::Feel(feeling) => {
                    self.gate.feels(feeling, now);
                    self.limit = self.gate.crowd().limit.unwrap();
                    self.serve(now);
                }
                _ => {}
            }
        }

        /// The gate is as it should be, and fair and thrifty.
        fn check(&self, before: u64) {
            let (crowd, line) = (self.gate.crowd(), self.line());
            assert_eq!(crowd.held, self.slots());
            assert_eq!(crowd.limit, Some(self.limit));
            assert_eq!(crowd.waiting, line.len());
            assert!(crowd.held <= self.limit.max(before), "more than may be");
            assert!(line.is_empty() || crowd.held >= self.limit, "a free slot");
            for (who, weight) in WEIGHTS.into_iter().enumerate() {
                let expected = self.gate.expected(&who.to_string(), weight);
                assert_eq!(expected, self.wait(who));
            }
        }

        /// All that is open ends, and nothing is left of it.
        async fn end(mut self) {
            while !self.held.is_empty() || !self.stood.is_empty() {
                self.poll(Instant::now());
                match self.held.is_empty() {
                    true => advance(Duration::from_millis(500)).await,
                    false => self.finish(0, Instant::now()),
                }
                self.check(self.slots());
            }
            let used = self.gate.used();
            assert_eq!(used.slots, 0);
            let turns = used.turns.as_ref().unwrap();
            assert_eq!(turns.queue.len(), 0);
            assert!(!turns.is_waited_for());
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]

        #[test]
        fn slots_go_to_whose_turn_it_is_and_none_is_lost(steps in steps()) {
            let runtime = tokio::runtime::Builder::new_current_thread();
            let runtime = { runtime }.enable_time().start_paused(true).build().unwrap();
            runtime.block_on(async {
                let gates = Gates::default();
                let mut world = World {
                    gate: gate(&gates, limits(2, 4, 6 * SECOND)),
                    gates,
                    limit: 2,
                    held: Vec::new(),
                    stood: Vec::new(),
                    mean: None,
                    places: HashMap::new(),
                    place: 0,
                };
                for step in steps {
                    let before = world.slots();
                    if let Step::Later(millis) = step {
                        advance(Duration::from_millis(millis)).await;
                    }
                    world.step(&step, Instant::now());
                    world.check(before);
                }
                world.end().await;
            });
        }
    }
}
