//! What takes longer than a second says so, to a person: on standard error if that is a terminal, and to nobody else.

use std::io::{self, IsTerminal as _, Write};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Between two words.
const PACE: Duration = Duration::from_secs(1);

/// Says how long something takes, until it is dropped.
pub(super) struct Progress(Option<(mpsc::Sender<()>, JoinHandle<()>)>);

impl Progress {
    /// Of what is being done: `copying the ledger`.
    pub(super) fn of(what: &str) -> Self {
        match io::stderr().is_terminal() {
            true => Self::on(io::stderr(), PACE, what),
            false => Self(None),
        }
    }

    fn on(terminal: impl Write + Send + 'static, pace: Duration, what: &str) -> Self {
        let (done, waits) = mpsc::channel();
        let what = what.to_owned();
        let told = std::thread::spawn(move || tell(terminal, pace, &what, &waits));
        Self(Some((done, told)))
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some((done, told)) = self.0.take() {
            drop(done);
            // The line is gone before whatever is said next.
            let _ = told.join();
        }
    }
}

fn tell(mut terminal: impl Write, pace: Duration, what: &str, waits: &mpsc::Receiver<()>) {
    #[expect(
        clippy::disallowed_methods,
        reason = "how long somebody waits is told by the real clock only"
    )]
    let began = Instant::now();
    let mut is_told = false;
    // A terminal that is gone is told nothing, and that is all.
    while waits.recv_timeout(pace) == Err(mpsc::RecvTimeoutError::Timeout) {
        is_told = true;
        let _ = write!(terminal, "\r{what} … {} s", began.elapsed().as_secs());
        let _ = terminal.flush();
    }
    if is_told {
        let _ = write!(terminal, "\r\x1b[K");
        let _ = terminal.flush();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Screen(Arc<Mutex<Vec<u8>>>);

    impl Write for Screen {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Screen {
        fn shows(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    #[test]
    fn what_takes_long_is_told_and_the_line_is_gone_after_it() {
        let screen = Screen::default();
        let progress = Progress::on(screen.clone(), Duration::from_millis(5), "copying");
        while !screen.shows().contains("\rcopying … 0 s") {
            std::thread::sleep(Duration::from_millis(1));
        }
        drop(progress);
        assert!(screen.shows().ends_with("\r\x1b[K"));
    }

    #[test]
    fn what_is_done_at_once_is_not_told() {
        let screen = Screen::default();
        drop(Progress::on(screen.clone(), PACE, "copying"));
        assert_eq!(screen.shows(), "");
    }
}
