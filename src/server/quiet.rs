//! A future that is polled only when it has itself been woken.
//!
//! A task that waits for several things polls all of them whenever one of them stirs. A connection stirs at every
//! request, what watches over it hardly ever; to ask the watch each time would cost more than half a microsecond.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

/// Polls `F` only after it was woken.
pub(super) struct Quiet<F> {
    inner: Pin<Box<F>>,
    bell: Arc<Bell>,
    waker: Waker,
}

struct Bell {
    rang: AtomicBool,
    task: Mutex<Option<Waker>>,
}

impl<F: Future> Quiet<F> {
    pub(super) fn new(inner: F) -> Self {
        let bell = Arc::new(Bell {
            rang: AtomicBool::new(true),
            task: Mutex::default(),
        });
        Self {
            inner: Box::pin(inner),
            waker: Waker::from(Arc::clone(&bell)),
            bell,
        }
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.rang.store(true, Ordering::Release);
        let task = self
            .task
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        if let Some(task) = task {
            task.wake();
        }
    }
}

impl<F: Future> Future for Quiet<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        if !self.bell.rang.load(Ordering::Acquire) {
            return Poll::Pending;
        }
        // In this order: whoever rings from here on finds the task, and is seen at the next poll.
        *self
            .bell
            .task
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(cx.waker().clone());
        self.bell.rang.store(false, Ordering::Release);
        let this = &mut *self;
        this.inner
            .as_mut()
            .poll(&mut Context::from_waker(&this.waker))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;
    use tokio::sync::Notify;

    #[tokio::test]
    async fn it_is_asked_only_when_it_rang() {
        let polls = AtomicUsize::new(0);
        let bell = Notify::new();
        let mut inner = Box::pin(bell.notified());
        let mut quiet = Quiet::new(std::future::poll_fn(|cx| {
            polls.fetch_add(1, Ordering::SeqCst);
            inner.as_mut().poll(cx)
        }));
        for _ in 0..5 {
            let poll = std::future::poll_fn(|cx| Poll::Ready(Pin::new(&mut quiet).poll(cx))).await;
            assert!(poll.is_pending());
        }
        assert_eq!(polls.load(Ordering::SeqCst), 1);
        bell.notify_waiters();
        quiet.await;
        assert_eq!(polls.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn it_wakes_its_task() {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let mut waiting = tokio::task::JoinSet::new();
        waiting.spawn(Quiet::new(receiver));
        tokio::task::yield_now().await;
        sender.send(7).unwrap();
        assert_eq!(waiting.join_next().await.unwrap().unwrap(), Ok(7));
    }
}
