//! Places in lists, as text that a caller gives back: opaque to them, a JSON list in base64url for us.

use futures_util::{Stream, StreamExt};
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    domain::{decode_base64url, encode_base64url},
    ports::{ListError, Outage, Page, PageRequest},
};

/// How many items a page has.
pub(crate) fn clamp_limit(page: &PageRequest) -> i64 {
    i64::from(page.limit.clamp(1, 1000))
}

/// Where the page begins: after the place that was given, or, without one, at the start of the list.
pub(crate) fn parse_cursor<T: DeserializeOwned>(page: &PageRequest) -> Result<Option<T>, ListError> {
    let place = |text: &String| decode_base64url(text).and_then(|json| serde_json::from_slice(&json).ok());
    page.cursor.as_ref().map(|text| place(text).ok_or(ListError::InvalidCursor)).transpose()
}

/// How large a page is that holds what others wrote (bytes): it ends with the item that reaches this.
pub(crate) const MAX_PAGE_BYTES: usize = 4 << 20;

/// The rows of an answer up to [`PAGE_BYTES`], and whether that is where it was cut.
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

/// A page, with the place of its last item if it is full.
pub(crate) fn build_page<T, P: Serialize>(
    page: &PageRequest,
    items: Vec<T>,
    place: impl Fn(&T) -> P,
) -> Result<Page<T>, ListError> {
    build_truncated_page(page, (items, false), place)
}

/// The same, if it was [cut](cut) too.
pub(crate) fn build_truncated_page<T, P: Serialize>(
    page: &PageRequest,
    (items, is_cut): (Vec<T>, bool),
    place: impl Fn(&T) -> P,
) -> Result<Page<T>, ListError> {
    let full = is_cut || usize::try_from(clamp_limit(page)).is_ok_and(|limit| items.len() >= limit);
    let last = items.last().filter(|_| full);
    let next = last.map(|item| serde_json::to_vec(&place(item)).map(|json| encode_base64url(&json))).transpose();
    Ok(Page { next: next.map_err(Outage::during("write a cursor"))?, items })
}
