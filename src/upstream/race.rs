//! Which of several addresses answers first? RFC 8305, section 5.

use std::future::poll_fn;
use std::io;
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use tokio::time::{Instant, sleep};

/// How long an address is tried before the next is tried beside it.
const HEAD_START: Duration = Duration::from_millis(250);

/// Connects to the first address that lets itself be connected to. The next is tried when one has failed, or has said
/// nothing for a while; the first to connect wins, and the others are dropped. Fails with the last failure.
pub(super) async fn race<S, F>(
    addresses: Vec<IpAddr>,
    connect: impl Fn(IpAddr) -> F,
) -> io::Result<S>
where
    F: Future<Output = io::Result<S>>,
{
    let mut waiting = addresses.into_iter();
    let mut runners: Vec<Pin<Box<F>>> = Vec::new();
    let mut head_start = pin!(sleep(HEAD_START));
    let mut failure = None;
    poll_fn(|cx| {
        loop {
            let running = runners.len();
            let mut n = 0;
            while let Some(runner) = runners.get_mut(n) {
                match runner.as_mut().poll(cx) {
                    Poll::Ready(Ok(stream)) => return Poll::Ready(Ok(stream)),
                    Poll::Ready(Err(error)) => {
                        failure = Some(error);
                        drop(runners.remove(n));
                    }
                    Poll::Pending => n += 1,
                }
            }
            let may_start = runners.len() < running
                || runners.is_empty()
                || (waiting.len() > 0 && head_start.as_mut().poll(cx).is_ready());
            let next = if may_start { waiting.next() } else { None };
            match next {
                Some(address) => {
                    runners.push(Box::pin(connect(address)));
                    head_start.as_mut().reset(Instant::now() + HEAD_START);
                }
                None if runners.is_empty() => {
                    let none = || io::Error::new(io::ErrorKind::NotFound, "it has no address");
                    return Poll::Ready(Err(failure.take().unwrap_or_else(none)));
                }
                None => return Poll::Pending,
            }
        }
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    /// What an address does: connects or fails after so many milliseconds.
    type Does = (u64, Result<(), &'static str>);

    /// Who won, when, and which were tried when.
    async fn run(script: &[Does]) -> (Result<usize, String>, u128, Vec<(usize, u128)>) {
        let began = Instant::now();
        let tried = Mutex::new(Vec::new());
        let number = |address: IpAddr| match address {
            IpAddr::V4(four) => usize::from(four.octets()[3]),
            IpAddr::V6(_) => panic!(),
        };
        let all = (0..script.len()).map(|n| IpAddr::from([127, 0, 0, u8::try_from(n).unwrap()]));
        let won = race(all.collect(), |address| {
            let n = number(address);
            tried.lock().unwrap().push((n, began.elapsed().as_millis()));
            let (after, does) = script[n];
            async move {
                sleep(Duration::from_millis(after)).await;
                does.map(|()| n).map_err(io::Error::other)
            }
        });
        let won = won.await.map_err(|e| e.to_string());
        (
            won,
            began.elapsed().as_millis(),
            tried.into_inner().unwrap(),
        )
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_to_connect_wins() {
        const DEAD: Does = (60_000, Err("dead"));
        let (won, after, tried) = run(&[(100, Ok(())), DEAD]).await;
        assert_eq!((won, after, tried), (Ok(0), 100, vec![(0, 0)]));

        let (won, after, tried) = run(&[DEAD, (10, Ok(()))]).await;
        assert_eq!((won, after, tried), (Ok(1), 260, vec![(0, 0), (1, 250)]));

        let (won, after, _) = run(&[(300, Ok(())), (500, Ok(()))]).await;
        assert_eq!((won, after), (Ok(0), 300), "the first is not given up");

        let (won, after, tried) = run(&[DEAD, DEAD, (10, Ok(()))]).await;
        assert_eq!((won, after), (Ok(2), 510));
        assert_eq!(tried, [(0, 0), (1, 250), (2, 500)]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_starts_the_next_at_once() {
        let refused = (0, Err("refused"));
        let (won, after, tried) = run(&[refused, refused, (10, Ok(()))]).await;
        assert!(after <= 15, "{after}");
        assert_eq!((won, tried.len()), (Ok(2), 3));

        let (won, after, _) = run(&[(100, Err("first")), (0, Err("second"))]).await;
        assert_eq!(won, Err("second".into()));
        assert!(after <= 105, "{after}");

        let (won, ..) = run(&[]).await;
        assert_eq!(won, Err("it has no address".into()));
    }
}
