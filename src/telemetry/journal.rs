//! A file of lines that does not grow for ever: once it is as long as it may be, it becomes the older one, and is begun anew.
//! Who moves it away themselves, as logrotate does, has it opened anew.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// So much is written at once at most, in bytes, but for a line that is longer.
const AT_ONCE: usize = 64 << 10;

/// A file that lines are added to.
#[derive(Debug)]
pub struct Journal {
    /// As the configuration calls it.
    name: &'static str,
    path: PathBuf,
    file: File,
    /// The most bytes. Zero: it is never begun anew by itself.
    most: u64,
    reopen: Reopen,
    /// How often that was asked for when it was opened last.
    seen: u64,
    /// What stands at its end is no whole line.
    is_torn: bool,
    /// How many lines were lost since one could be written.
    lost: u64,
}

/// Asks every journal that has it to open its file anew.
#[derive(Clone, Debug, Default)]
pub struct Reopen(Arc<AtomicU64>);

impl Reopen {
    /// Before the next lines are written.
    pub fn ask(&self) {
        self.0.fetch_add(1, Ordering::Release);
    }

    fn asked(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
}

impl Journal {
    /// Opens it, and adds to what is there. With more than `most` bytes it becomes `FILE.1`, in whose place it comes; what is
    /// no plain file never does. `name` is what the configuration calls it.
    pub fn open(name: &'static str, path: &Path, most: u64, reopen: Reopen) -> io::Result<Self> {
        let file = opened(path)?;
        Ok(Self {
            name,
            path: path.to_owned(),
            is_torn: is_torn(path, &file),
            file,
            most,
            seen: reopen.asked(),
            reopen,
            lost: 0,
        })
    }

    /// Adds lines, and says how many of them could not be written: they are lost.
    pub fn add(&mut self, lines: impl IntoIterator<Item = String>) -> u64 {
        self.look();
        let most = match self.file.metadata() {
            // Others may write to the same pipe: a short line goes there whole.
            Ok(it) if !it.is_file() => 0,
            _ if self.most == 0 => AT_ONCE,
            _ => AT_ONCE.min(usize::try_from(self.most).unwrap_or(AT_ONCE)),
        };
        let (mut text, mut lost) = (String::new(), 0);
        for line in lines {
            if text.len() + line.len() >= most {
                lost += self.put(&text);
                text.clear();
            }
            text.push_str(&line);
            text.push('\n');
        }
        lost + self.put(&text)
    }

    /// Opens the file anew if somebody asked for it. Where that fails, the one that is open goes on.
    fn look(&mut self) {
        let asked = self.reopen.asked();
        if asked == self.seen {
            return;
        }
        self.seen = asked;
        let begun = self.begin();
        let (name, file) = (self.name, self.path.display());
        match begun {
            Ok(()) => tracing::info!(%file, "[server] {name} is opened anew"),
            Err(error) => {
                tracing::error!(%file, %error, "[server] {name} cannot be opened anew; lines go to where they went before");
            }
        }
    }

    fn begin(&mut self) -> io::Result<()> {
        self.file = opened(&self.path)?;
        self.is_torn = is_torn(&self.path, &self.file);
        Ok(())
    }

    /// Writes whole lines, and says how many were lost. That any are is said once.
    fn put(&mut self, text: &str) -> u64 {
        if text.is_empty() {
            return 0;
        }
        let (written, outcome) = self.write(text.as_bytes());
        let (name, file) = (self.name, self.path.display());
        let Err(error) = outcome else {
            if self.lost > 0 {
                let lost = std::mem::take(&mut self.lost);
                tracing::info!(%file, lost, "[server] {name} is written again");
            }
            return 0;
        };
        let (whole, rest) = text.as_bytes().split_at(written);
        let torn = written - memchr::memrchr(b'\n', whole).map_or(0, |end| end + 1);
        let lost = memchr::memchr_iter(b'\n', rest).count() as u64;
        if self.lost == 0 {
            tracing::error!(%file, %error, "[server] {name} cannot be written; lines are lost until it can");
        }
        self.mend(torn);
        self.lost += lost;
        lost
    }

