//! Pages of a list.

use serde::Serialize;

use crate::ports::Page;

/// A page of a list.
#[derive(Serialize)]
pub(in crate::http) struct ListView<T> {
    items: Vec<T>,
    /// The value of `after` for the next page; null on the last page.
    next: Option<String>,
}

impl<T> ListView<T> {
    pub(in crate::http) fn from_page<S>(page: Page<S>, view: impl Fn(S) -> T) -> Self {
        Self { items: page.items.into_iter().map(view).collect(), next: page.next }
    }

    pub(in crate::http) fn complete(items: Vec<T>) -> Self {
        Self { items, next: None }
    }
}
