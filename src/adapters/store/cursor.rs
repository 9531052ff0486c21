//! Pagination cursors: opaque to callers, a JSON list in base64url here.

use futures_util::{Stream, StreamExt};
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    domain::{decode_base64url, encode_base64url},
    ports::{ListError, Outage, Page, PageRequest},
};

/// Returns the number of items of a page, within its bounds.
pub(crate) fn clamp_limit(page: &PageRequest) -> i64 {
    i64::from(page.limit.clamp(1, 1000))
}

/// Returns the position after which the page begins; without one, the page begins at the start of
/// the list.
pub(crate) fn parse_cursor<T: DeserializeOwned>(page: &PageRequest) -> Result<Option<T>, ListError> {
    let parse = |text: &String| decode_base64url(text).and_then(|json| serde_json::from_slice(&json).ok());
    page.cursor.as_ref().map(|text| parse(text).ok_or(ListError::InvalidCursor)).transpose()
}

/// Returns the position after which a newest-first list begins: the cursor, or the first position
/// at the end of the time range, whichever is further down the list.
pub(crate) fn start_before<P: Ord>(cursor: P, before: Option<P>) -> P {
    match before {
        Some(before) => cursor.min(before),
        None => cursor,
    }
}

/// The size in bytes at which a page of caller-supplied content ends, with the item that reaches
/// it.
pub(crate) const MAX_PAGE_BYTES: usize = 4 << 20;

/// Reads rows up to [`MAX_PAGE_BYTES`], and returns whether that limit ended the page.
pub(crate) async fn truncate_at_bytes<T, E>(
    mut rows: impl Stream<Item = Result<T, E>> + Unpin,
    size: impl Fn(&T) -> usize,
) -> Result<(Vec<T>, bool), E> {
    let (mut taken, mut bytes) = (Vec::new(), 0);
    while let Some(row) = rows.next().await.transpose()? {
        bytes += size(&row);
        taken.push(row);
        if bytes >= MAX_PAGE_BYTES {
            return Ok((taken, true));
        }
    }
    Ok((taken, false))
}

/// Builds a page. A full page has the position of its last item as its cursor.
pub(crate) fn build_page<T, P: Serialize>(
    page: &PageRequest,
    items: Vec<T>,
    position: impl Fn(&T) -> P,
) -> Result<Page<T>, ListError> {
    build_truncated_page(page, (items, false), position)
}

/// Builds a page that [`truncate_at_bytes`] may have cut short.
pub(crate) fn build_truncated_page<T, P: Serialize>(
    page: &PageRequest,
    (items, is_truncated): (Vec<T>, bool),
    position: impl Fn(&T) -> P,
) -> Result<Page<T>, ListError> {
    let full = is_truncated || usize::try_from(clamp_limit(page)).is_ok_and(|limit| items.len() >= limit);
    let last = items.last().filter(|_| full);
    let next = last.map(|item| serde_json::to_vec(&position(item)).map(|json| encode_base64url(&json))).transpose();
    Ok(Page { next: next.map_err(Outage::during("write a cursor"))?, items })
}
