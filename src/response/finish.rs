//! Who reads on where the client has left? A bounded finisher, for the usage at the end of an answer.
//!
//! Each worker has its own, since the connections to providers belong to its runtime; how many requests all of them read
//! on together is bounded. Shutdown waits for them as for answers under way; what is cut then, or by its own time, enters
//! what is known by being dropped.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::Closing;
use crate::admission::InFlight;

/// So many are read on at once, over all workers. Beyond that a client that leaves stops its provider.
const MOST: usize = 1_000;

/// Reads on what clients have left.
#[derive(Default)]
pub struct Finisher {
    closing: Closing,
    /// Those of all workers.
    under_way: InFlight,
    tasks: Mutex<JoinSet<()>>,
}

impl Finisher {
    /// One worker's. `under_way` counts what all of them read on.
    pub fn new(closing: Closing, under_way: InFlight) -> Self {
        Self {
            closing,
            under_way,
            tasks: Mutex::default(),
        }
    }

    /// Says when time is up.
    pub fn closing(&self) -> &Closing {
        &self.closing
    }

    /// Goes on with this for so long. Where there is no room or no time for it, it is dropped at once.
    pub fn take(&self, most: Duration, rest: impl Future<Output = ()> + Send + 'static) {
        // Without a runtime there is nobody to go on.
        let Ok(runtime) = Handle::try_current() else {
            return;
        };
        if self.closing.is_closed() {
            return;
        }
        let Ok(place) = self.under_way.enter(MOST) else {
            return;
        };
        let mut tasks = self.tasks();
        while tasks.try_join_next().is_some() {}
        let task = async move {
            // Given back after `rest` has been dropped, which enters what it knows.
            let _place = place;
            let _ = timeout(most, rest).await;
        };
        tasks.spawn_on(task, &runtime);
    }

    /// Ends whatever goes on.
    pub async fn close(&self) {
        let mut tasks = std::mem::take(&mut *self.tasks());
        tasks.shutdown().await;
    }

    fn tasks(&self) -> MutexGuard<'_, JoinSet<()>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::pending;
    use std::sync::Arc;

    const LONG: Duration = Duration::from_secs(600);

    /// Something to go on with that never ends, and what shows whether anybody still does.
    fn endless() -> (Arc<()>, impl Future<Output = ()> + Send + 'static) {
        let shown = Arc::new(());
        let held = Arc::clone(&shown);
        let rest = async move {
            pending::<()>().await;
            drop(held);
        };
        (shown, rest)
    }

    fn is_dropped(shown: &Arc<()>) -> bool {
        Arc::strong_count(shown) == 1
    }

    #[tokio::test(start_paused = true)]
    async fn it_takes_so_many_over_all_workers_and_no_more() {
        let under_way = InFlight::default();
        let workers = [(); 2].map(|()| Finisher::new(Closing::default(), under_way.clone()));
        for n in 0..MOST {
            workers[n % 2].take(LONG, pending());
        }
        let (shown, rest) = endless();
        workers[0].take(LONG, rest);
        assert!(is_dropped(&shown), "there is no room for it");
        assert_eq!(under_way.count(), MOST);
        workers[1].close().await;
        assert_eq!(under_way.count(), MOST / 2);
        let (shown, rest) = endless();
        workers[0].take(LONG, rest);
        assert!(!is_dropped(&shown), "there is room again");
        workers[0].close().await;
        assert!(is_dropped(&shown) && under_way.count() == 0);
    }

    #[tokio::test(start_paused = true)]
    async fn it_goes_on_for_so_long_and_no_longer() {
        let finisher = Finisher::default();
        let (shown, rest) = endless();
        finisher.take(Duration::from_secs(10), rest);
        tokio::time::sleep(Duration::from_secs(9)).await;
        assert!(!is_dropped(&shown));
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert!(is_dropped(&shown) && finisher.under_way.count() == 0);
    }

    #[tokio::test]
    async fn it_takes_nothing_once_time_is_up() {
        let finisher = Finisher::default();
        finisher.closing.close();
        let (shown, rest) = endless();
        finisher.take(LONG, rest);
        assert!(is_dropped(&shown));
    }

    #[test]
    fn it_takes_nothing_where_nobody_could_go_on() {
        let (shown, rest) = endless();
        Finisher::default().take(LONG, rest);
        assert!(is_dropped(&shown));
    }
}
