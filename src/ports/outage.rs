//! Failures of the outside world, and how errors are displayed with their causes.

use std::{error::Error as StdError, fmt, time::Duration};

use thiserror::Error;

use super::TamperingError;
use crate::domain::{admission::retry_after_seconds, revocation::UnknownEntryError};

/// A failure of something outside the process: it was unreachable, too slow, or gave an answer that
/// can't be used. It names the operation; the cause is its `source`.
#[derive(Debug, Error)]
#[error("{operation} failed")]
pub struct Outage {
    /// The operation that failed, such as "commit".
    pub operation: &'static str,
    /// The cause.
    pub source: Box<dyn StdError + Send + Sync>,
}

/// The operation of an [`Outage`] that means that the store's schema is not the one that this
/// program needs.
pub const OP_CHECK_SCHEMA: &str = "check the store's schema";
/// The operation of an [`Outage`] that means that no signing key is active.
pub const OP_FIND_SIGNING_KEY: &str = "look for a signing key";

impl Outage {
    /// Returns the time after which a retry may succeed: that of the cause, or one second.
    #[must_use]
    pub fn retry_after(&self) -> Duration {
        let delayed = self.source.downcast_ref::<RetryLater>();
        delayed.map_or(Duration::from_secs(1), |delayed| delayed.retry_after)
    }

    /// Wraps a cause: `….map_err(Outage::during("commit"))?`.
    pub fn during<E: Into<Box<dyn StdError + Send + Sync>>>(operation: &'static str) -> impl FnOnce(E) -> Self {
        move |source| Self { operation, source: source.into() }
    }

    /// Returns the unknown log entry that caused the outage, if one did. Only an upgrade of this
    /// replica helps then.
    #[must_use]
    pub fn unknown_entry(&self) -> Option<&UnknownEntryError> {
        self.find_cause()
    }

    /// Returns the change of the store outside this program that caused the outage, if one did.
    /// Only an operator can help then.
    #[must_use]
    pub fn tampering(&self) -> Option<&TamperingError> {
        self.find_cause()
    }

    fn find_cause<E: StdError + 'static>(&self) -> Option<&E> {
        let mut cause: Option<&(dyn StdError + 'static)> = Some(&*self.source);
        while let Some(error) = cause {
            if let Some(found) = error.downcast_ref() {
                return Some(found);
            }
            cause = error.source();
        }
        None
    }
}

/// A cause that ends by itself at a known time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{reason}; retry after {} s", retry_after_seconds(self.retry_after))]
pub struct RetryLater {
    /// What can't be determined before.
    pub reason: &'static str,
    /// The time until then.
    pub retry_after: Duration,
}

/// Displays an error with all its causes on one line, outermost first, separated by `: `. A cause
/// that repeats the text before it is left out.
#[derive(Clone, Copy, Debug)]
pub struct ErrorChain<'a>(pub &'a (dyn StdError + 'static));

impl fmt::Display for ErrorChain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut written = self.0.to_string();
        f.write_str(&written)?;
        let mut next = self.0.source();
        while let Some(cause) = next {
            let text = cause.to_string();
            if text != written {
                write!(f, ": {text}")?;
            }
            (written, next) = (text, cause.source());
        }
        Ok(())
    }
}
