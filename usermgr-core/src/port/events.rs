//! Somebody to tell what happened.

use async_trait::async_trait;

use crate::domain::event::Event;

/// Takes the events of the domain to wherever the host wants them.
///
/// Events are written in the transaction of the change they tell of, so none is lost and none tells of what did not
/// happen. Each is published at least once: tell repeats by [`Event::id`]. Of one user they come one after the other, in
/// the order in which things happened: while one is not taken, what follows it waits. Events of different users come at
/// the same time.
///
/// ```
/// use async_trait::async_trait;
/// use usermgr_core::domain::event::{Event, EventKind};
/// use usermgr_core::port::events::{EventPublisher, PublishError};
///
/// # #[derive(Debug)]
/// # struct Pictures;
/// # impl Pictures { async fn remove_of(&self, _: usermgr_core::domain::id::UserId) -> Result<(), std::io::Error> { Ok(()) } }
/// /// Removes what we keep of users who are gone.
/// #[derive(Debug)]
/// struct Cleaner(Pictures);
///
/// #[async_trait]
/// impl EventPublisher for Cleaner {
///     async fn publish(&self, event: &Event) -> Result<(), PublishError> {
///         // Not yet at `UserDeleted`: until the grace is over, users may come back.
///         if event.kind == EventKind::UserPurged {
///             self.0.remove_of(event.user_id).await.map_err(PublishError::new)?;
///         }
///         Ok(())
///     }
/// }
/// ```
#[cfg_attr(feature = "testing", mockall::automock)]
#[async_trait]
pub trait EventPublisher: Send + Sync + std::fmt::Debug {
    /// Publishes one event.
    ///
    /// # Errors
    /// [`PublishError`] when the event was not taken; it is tried again, at first after seconds, in the end every quarter
    /// of an hour, until it is taken or too old to be kept
    /// ([`RetentionPolicy::events`](crate::policy::RetentionPolicy::events)).
    async fn publish(&self, event: &Event) -> Result<(), PublishError>;
}

/// An event that was not taken, with why.
#[derive(Debug, thiserror::Error)]
#[error("the event was not published")]
#[expect(clippy::exhaustive_structs, reason = "a publisher makes it of its own error")]
pub struct PublishError(#[source] pub Box<dyn std::error::Error + Send + Sync>);

impl PublishError {
    /// The event was not taken, with why.
    pub fn new(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self(source.into())
    }
}
