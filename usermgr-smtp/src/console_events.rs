//! Events on standard output.

use async_trait::async_trait;
use tokio::io::AsyncWriteExt as _;
use usermgr_core::domain::event::Event;
use usermgr_core::port::events::{EventPublisher, PublishError};

/// Prints each event to standard output, as one line of JSON: for a first look and for development.
///
/// ```
/// use std::sync::Arc;
/// use usermgr_core::UserManager;
/// use usermgr_smtp::ConsoleEvents;
///
/// let builder = UserManager::builder().events(Arc::new(ConsoleEvents));
/// ```
#[derive(Debug, Clone, Copy, Default)]
#[expect(clippy::exhaustive_structs, reason = "it holds nothing")]
pub struct ConsoleEvents;

#[async_trait]
impl EventPublisher for ConsoleEvents {
    async fn publish(&self, event: &Event) -> Result<(), PublishError> {
        let mut line = serde_json::to_vec(event).map_err(PublishError::new)?;
        line.push(b'\n');
        let mut stdout = tokio::io::stdout();
        let written = async {
            stdout.write_all(&line).await?;
            stdout.flush().await
        };
        written.await.map_err(PublishError::new)
    }
}
