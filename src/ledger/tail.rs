//! What was settled and is not in the file yet? It stands in a small file beside it, so that it survives the process.
//!
//! To bring one request into the ledger's file costs as much as to bring in a hundred. So whoever settles appends one line
//! here, in one short write on its own thread, and the ledger's thread brings many of them into the file together, a
//! moment later. There are two such files: while one is appended to, what stands in the other reaches the ledger's file;
//! then they change places, and the other is written over from its beginning, which is cheaper than a file that grows.
//!
//! A line has a number, and the ledger's file knows the number up to which it has them all: so whatever a crash leaves
//! here is entered once, and what is left of older lines not at all. What was cut short is no line, and was told to
//! nobody.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant, UNIX_EPOCH};

use serde::{Serialize, Serializer};

use super::book::Cut;
use super::item::Settled;
use super::{Entry, Scope};
use crate::usage::{KINDS, Money, Usage};

/// The places that lines are appended to, in turn.
const PLACES: [&str; 2] = [".tail0", ".tail1"];
/// In bytes: with this much in it a place is left for the other.
pub(super) const FULL: u64 = 1 << 20;
/// In bytes: more than this is in no tail of ours.
const MOST: u64 = 256 << 20;
/// A disk that takes longer to take a line is not asked on the path for a while: the ledger's thread can wait for it.
/// Longer than a thread waits for its core on a busy machine, which is no fault of the disk's.
const SLOW: Duration = Duration::from_millis(50);
/// How long not.
const REST: Duration = Duration::from_secs(5);

/// Two files of lines.
#[derive(Debug)]
pub(super) struct Tail {
    /// Which ledger's.
    ledger: i64,
    places: [Place; 2],
    began: Instant,
    /// Until when nobody appends, in milliseconds since it began.
    pub(super) rests_until: AtomicU64,
}

#[derive(Debug)]
struct Place {
    file: File,
    /// Where the next line goes.
    end: AtomicU64,
    /// How many lines are on their way: while there are any, no other takes the place of one.
    writers: AtomicUsize,
}

/// What makes durable what was settled.
#[derive(Debug)]
pub(super) enum Safe {
    /// Nothing: it ends with the process, whatever is done.
    Never,
    /// A line in the tail.
    Tail(Tail),
    /// The ledger's file alone.
    Store,
}

impl Safe {
    /// Someone will append to a place, which was not left yet.
    pub(super) fn enter(&self, place: usize) {
        if let Some(place) = self.tail().and_then(|tail| tail.places.get(place)) {
            place.writers.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Makes it durable if that can be done at once, in a place that was entered for it. False if the store has to be
    /// waited for.
    pub(super) fn keep(&self, place: usize, settled: &Settled) -> bool {
        match self {
            Self::Never => true,
            Self::Tail(tail) => tail.append(place, settled),
            Self::Store => false,
        }
    }

    pub(super) fn tail(&self) -> Option<&Tail> {
        match self {
            Self::Tail(tail) => Some(tail),
            Self::Never | Self::Store => None,
        }
    }
}

impl Tail {
    /// Beside a ledger's file, which is locked, and has all that stands there.
    pub(super) fn open(path: &Path, ledger: i64) -> io::Result<Self> {
        let open = |name: &str| {
            let mut options = File::options();
            let file = options.create(true).write(true).truncate(true);
            let file = file.open(beside(path, name))?;
            Ok::<_, io::Error>(Place {
                file,
                end: AtomicU64::new(0),
                writers: AtomicUsize::new(0),
            })
        };
        let [first, second] = PLACES;
        Ok(Self {
            ledger,
            places: [open(first)?, open(second)?],
            began: now(),
            rests_until: AtomicU64::new(0),
        })
    }

    /// Appends what was settled to a place, which was entered for it. False if it does not stand there now.
    fn append(&self, place: usize, settled: &Settled) -> bool {
        let Some(place) = self.places.get(place) else {
            return false;
        };
        let is_written = self.write(place, settled);
        place.writers.fetch_sub(1, Ordering::Release);
        is_written
    }

    fn write(&self, Place { file, end, .. }: &Place, settled: &Settled) -> bool {
        let since = |moment: Instant| {
            let since = moment.saturating_duration_since(self.began);
            u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
        };
        let start = now();
        if since(start) < self.rests_until.load(Ordering::Relaxed) {
            return false;
        }
        // Between breaks, so that it is whole whatever stands before and behind it.
        let mut line = Vec::with_capacity(768);
        line.push(b'\n');
        if serde_json::to_writer(&mut line, &written(self.ledger, settled)).is_err() {
            return false;
        }
        line.push(b'\n');
        let at = end.fetch_add(line.len() as u64, Ordering::Relaxed);
        let is_written = file.write_all_at(&line, at).is_ok();
        if start.elapsed() > SLOW {
            let until = since(start + REST);
            self.rests_until.store(until, Ordering::Relaxed);
        }
        is_written
    }

    /// Whether so much stands in a place that it should be left.
    pub(super) fn is_full(&self, place: usize) -> bool {
        let end = self.places.get(place).map(|place| &place.end);
        end.is_some_and(|end| end.load(Ordering::Relaxed) >= FULL)
    }

    /// Begins a place anew that was left, and of which all stands in the ledger's file. False if it cannot be yet.
    pub(super) fn rewind(&self, place: usize) -> bool {
        let place = self.places.get(place);
        let place = place.filter(|place| place.writers.load(Ordering::Acquire) == 0);
        place
            .inspect(|place| place.end.store(0, Ordering::Relaxed))
            .is_some()
    }

    /// Empties both.
    pub(super) fn clear(&self) -> io::Result<()> {
        for Place { file, end, .. } in &self.places {
            end.store(0, Ordering::Relaxed);
            file.set_len(0)?;
        }
        Ok(())
    }
}

#[allow(
    clippy::disallowed_methods,
    reason = "how long a write took can only be measured where it is done"
)]
fn now() -> Instant {
    Instant::now()
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}

