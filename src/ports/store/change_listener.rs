//! Hearing of what others have written, without asking all the time.

use async_trait::async_trait;

use crate::ports::Outage;

/// What somebody has written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notification {
    /// Entries of the log.
    Log,
    /// An acknowledgement: a replica has applied more of the log than before.
    Acknowledgement,
}

/// Waits for what others write. It may miss something, so nobody relies on it: it makes things quick, and no more.
#[async_trait]
pub trait ChangeListener: Send {
    /// What is heard next. After an error this one hears nothing any more.
    async fn recv(&mut self) -> Result<Notification, Outage>;
}
