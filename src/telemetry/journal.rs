//! A file of lines that does not grow for ever: once it is as long as it may be, it becomes the older one, and is begun anew.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

/// A file that lines are added to.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
    length: u64,
    most: u64,
    /// The last line could not be written, and that was said.
    is_stuck: bool,
}

impl Journal {
    /// Opens it, and adds to what is there. With more than `most` bytes it becomes `FILE.1`, in whose place it comes.
    pub fn open(path: &Path, most: u64) -> io::Result<Self> {
        let file = opened(path)?;
        Ok(Self {
            path: path.to_owned(),
            length: file.metadata()?.len(),
            file,
            most,
            is_stuck: false,
        })
    }

    /// Adds lines. What cannot be written is lost, and said once.
    pub fn add(&mut self, lines: &[String]) {
        let text: String = lines.iter().flat_map(|line| [line, "\n"]).collect();
        if text.is_empty() {
            return;
        }
        match self.write(&text) {
            Ok(()) => self.is_stuck = false,
            Err(error) if !self.is_stuck => {
                self.is_stuck = true;
                let file = self.path.display();
                tracing::error!(%file, %error, "the log of decisions cannot be written; what is decided meanwhile is not in it");
            }
            Err(_) => {}
        }
    }

    fn write(&mut self, text: &str) -> io::Result<()> {
        let length = text.len() as u64;
        if self.length > 0 && self.length.saturating_add(length) > self.most {
            let mut older = self.path.clone().into_os_string();
            older.push(".1");
            std::fs::rename(&self.path, older)?;
            self.file = opened(&self.path)?;
            self.length = 0;
        }
        self.file.write_all(text.as_bytes())?;
        self.length += length;
        Ok(())
    }
}

/// What is told of callers is for nobody else on this machine.
fn opened(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.create(true).append(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_older_half_goes_when_it_is_full() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let lines = |n: usize| vec![n.to_string()];
        let mut journal = Journal::open(&path, 6).unwrap();
        (0..5).for_each(|n| journal.add(&lines(n)));
        let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
        assert_eq!(
            (read("log.1"), read("log")),
            ("0\n1\n2\n".into(), "3\n4\n".into())
        );
        drop(journal);
        let mut journal = Journal::open(&path, 6).unwrap();
        (5..7).for_each(|n| journal.add(&lines(n)));
        assert_eq!(
            (read("log.1"), read("log")),
            ("3\n4\n5\n".into(), "6\n".into())
        );
        journal.add(&[]);
        journal.add(&["longer than it may be".into()]);
        assert_eq!(read("log"), "longer than it may be\n");
    }
}