/// Why what stands beside a ledger's file was not read.
#[derive(Debug)]
pub(super) enum Unread {
    /// It is another ledger's.
    Foreign(PathBuf),
    /// It cannot be read.
    Io(PathBuf, io::Error),
}

/// What stands beside a ledger's file after a number, in order. `ledger` is none for a file that is new: whatever stands
/// beside it is another's.
pub(super) fn read(
    path: &Path,
    ledger: Option<i64>,
    after: u64,
) -> Result<Vec<Arc<Settled>>, Unread> {
    let mut found = Vec::new();
    for name in PLACES {
        let place = beside(path, name);
        let text = match text(&place) {
            Ok(text) => text,
            Err(why) if why.kind() == io::ErrorKind::NotFound => continue,
            Err(why) => return Err(Unread::Io(place, why)),
        };
        for line in text.split(|byte| *byte == b'\n') {
            let Ok(line) = serde_json::from_slice::<Line<Vec<Try<'_>>, Vec<Less<'_>>>>(line) else {
                continue;
            };
            if line.1 != line.5 {
                continue;
            }
            if Some(line.0) != ledger {
                return Err(Unread::Foreign(place));
            }
            found.push(Arc::new(settled(line)));
        }
    }
    found.retain(|settled| settled.number > after);
    found.sort_by_key(|settled| settled.number);
    Ok(found)
}

/// What a line says, by position, for names would make more than half of it: which ledger's it is, the number, the hour,
/// the tries, what the store is to lower, and the number again: what is half a new line and half an older one has two.
type Line<T, C> = (i64, u64, i64, T, C, u64);

/// An [`Entry`], in the order of its members.
type Try<'a> = (
    Cow<'a, str>,
    u32,
    u64,
    Cow<'a, str>,
    Cow<'a, str>,
    Option<Cow<'a, str>>,
    Cow<'a, str>,
    Cow<'a, str>,
    Cow<'a, str>,
    Option<([u64; KINDS.len()], Option<u64>)>,
    Option<u64>,
    bool,
    Cow<'a, str>,
    Cow<'a, str>,
);

/// A [`Cut`], in the order of its members.
type Less<'a> = (u8, Cow<'a, str>, i64, u64);

/// A list of which each item is written as something else.
struct Each<'a, T, W>(&'a [T], fn(&'a T) -> W);

impl<T, W: Serialize> Serialize for Each<'_, T, W> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_seq(self.0.iter().map(self.1))
    }
}

fn written(ledger: i64, settled: &Settled) -> impl Serialize {
    let tries = Each(&settled.entries, |entry| {
        let since = entry.at.duration_since(UNIX_EPOCH).unwrap_or_default();
        let usage = entry.usage.as_ref();
        let line: Try<'_> = (
            Cow::Borrowed(&entry.request),
            entry.attempt,
            u64::try_from(since.as_millis()).unwrap_or(u64::MAX),
            Cow::Borrowed(&entry.api),
            Cow::Borrowed(&entry.key),
            entry.team.as_deref().map(Cow::Borrowed),
            Cow::Borrowed(&entry.model),
            Cow::Borrowed(&entry.target),
            Cow::Borrowed(&entry.provider),
            usage.map(|usage| (usage.counts(), usage.cost.map(|cost| cost.0))),
            entry.cost.map(|cost| cost.0),
            entry.estimated,
            Cow::Borrowed(&entry.end),
            Cow::Borrowed(&entry.prices),
        );
        line
    });
    let cuts = Each(&settled.cuts, |cut| {
        let line: Less<'_> = (
            cut.scope as u8,
            Cow::Borrowed(&cut.name),
            cut.start,
            cut.amount,
        );
        line
    });
    let number = settled.number;
    let line: Line<_, _> = (ledger, number, settled.hour, tries, cuts, number);
    line
}

