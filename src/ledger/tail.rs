//! What was settled and is not in the file yet? It stands in a small file beside it, so that it survives the process.
//!
//! To bring one request into the ledger's file costs as much as to bring in a hundred. So whoever settles adds one line
//! here, and the ledger's thread brings many of them into the file together, a moment later. Lines are gathered while
//! their thread has others to settle, and then written in one short write, on that thread. There are two files: while
//! one is written to, what stands in the other reaches the ledger's file; then they change places, and the other is
//! written over from its beginning, which is cheaper than a file that grows.
//!
//! A line has a number, and the ledger's file knows the number up to which it has them all: so whatever a crash leaves
//! here is entered once, and what is left of older lines not at all. What was cut short is no line, and was told to
//! nobody.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::item::Settled;
use super::line;

/// The places that lines are written to, in turn.
pub(super) const PLACES: [&str; 2] = [".tail0", ".tail1"];
/// In bytes: with this much in it a place is left for the other.
pub(super) const FULL: u64 = 1 << 20;
/// In bytes: more than this is in no tail of ours.
const MOST: u64 = 256 << 20;
/// In bytes: so much is gathered, and no more.
const GATHERED: usize = 64 << 10;
/// A disk that takes longer to take lines is not asked on the path for a while: the ledger's thread can wait for it.
/// Longer than a thread waits for its core on a busy machine, which is no fault of the disk's.
const SLOW: Duration = Duration::from_millis(50);
/// How long not.
const REST: Duration = Duration::from_secs(5);

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
    pub(super) fn tail(&self) -> Option<&Tail> {
        match self {
            Self::Tail(tail) => Some(tail),
            Self::Never | Self::Store => None,
        }
    }
}

/// Two files of lines.
#[derive(Debug)]
pub(super) struct Tail {
    /// Which ledger's.
    ledger: i64,
    lines: Mutex<Lines>,
}

#[derive(Debug)]
struct Lines {
    places: [Place; 2],
    /// Which of them is written to.
    place: usize,
    /// Lines that are yet to be written.
    gathered: Vec<u8>,
    /// The highest number among them.
    highest: u64,
    /// What they are known by.
    batch: Arc<Batch>,
    /// Until when nothing is taken.
    rests_until: Option<Instant>,
}

#[derive(Debug)]
struct Place {
    file: File,
    /// Where the next lines go.
    end: u64,
    /// The highest number that was written there since its beginning.
    highest: u64,
}

/// Lines that are written together.
#[derive(Debug, Default)]
pub(super) struct Batch(AtomicU8);

impl Batch {
    const WRITTEN: u8 = 1;
    const LOST: u8 = 2;

    /// Whether the lines stand in the file. None: it was not tried yet.
    pub(super) fn is_written(&self) -> Option<bool> {
        match self.0.load(Ordering::Acquire) {
            Self::WRITTEN => Some(true),
            Self::LOST => Some(false),
            _ => None,
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
                end: 0,
                highest: 0,
            })
        };
        let [first, second] = PLACES;
        let lines = Lines {
            places: [open(first)?, open(second)?],
            place: 0,
            gathered: Vec::new(),
            highest: 0,
            batch: Arc::default(),
            rests_until: None,
        };
        Ok(Self {
            ledger,
            lines: Mutex::new(lines),
        })
    }

    fn lines(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gathers what was settled, to be written with others. None: nothing is taken at the moment.
    pub(super) fn gather(&self, settled: &Settled) -> Option<Arc<Batch>> {
        let mut lines = self.lines();
        if lines.rests_until.is_some_and(|until| now() < until) {
            return None;
        }
        lines.rests_until = None;
        // Between breaks, so that it is whole whatever stands before and behind it. What could not be written whole is no
        // line.
        lines.gathered.push(b'\n');
        line::write(self.ledger, settled, &mut lines.gathered).ok()?;
        lines.gathered.push(b'\n');
        lines.highest = lines.highest.max(settled.number);
        let batch = Arc::clone(&lines.batch);
        if lines.gathered.len() >= GATHERED {
            lines.write();
        }
        Some(batch)
    }

    /// Sees to it that lines which were gathered are written. False if they could not be.
    pub(super) fn write(&self, batch: &Batch) -> bool {
        if let Some(is_written) = batch.is_written() {
            return is_written;
        }
        let mut lines = self.lines();
        // Another thread may have been here.
        if batch.is_written().is_none() {
            lines.write();
        }
        batch.is_written().unwrap_or_default()
    }

    /// Once all up to a number stands in the ledger's file: leaves a place that is full for the other, if nothing in that
    /// is missing there.
    pub(super) fn turn(&self, written: u64) {
        let lines = &mut *self.lines();
        let [first, second] = &mut lines.places;
        let (this, other) = match lines.place {
            0 => (first, second),
            _ => (second, first),
        };
        if this.end >= FULL && other.highest <= written {
            (other.end, other.highest) = (0, 0);
            lines.place = 1 - lines.place;
        }
    }

    /// Empties both: all that was gathered or written stands in the ledger's file.
    pub(super) fn clear(&self) -> io::Result<()> {
        let mut lines = self.lines();
        lines.gathered.clear();
        lines.over(Batch::WRITTEN);
        for place in &mut lines.places {
            (place.end, place.highest) = (0, 0);
            place.file.set_len(0)?;
        }
        Ok(())
    }

    /// From now on nothing is taken.
    #[cfg(test)]
    pub(super) fn refuse(&self) {
        self.lines().rests_until = Some(now() + Duration::from_secs(86_400));
    }
}