    /// As many bytes as could be written, and what came of the rest.
    fn write(&mut self, text: &[u8]) -> (usize, io::Result<()>) {
        if let Err(error) = self.turn(text.len()) {
            return (0, Err(error));
        }
        if self.is_torn {
            match self.file.write_all(b"\n") {
                Ok(()) => self.is_torn = false,
                Err(error) => return (0, Err(error)),
            }
        }
        let mut rest = text;
        while !rest.is_empty() {
            let written = match self.file.write(rest) {
                Ok(0) => Err(io::ErrorKind::WriteZero.into()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                other => other,
            };
            match written {
                Ok(written) => rest = rest.get(written..).unwrap_or_default(),
                Err(error) => return (text.len() - rest.len(), Err(error)),
            }
        }
        (text.len(), Ok(()))
    }

    /// Takes back the beginning of a line that has no end.
    fn mend(&mut self, torn: usize) {
        if torn == 0 {
            return;
        }
        let length = self.file.metadata().map(|it| it.len());
        let cut = length.and_then(|length| self.file.set_len(length.saturating_sub(torn as u64)));
        self.is_torn = cut.is_err();
    }

    /// Begins it anew if so many bytes more would be too many. How long it is, the file says: others may have cut it.
    fn turn(&mut self, more: usize) -> io::Result<()> {
        let own = self.file.metadata()?;
        if !own.is_file() || self.most == 0 || own.len() == 0 {
            return Ok(());
        }
        if own.len().saturating_add(more as u64) <= self.most {
            return Ok(());
        }
        // What somebody has moved away is theirs, and so is what may stand in its place.
        let there = std::fs::metadata(&self.path);
        if there.is_ok_and(|it| (it.dev(), it.ino()) == (own.dev(), own.ino())) {
            let mut older = self.path.clone().into_os_string();
            older.push(".1");
            std::fs::rename(&self.path, older)?;
        }
        self.begin()
    }
}

/// What is told of callers is for nobody else on this machine.
fn opened(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.create(true).append(true).mode(0o600);
    options.open(path)
}

/// Whether a process was ended in the middle of its last line. What cannot be read is taken for whole.
fn is_torn(path: &Path, file: &File) -> bool {
    let is_some = file.metadata().is_ok_and(|it| it.is_file() && it.len() > 0);
    let last = || -> io::Result<u8> {
        let (mut file, mut last) = (File::open(path)?, [0]);
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
        Ok(u8::from_be_bytes(last))
    };
    is_some && last().is_ok_and(|last| last != b'\n')
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    /// A journal in a folder of its own, and what asks it to open its file anew.
    fn journal(most: u64) -> (tempfile::TempDir, Journal, Reopen) {
        let (folder, reopen) = (tempfile::tempdir().unwrap(), Reopen::default());
        let path = folder.path().join("log");
        let journal = Journal::open("access_log", &path, most, reopen.clone()).unwrap();
        (folder, journal, reopen)
    }

    fn lines(numbers: std::ops::Range<u32>) -> impl Iterator<Item = String> {
        numbers.map(|n| n.to_string())
    }

    fn read(folder: &tempfile::TempDir, name: &str) -> String {
        std::fs::read_to_string(folder.path().join(name)).unwrap()
    }

    #[test]
    fn the_older_half_goes_when_it_is_full() {
        let (folder, mut journal, _) = journal(6);
        for n in 0..5 {
            assert_eq!(journal.add(lines(n..n + 1)), 0);
        }
        let both = |folder| (read(folder, "log.1"), read(folder, "log"));
        assert_eq!(both(&folder), ("0\n1\n2\n".into(), "3\n4\n".into()));
        drop(journal);
        let path = folder.path().join("log");
        let mut journal = Journal::open("access_log", &path, 6, Reopen::default()).unwrap();
        assert_eq!(journal.add(lines(5..7)), 0);
        assert_eq!(both(&folder), ("3\n4\n".into(), "5\n6\n".into()));
        // However many come together.
        assert_eq!(journal.add(lines(0..8)), 0);
        assert_eq!(both(&folder), ("3\n4\n5\n".into(), "6\n7\n".into()));
        journal.add([]);
        journal.add(["longer than it may be".into()]);
        assert_eq!(read(&folder, "log"), "longer than it may be\n");
    }

    #[test]
    fn without_a_bound_it_grows() {
        let (folder, mut journal, _) = journal(0);
        let long = "x".repeat(AT_ONCE);
        assert_eq!(journal.add(vec![long; 3]), 0);
        assert_eq!(read(&folder, "log").lines().count(), 3);
        assert!(!folder.path().join("log.1").exists());
    }

    #[test]
    fn who_moves_it_away_has_it_opened_anew() {
        let (folder, mut journal, reopen) = journal(1 << 20);
        let at = |name| folder.path().join(name);
        journal.add(lines(0..1));
        std::fs::rename(at("log"), at("moved")).unwrap();
        journal.add(lines(1..2));
        assert!(!at("log").exists(), "nobody has asked yet");
        reopen.ask();
        reopen.ask();
        journal.add([]);
        assert_eq!(read(&folder, "log"), "", "also without a line");
        journal.add(lines(2..3));
        assert_eq!(read(&folder, "moved"), "0\n1\n");
        assert_eq!(read(&folder, "log"), "2\n");
        let mode = std::fs::metadata(at("log")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        // Where it cannot be opened, lines go to where they went before.
        std::fs::rename(at("log"), at("moved")).unwrap();
        std::fs::create_dir(at("log")).unwrap();
        reopen.ask();
        assert_eq!(journal.add(lines(3..4)), 0);
        assert_eq!(read(&folder, "moved"), "2\n3\n");
    }

    #[test]
    fn what_was_moved_away_is_not_moved_once_more() {
        let (folder, mut journal, _) = journal(6);
        let at = |name| folder.path().join(name);
        journal.add(lines(0..3));
        std::fs::rename(at("log"), at("log.1")).unwrap();
        std::fs::write(at("log"), "").unwrap();
        assert_eq!(journal.add(lines(3..4)), 0);
        assert_eq!(read(&folder, "log.1"), "0\n1\n2\n", "it would be lost");
        assert_eq!(read(&folder, "log"), "3\n");
    }

    #[test]
    fn a_line_that_has_no_end_does_not_spoil_the_next() {
        let (folder, mut journal, reopen) = journal(0);
        std::fs::write(folder.path().join("log"), "{\"half").unwrap();
        reopen.ask();
        journal.add(lines(0..2));
        assert_eq!(read(&folder, "log"), "{\"half\n0\n1\n");
        // And is taken back where it can be.
        journal.file.write_all(b"{\"ha").unwrap();
        journal.mend(4);
        journal.add(lines(2..3));
        assert_eq!(read(&folder, "log"), "{\"half\n0\n1\n2\n");
    }

    #[test]
    fn what_cannot_be_written_is_counted() {
        let open = |path: &str| {
            let path = Path::new(path);
            Journal::open("access_log", path, 6, Reopen::default()).unwrap()
        };
        let mut full = open("/dev/full");
        assert_eq!(full.add(lines(0..5)), 5);
        assert_eq!(full.add(lines(0..1)), 1);
        assert_eq!(full.lost, 6);
        // What is no file is never moved away, however much has gone there.
        let mut nothing = open("/dev/null");
        assert_eq!(nothing.add(lines(0..9)), 0);
        assert!(Path::new("/dev/null").exists() && !Path::new("/dev/null.1").exists());
    }
}
