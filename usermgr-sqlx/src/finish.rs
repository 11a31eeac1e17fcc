//! Steps that a dropped future must not leave half done.
//!
//! A client that hangs up drops the future of its command at whatever await it is in. Between commands that is harmless:
//! what was not committed is rolled back. Half way into a transaction it is not: the connection is left in a state that
//! nobody tracks, and the next user of the connection pays for it.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

/// Runs a future to its end, also when the returned future is dropped: then a task finishes it and drops its output.
///
/// Outside a runtime nothing can finish it, and it is dropped. So the caller still marks its state before the first await
/// and discards the connection when it finds the mark.
pub(crate) fn finish<T: Send + 'static, F>(future: F) -> Finish<T>
where
    F: Future<Output = T> + Send + 'static,
{
    Finish(Some(Box::pin(future)))
}

/// See [`finish`].
pub(crate) struct Finish<T: Send + 'static>(Option<Pin<Box<dyn Future<Output = T> + Send>>>);

impl<T: Send + 'static> Future for Finish<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        let Some(future) = self.0.as_mut() else { return Poll::Pending };
        let polled = future.as_mut().poll(context);
        if polled.is_ready() {
            self.0 = None;
        }
        polled
    }
}

impl<T: Send + 'static> Drop for Finish<T> {
    fn drop(&mut self) {
        if let Some(future) = self.0.take()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn(async { drop(future.await) });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::sync::Notify;

    use super::*;

    #[tokio::test]
    async fn a_dropped_future_is_finished_by_a_task() {
        let (go, done) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (told, tells) = (Arc::clone(&go), Arc::clone(&done));
        let mut steps = finish(async move {
            told.notified().await;
            tells.notify_one();
        });
        assert!(poll_once(&mut steps).await.is_none());
        drop(steps);
        go.notify_one();
        done.notified().await;
    }

    /// One poll.
    async fn poll_once<T>(future: &mut (impl Future<Output = T> + Unpin)) -> Option<T> {
        std::future::poll_fn(|context| {
            Poll::Ready(match Pin::new(&mut *future).poll(context) {
                Poll::Ready(output) => Some(output),
                Poll::Pending => None,
            })
        })
        .await
    }

    #[test]
    fn outside_a_runtime_the_future_is_dropped() {
        let held = Arc::new(());
        let inside = Arc::clone(&held);
        drop(finish(async move { drop(inside) }));
        assert_eq!(Arc::strong_count(&held), 1);
    }
}
