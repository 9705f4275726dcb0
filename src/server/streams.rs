//! The streams of one connection of HTTP/2: each is a task, and none outlives the connection.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll};

use hyper::rt::Executor;
use tokio::task::JoinSet;

use super::pulse::{Flow, Pulse};

/// The tasks. They end when this is dropped.
#[derive(Default)]
pub(super) struct Streams(Arc<Mutex<JoinSet<()>>>);

impl Streams {
    /// What begins a task for each stream.
    pub(super) fn spawner(&self, pulse: Arc<Pulse>) -> Spawner {
        Spawner {
            tasks: Arc::downgrade(&self.0),
            pulse,
        }
    }
}

/// Begins tasks. hyper gives each of them a copy, so it must not keep them alive.
#[derive(Clone)]
pub(super) struct Spawner {
    tasks: Weak<Mutex<JoinSet<()>>>,
    pulse: Arc<Pulse>,
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Spawner {
    fn execute(&self, inner: F) {
        let Some(tasks) = self.tasks.upgrade() else {
            return;
        };
        let task = Task {
            inner: Box::pin(inner),
            // hyper asks the service and begins the task in one go, so the newest answer is this one's.
            flow: self.pulse.newest(),
        };
        let mut tasks = tasks.lock().unwrap_or_else(PoisonError::into_inner);
        while tasks.try_join_next().is_some() {}
        tasks.spawn(task);
    }
}

/// A stream, until it ends or its client has left it for too long. hyper resets a stream whose task is dropped.
struct Task<F> {
    inner: Pin<Box<F>>,
    flow: Option<Arc<Flow>>,
}

impl<F: Future<Output = ()>> Future for Task<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(flow) = &self.flow {
            if flow.is_left() {
                return Poll::Ready(());
            }
            // Before it is polled: whoever wakes from here on finds the task.
            flow.answered_by(cx.waker());
        }
        self.inner.as_mut().poll(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tokio::sync::oneshot;
    use tokio::time::Instant;

    #[tokio::test(start_paused = true)]
    async fn no_task_outlives_the_connection() {
        let pulse = Pulse::new(Instant::now());
        let streams = Streams::default();
        let spawner = streams.spawner(pulse);
        let (held, dropped) = oneshot::channel::<()>();
        let kept = spawner.clone();
        spawner.execute(async move {
            let _held = (held, kept);
            std::future::pending::<()>().await;
        });
        tokio::task::yield_now().await;
        drop(streams);
        assert!(dropped.await.is_err());
        let (held, dropped) = oneshot::channel::<()>();
        spawner.execute(async move { drop(held) });
        assert!(dropped.await.is_err(), "too late to begin one");
    }

    #[tokio::test(start_paused = true)]
    async fn tasks_that_ended_are_forgotten() {
        let streams = Streams::default();
        let spawner = streams.spawner(Pulse::new(Instant::now()));
        for _ in 0..10 {
            spawner.execute(async {});
            tokio::task::yield_now().await;
        }
        assert_eq!(streams.0.lock().unwrap().len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_is_woken_when_asked_and_ends_when_its_client_leaves() {
        let (times, pulse) = (
            crate::server::Times {
                header: Duration::from_secs(10),
                idle: Duration::from_secs(120),
                write: Duration::from_secs(60),
            },
            Pulse::new(Instant::now()),
        );
        pulse.share();
        let streams = Streams::default();
        let spawner = streams.spawner(Arc::clone(&pulse));
        let busy = pulse.busy();
        let polls = Arc::new(());
        let seen = Arc::clone(&polls);
        let mut held = Vec::new();
        spawner.execute(std::future::poll_fn(move |_| {
            held.push(Arc::clone(&seen));
            Poll::Pending
        }));
        tokio::task::yield_now().await;
        assert_eq!(Arc::strong_count(&polls), 3, "it was polled once");
        pulse.wake();
        tokio::task::yield_now().await;
        assert_eq!(Arc::strong_count(&polls), 4, "and once more");
        busy.hands_over();
        let late = Instant::now() + Duration::from_secs(60);
        assert!(pulse.check(times, late).is_ok());
        tokio::task::yield_now().await;
        assert_eq!(Arc::strong_count(&polls), 1, "it is gone");
    }
}
