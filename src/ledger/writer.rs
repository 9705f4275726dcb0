//! When is it written? A thread takes all that is queued, writes it in one transaction and tells those who wait. It takes
//! its time, so that much comes together, unless someone waits for it.
//!
//! What cannot be written is kept and tried again, whole: a group that failed was rolled back, so that nothing is written
//! twice. Until then the ledger is unavailable.

use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use super::bell::Slot;
use super::inner::Inner;
use super::item::{Granted, Item};
use super::open::damage;
use super::state::{State, Stop};
use super::store::Store;

/// The most that is written in one transaction.
const GROUP: usize = 512;
/// How long the first that is queued waits for more: what it costs to write is shared by all.
const GATHER: Duration = Duration::from_millis(50);
/// How long to rest after failures, at least and at most.
const REST: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(250));

/// How often it is looked whether the log is to be brought into the file: after so many pages, or else after so many looks.
const LOOK: Duration = Duration::from_millis(250);
const MANY: u64 = 8_192;
const LONG_AGO: u32 = 120;
/// How many pages of the log are too many: the writer then has to pause for it.
const LONG: i64 = 16_384;

/// Starts the thread, and one beside it that brings the log into the file.
pub(super) fn start(inner: &Arc<Inner>, store: Store) -> std::io::Result<Vec<JoinHandle<()>>> {
    let mut threads = Vec::new();
    if let Some(path) = store.path.clone() {
        let inner = Arc::clone(inner);
        let thread = thread::Builder::new().name("ledger-log".into());
        threads.push(thread.spawn(move || tend(&inner, &path))?);
    }
    let writer = Arc::clone(inner);
    let started = thread::Builder::new().name("ledger".into()).spawn(move || {
        run(&writer, store);
        writer.has_stopped();
    });
    if started.is_err() {
        inner.has_stopped();
    }
    threads.push(started?);
    Ok(threads)
}

/// Brings the log into the file from time to time, beside the writer. Once at the start, so that what it takes of the
/// machine is taken from the start.
fn tend(inner: &Inner, path: &Path) {
    let mut conn = None;
    let (mut done, mut looks) = (0, 0);
    loop {
        if conn.is_none() {
            conn = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE).ok();
        }
        if let Some(conn) = &conn {
            bring(inner, conn);
        }
        loop {
            if inner.wait_until_stopped(LOOK) {
                return;
            }
            let pages = inner.pages.load(Ordering::Relaxed);
            looks += 1;
            let since = pages - done;
            if since >= MANY || (since > 0 && looks >= LONG_AGO) {
                (done, looks) = (pages, 0);
                break;
            }
        }
    }
}

/// Brings as much of the log into the file as can be without waiting.
fn bring(inner: &Inner, conn: &Connection) {
    let pages = conn.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| {
        row.get::<_, i64>(1)
    });
    match pages {
        Ok(pages) => inner.log_is_long.store(pages > LONG, Ordering::Relaxed),
        Err(error) => {
            tracing::warn!(%error, "the ledger's log could not be brought into its file");
        }
    }
}

fn run(inner: &Inner, mut store: Store) {
    let mut group = Vec::with_capacity(GROUP);
    while let Some(work) = next(inner, &mut group, store.is_due()) {
        match work {
            Work::Write(hour) => {
                let Some(answers) = write(inner, &mut store, &group, hour) else {
                    return;
                };
                acknowledge(inner, &group, &answers);
                leave(inner, &mut group);
                if let Some(tail) = inner.safe.tail() {
                    tail.turn(store.number);
                }
                // Also while there is always something to write.
                if store.is_due() {
                    bring_in(&mut store);
                }
            }
            Work::Sum(asked) => {
                if asked {
                    store.ask();
                }
                if store.is_due() {
                    bring_in(&mut store);
                }
            }
            Work::Sweep(hour) => {
                // What cannot be rolled up now will be at another time.
                let is_more = store.sweep(hour).unwrap_or_default();
                inner.lock().chores.sweep = is_more;
            }
            Work::Restart => {
                if let Err(error) = store.restart_log() {
                    tracing::warn!(%error, "the ledger's log could not be begun anew");
                }
            }
        }
        inner.pages.store(store.pages, Ordering::Relaxed);
    }
    let state = inner.lock();
    if state.stop == Stop::Now {
        return;
    }
    // Unless someone has settled since, whose line only stands there. Under the lock, so that nobody does now.
    if let Some(tail) = inner.safe.tail()
        && state.number == store.number
        && let Err(error) = tail.clear()
    {
        tracing::debug!(%error, "what is written could not be taken out of the ledger's tail");
    }
    let is_clean = state.stop == Stop::Clean;
    drop(state);
    if is_clean && let Err(error) = store.close() {
        tracing::warn!(%error, "the ledger could not note that it was closed; the next start will check it");
    }
}