impl Lines {
    /// Writes what was gathered, in one write.
    fn write(&mut self) {
        let start = now();
        let is_written = self.places.get_mut(self.place).is_some_and(|place| {
            place.highest = place.highest.max(self.highest);
            let is_written = place.file.write_all_at(&self.gathered, place.end).is_ok();
            place.end += self.gathered.len() as u64;
            is_written
        });
        self.gathered.clear();
        if start.elapsed() > SLOW {
            self.rests_until = Some(start + REST);
        }
        self.over(if is_written {
            Batch::WRITTEN
        } else {
            Batch::LOST
        });
    }

    /// Whoever waits for these lines knows what has become of them; the next are others.
    fn over(&mut self, what: u8) {
        self.batch.0.store(what, Ordering::Release);
        self.batch = Arc::default();
        self.highest = 0;
    }
}

#[allow(
    clippy::disallowed_methods,
    reason = "how long a write took can only be measured where it is done"
)]
fn now() -> Instant {
    Instant::now()
}

/// A file beside a ledger's.
pub(super) fn beside(path: &Path, ending: &str) -> PathBuf {
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
            match line::read(line) {
                Some((whose, _)) if Some(whose) != ledger => return Err(Unread::Foreign(place)),
                Some((_, settled)) => found.push(Arc::new(settled)),
                None => {}
            }
        }
    }
    found.retain(|settled| settled.number > after);
    found.sort_by_key(|settled| settled.number);
    Ok(found)
}

fn text(place: &Path) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    File::open(place)?.take(MOST).read_to_end(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use smallvec::SmallVec;

    use super::super::Scope;
    use super::super::book::Cut;
    use super::super::tests::{entry, folder};
    use super::*;

    fn settled(number: u64) -> Settled {
        let cut = Cut {
            spent: 0,
            scope: Scope::Key,
            name: "a\"nn\n".into(),
            start: -259_200,
            amount: 7,
        };
        let entries = SmallVec::from_iter([entry(number)]);
        Settled::of(number, 474_780, entries, SmallVec::from_iter([cut]))
    }

    fn numbers(path: &Path, after: u64) -> Vec<u64> {
        let found = read(path, Some(9), after).unwrap();
        found.iter().map(|settled| settled.number).collect()
    }

    fn append(tail: &Tail, number: u64) {
        let batch = tail.gather(&settled(number)).unwrap();
        assert_eq!(batch.is_written(), None);
        assert!(tail.write(&batch));
        assert!(tail.write(&batch), "once is enough");
    }

    #[test]
    fn what_is_written_is_read_in_order_and_only_what_is_missing() {
        let folder = folder();
        let path = folder.path().join("ledger.db");
        let tail = Tail::open(&path, 9).unwrap();
        let batches = [3, 1, 2].map(|number| tail.gather(&settled(number)).unwrap());
        assert_eq!(numbers(&path, 0), [0_u64; 0], "they are gathered");
        assert!(tail.write(&batches[1]));
        assert!(batches.iter().all(|batch| batch.is_written() == Some(true)));
        assert_eq!(numbers(&path, 0), [1, 2, 3]);
        assert_eq!(numbers(&path, 2), [3]);
        let found = read(&path, Some(9), 0).unwrap();
        assert_eq!(format!("{:?}", found[0]), format!("{:?}", settled(1)));
        append(&tail, 4);
        assert_eq!(numbers(&path, 0), [1, 2, 3, 4]);
        tail.gather(&settled(5)).unwrap();
        tail.clear().unwrap();
        append(&tail, 6);
        assert_eq!(numbers(&path, 0), [6]);
        tail.refuse();
        assert!(tail.gather(&settled(7)).is_none());
    }

    #[test]
    fn a_place_is_written_over_once_all_of_it_stands_in_the_file() {
        let folder = folder();
        let path = folder.path().join("ledger.db");
        let tail = Tail::open(&path, 9).unwrap();
        let place = || tail.lines().place;
        let fill = |from: u64| {
            let mut number = from;
            let start = place();
            while tail.lines().places[start].end < FULL {
                append(&tail, number);
                number += 1;
            }
            number - 1
        };
        let first = fill(1);
        tail.turn(0);
        assert_eq!(place(), 1, "nothing is missing of what stands in the other");
        let second = fill(first + 1);
        tail.turn(first - 1);
        assert_eq!(place(), 1, "one is missing");
        append(&tail, second + 1);
        tail.turn(first);
        assert_eq!(place(), 0);
        append(&tail, second + 2);
        let found = numbers(&path, first);
        assert!(
            found.iter().copied().eq(first + 1..=second + 2),
            "{found:?}"
        );
    }

    /// One line, as it stands in a file.
    fn line(number: u64) -> Vec<u8> {
        let folder = folder();
        let path = folder.path().join("ledger.db");
        append(&Tail::open(&path, 9).unwrap(), number);
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
        append(&Tail::open(&path, 8).unwrap(), 1);
        for ledger in [Some(9), None] {
            let Err(Unread::Foreign(place)) = read(&path, ledger, 0) else {
                panic!("it was taken for ours");
            };
            assert!(place.ends_with("ledger.db.tail0"), "{place:?}");
        }
    }
}
