//! Paginated lists.

use std::time::Duration;

use thiserror::Error;

use crate::ports::Outage;

/// A request for one page of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageRequest {
    /// The `next` of the previous page.
    pub cursor: Option<String>,
    /// The maximum number of items, 1 to 1000.
    pub limit: u32,
}

/// A reason why a page could not be read.
#[derive(Debug, Error)]
pub enum ListError {
    /// The cursor is not the `next` of a page of this list: a mistake of the caller.
    #[error("`after` is not the `next` of a page of this list")]
    InvalidCursor,
    /// Reading the page took longer than a list may take.
    #[error("the list took longer than {} ms", .0.as_millis())]
    TimedOut(Duration),
    /// The list could not be read.
    #[error(transparent)]
    Outage(#[from] Outage),
}

/// One page of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T> {
    /// The items.
    pub items: Vec<T>,
    /// The cursor for the next page, if there may be one.
    pub next: Option<String>,
}