/// Brings some of what is due into the sums. What cannot be brought in now will be at another time.
fn bring_in(store: &mut Store) {
    if let Err(error) = store.bring_in() {
        tracing::debug!(%error, "what is due could not be brought into the ledger's sums");
    }
}

/// What the thread does next.
enum Work {
    Write(i64),
    /// Brings what is due into the sums; all of it, if that is asked for.
    Sum(bool),
    Sweep(i64),
    Restart,
}

/// Waits for something to write. None when it is time to end.
fn next(inner: &Inner, group: &mut Vec<Item>, is_due: bool) -> Option<Work> {
    let mut state = inner.lock();
    loop {
        if state.stop >= Stop::Now {
            return None;
        }
        if inner.log_is_long.swap(false, Ordering::Relaxed) {
            return Some(Work::Restart);
        }
        if !state.queue.is_empty() {
            state = gather(inner, state);
            if state.stop >= Stop::Now {
                return None;
            }
            let most = state.queue.len().min(GROUP);
            group.extend(state.queue.drain(..most));
            state.writing = most;
            state.hurry = false;
            return Some(Work::Write(state.hour));
        }
        if state.stop == Stop::Clean {
            // Also what was settled meanwhile.
            state.give_all_back();
            if !state.queue.is_empty() {
                continue;
            }
        }
        if state.stop != Stop::No {
            return None;
        }
        let is_asked = std::mem::take(&mut state.chores.sum);
        if is_due || is_asked {
            return Some(Work::Sum(is_asked));
        }
        if state.chores.sweep {
            return Some(Work::Sweep(state.hour));
        }
        state.wakes_at = Some(1);
        state = inner
            .work
            .wait(state)
            .unwrap_or_else(PoisonError::into_inner);
        state.wakes_at = None;
    }
}

/// Lets a little time pass, so that more comes together, unless someone waits.
fn gather<'a>(inner: &'a Inner, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
    state.wakes_at = Some(GROUP / 2);
    let waited = inner.work.wait_timeout_while(state, GATHER, |state| {
        state.wakes_at.is_some() && !state.is_to_wake()
    });
    let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
    state.wakes_at = None;
    state
}

/// Writes a group, as often as it takes. None if it is time to end before that.
fn write(inner: &Inner, store: &mut Store, group: &[Item], hour: i64) -> Option<Vec<Granted>> {
    let mut rest = REST.0;
    loop {
        #[cfg(test)]
        if let Some(pragma) = inner.lock().pragma.take() {
            store.say(pragma);
        }
        match store.write(group, hour) {
            Ok(answers) => {
                if std::mem::replace(&mut inner.lock().unavailable, false) {
                    tracing::info!("the ledger can write again");
                }
                return Some(answers);
            }
            Err(error) => {
                let mut state = inner.lock();
                if !std::mem::replace(&mut state.unavailable, true) {
                    match damage(store.path.as_deref(), &error) {
                        Some(error) => {
                            tracing::error!(%error, "requests with a budget are refused; stop the gateway to mend it");
                        }
                        None => {
                            tracing::error!(%error, "the ledger cannot write; requests with a budget are refused until it can");
                        }
                    }
                }
                for item in group.iter().chain(&state.queue) {
                    if let Item::Draw(draw) = item {
                        state.ring(&draw.account);
                    }
                }
                let (state, _) = inner
                    .work
                    .wait_timeout_while(state, rest, |state| state.stop < Stop::Now)
                    .unwrap_or_else(PoisonError::into_inner);
                if state.stop >= Stop::Now {
                    return None;
                }
                rest = (rest * 2).min(REST.1);
            }
        }
    }
}

/// Leaves what was written to be used again, as much of it as a group may have.
fn leave(inner: &Inner, group: &mut Vec<Item>) {
    let settled = group.drain(..).filter_map(|item| match item {
        Item::Settled(settled) => Some(settled),
        Item::Draw(_) | Item::Back(_) => None,
    });
    // Unless someone still looks at it.
    let mut used: Vec<_> = settled.filter(|it| Arc::strong_count(it) == 1).collect();
    let mut state = inner.lock();
    let more = GROUP.saturating_sub(state.used.len()).min(used.len());
    state.used.extend(used.drain(..more));
    drop(state);
}

/// Tells everyone what was written.
fn acknowledge(inner: &Inner, group: &[Item], answers: &[Granted]) {
    let mut slots: Vec<&Slot> = Vec::new();
    let mut answers = answers.iter();
    let mut state = inner.lock();
    state.groups += 1;
    state.writing = 0;
    for item in group {
        match item {
            Item::Settled(settled) => {
                state.written += settled.entries.len() as u64;
                slots.push(&settled.slot);
            }
            Item::Draw(draw) => {
                if let Some(granted) = answers.next() {
                    state.granted(draw, *granted);
                }
                // Heard once all is granted: whoever waits needs the lock.
                state.ring(&draw.account);
            }
            Item::Back(_) => {}
        }
    }
    drop(state);
    Slot::ring(&slots);
}