fn settled((_, number, hour, tries, cuts, _): Line<Vec<Try<'_>>, Vec<Less<'_>>>) -> Settled {
    let shared = |text: Cow<'_, str>| Arc::from(&*text);
    let owned = |text: Cow<'_, str>| Cow::Owned(text.into_owned());
    let entries = tries.into_iter().map(|line| Entry {
        request: shared(line.0),
        attempt: line.1,
        at: UNIX_EPOCH + Duration::from_millis(line.2),
        api: owned(line.3),
        key: shared(line.4),
        team: line.5.map(shared),
        model: shared(line.6),
        target: shared(line.7),
        provider: shared(line.8),
        usage: line
            .9
            .map(|(counts, cost)| Usage::of(counts, cost.map(Money))),
        cost: line.10.map(Money),
        estimated: line.11,
        end: owned(line.12),
        prices: shared(line.13),
    });
    let cuts = cuts.into_iter().filter_map(|(scope, name, start, amount)| {
        Some(Cut {
            scope: *Scope::ALL.get(usize::from(scope))?,
            name: shared(name),
            start,
            amount,
        })
    });
    Settled {
        number,
        hour,
        entries: entries.collect(),
        cuts: cuts.collect(),
        ..Settled::default()
    }
}

fn text(place: &Path) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    File::open(place)?.take(MOST).read_to_end(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use smallvec::SmallVec;

    use super::super::tests::{entry, folder};
    use super::*;

    fn settled(number: u64) -> Settled {
        let cut = Cut {
            scope: Scope::Key,
            name: "a\"nn\n".into(),
            start: -259_200,
            amount: 7,
        };
        Settled {
            number,
            entries: SmallVec::from_iter([entry(number)]),
            hour: 474_780,
            cuts: SmallVec::from_iter([cut]),
            ..Settled::default()
        }
    }

    fn numbers(path: &Path, after: u64) -> Vec<u64> {
        let found = read(path, Some(9), after).unwrap();
        found.iter().map(|settled| settled.number).collect()
    }

    fn append(tail: &Tail, place: usize, number: u64) {
        tail.places[place].writers.fetch_add(1, Ordering::Relaxed);
        assert!(tail.append(place, &settled(number)));
    }

    #[test]
    fn what_is_appended_is_read_in_order_and_only_what_is_missing() {
        let folder = folder();
        let path = folder.path().join("ledger.db");
        let tail = Tail::open(&path, 9).unwrap();
        for number in [3, 1, 2] {
            append(&tail, usize::from(number == 1), number);
        }
        assert_eq!(numbers(&path, 0), [1, 2, 3]);
        assert_eq!(numbers(&path, 2), [3]);
        let found = read(&path, Some(9), 0).unwrap();
        assert_eq!(format!("{:?}", found[0]), format!("{:?}", settled(1)));
        // Two lines stand there, of which one is written over.
        assert!(tail.rewind(0));
        append(&tail, 0, 4);
        assert_eq!(numbers(&path, 0), [1, 2, 4]);
        tail.places[0].writers.fetch_add(1, Ordering::Relaxed);
        assert!(!tail.rewind(0), "someone is about to write there");
        tail.clear().unwrap();
        assert_eq!(numbers(&path, 0), [0_u64; 0]);
    }

    /// One line, as it stands in a file.
    fn line(number: u64) -> Vec<u8> {
        let folder = folder();
        let path = folder.path().join("ledger.db");
        append(&Tail::open(&path, 9).unwrap(), 0, number);
        text(&beside(&path, PLACES[0])).unwrap()
    }

    #[test]
    fn a_line_that_is_cut_short_spoils_no_other_wherever_it_is_cut() {
        let folder = folder();
        let path = folder.path().join("ledger.db");
        let reads = |bytes: Vec<u8>| {
            std::fs::write(beside(&path, PLACES[0]), bytes).unwrap();
            numbers(&path, 0)
        };
        let (one, two, older) = (line(1), line(2), line(1_000_000));
        for at in 0..one.len() - 1 {
            let (cut, rest) = (&one[..at], &older[at.min(older.len())..]);
            assert_eq!(reads([&two, cut, &two].concat()), [2, 2]);
            assert_eq!(reads([cut, &two].concat()), [2]);
            // Written over an older one as far as that: it is the older one, or none.
            let found = reads([cut, rest].concat());
            assert!(found.is_empty() || found == [1_000_000], "{at}: {found:?}");
            assert_eq!(reads([&one, rest].concat())[0], 1);
        }
    }

    #[test]
    fn what_is_another_ledgers_is_left_alone() {
        let folder = folder();
        let path = folder.path().join("ledger.db");
        append(&Tail::open(&path, 8).unwrap(), 1, 1);
        for ledger in [Some(9), None] {
            let Err(Unread::Foreign(place)) = read(&path, ledger, 0) else {
                panic!("it was taken for ours");
            };
            assert!(place.ends_with("ledger.db.tail1"), "{place:?}");
        }
    }
}
