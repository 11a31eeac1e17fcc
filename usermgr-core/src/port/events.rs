//! Somebody to tell what happened.

use async_trait::async_trait;

use crate::domain::event::Event;

/// Takes the events of the domain to wherever the host wants them.
///
/// Events are rows of the outbox, written in the transaction of the change they tell of, so none is lost and none
/// tells of what did not happen. Each is published at least once: tell repeats by [`Event::id`].
#[cfg_attr(feature = "testing", mockall::automock)]
#[async_trait]
pub trait EventPublisher: Send + Sync + std::fmt::Debug {
    /// Publishes one event.
    ///
    /// # Errors
    /// [`PublishError`] when the event was not taken; it is tried again later.
    async fn publish(&self, event: &Event) -> Result<(), PublishError>;
}

/// An event that was not taken, with why.
#[derive(Debug, thiserror::Error)]
#[error("the event was not published")]
pub struct PublishError(#[source] pub Box<dyn std::error::Error + Send + Sync>);
