//! `GET /revocations`: the revocation log for those who check tokens offline; one part of it at a time, or as server-sent
//! events.

use std::{convert::Infallible, time::Duration};

use axum::{
    Json,
    extract::{RawQuery, State},
    http::{HeaderMap, HeaderName, HeaderValue, header},
    response::{
        IntoResponse, Response,
        sse::{Event, Sse},
    },
};
use futures_util::{Stream, stream};
use serde::Serialize;
use tokio::sync::mpsc;

use crate::{
    app::{FeedEvent, FeedPage, LONG_POLL_TIMEOUT, RequestError},
    domain::revocation::{LogPosition, feed::FeedEntry},
    http::{
        AppState,
        error::problem::Problem,
        extract::{auth::FeedSubscriber, query::Query},
        negotiation::accepts,
    },
};

/// Where it is served.
pub(super) const FEED_PATH: &str = "/revocations";
/// Where a stream was cut off, as its reader says.
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// After how many milliseconds the reader of a stream that ended comes again.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// `GET /revocations`
pub(super) async fn follow(
    State(app): State<AppState>,
    FeedSubscriber(listener, cx): FeedSubscriber,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let query = Query::parse(query.as_deref(), &["after", "wait"])?;
    let after = parse_position("after", query.text("after"))?;
    let wait = query.parse_value::<u64>("wait")?.map(Duration::from_secs);
    if wait.is_some_and(|wait| wait > LONG_POLL_TIMEOUT) {
        return Err(RequestError::InvalidParameter("wait", "must be 0 to 30 seconds").into());
    }
    if !accepts(&headers, "text/event-stream") {
        let page = app.service.read_feed_page(&listener, after, wait.unwrap_or_default(), &cx).await?;
        return Ok(Json(PageView::new(page)).into_response());
    }
    if wait.is_some() {
        return Err(RequestError::InvalidParameter("wait", "is for answers in JSON; a stream waits anyway").into());
    }
    // A reader that comes again repeats its URL, and says where it was in the header.
    let last = headers.get(LAST_EVENT_ID).map(|value| value.to_str().unwrap_or("?"));
    let after = parse_position("last-event-id", last)?.or(after);
    let said = app.service.open_feed_stream(listener, after, cx).await?;
    let mut response = Sse::new(event_stream(said)).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // A proxy that collects what it passes on makes a stream worthless.
    headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    Ok(response)
}

/// Digits and nothing else, so that a position has one form.
fn parse_position(name: &'static str, text: Option<&str>) -> Result<Option<LogPosition>, RequestError> {
    let is_number = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    let read = |text: &str| text.parse().ok().filter(|_| is_number(text)).filter(|n| *n <= i64::MAX.unsigned_abs());
    let read = |text| {
        read(text).map(LogPosition::new).ok_or(RequestError::InvalidParameter(name, "is not a position of the log"))
    };
    text.map(read).transpose()
}

fn event_stream(said: mpsc::Receiver<FeedEvent>) -> impl Stream<Item = Result<Event, Infallible>> {
    stream::unfold((said, true), async |(mut said, is_first)| {
        let event = to_sse_event(said.recv().await?);
        let event = if is_first { event.retry(RETRY_INTERVAL) } else { event };
        Some((Ok(event), (said, false)))
    })
}

fn to_sse_event(said: FeedEvent) -> Event {
    let data = |value: &dyn Fn() -> Result<String, serde_json::Error>| value().unwrap_or_default();
    match said {
        FeedEvent::Entry(entry, from) => {
            let view = EntryView::new(entry);
            let id = view.seq.to_string();
            let view = EntryEventView { after: from.number(), entry: view };
            Event::default().event("entry").id(id).data(data(&|| serde_json::to_string(&view)))
        }
        FeedEvent::Position(at, when) => {
            let view = PositionEventView { seq: at.number(), at: when.to_rfc3339() };
            let id = view.seq.to_string();
            Event::default().event("position").id(id).data(data(&|| serde_json::to_string(&view)))
        }
        FeedEvent::End(reason) => {
            let view = EndEventView { reason };
            Event::default().event("end").data(data(&|| serde_json::to_string(&view)))
        }
    }
}

#[derive(Serialize)]
struct PageView {
    from: u64,
    up_to: u64,
    head: u64,
    at: String,
    entries: Vec<EntryView>,
}

impl PageView {
    fn new(FeedPage { from, up_to, head, at, entries }: FeedPage) -> Self {
        let entries = entries.into_iter().map(EntryView::new).collect();
        Self { from: from.number(), up_to: up_to.number(), head: head.number(), at: at.to_rfc3339(), entries }
    }
}

#[derive(Serialize)]
struct EntryView {
    seq: u64,
    verb: &'static str,
    kind: &'static str,
    key: String,
    at: String,
    forget_after: String,
}

impl EntryView {
    fn new(FeedEntry { seq, verb, kind, key, at, forget_after }: FeedEntry) -> Self {
        let (at, forget_after) = (at.to_rfc3339(), forget_after.to_rfc3339());
        Self { seq: seq.number(), verb: verb.as_str(), kind, key, at, forget_after }
    }
}

/// An entry in a stream, with the position that it goes on from.
#[derive(Serialize)]
struct EntryEventView {
    after: u64,
    #[serde(flatten)]
    entry: EntryView,
}

#[derive(Serialize)]
struct PositionEventView {
    seq: u64,
    at: String,
}

#[derive(Serialize)]
struct EndEventView {
    reason: &'static str,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_parsed_strictly() {
        assert_eq!(parse_position("after", None), Ok(None));
        assert_eq!(parse_position("after", Some("0")), Ok(Some(LogPosition::new(0))));
        assert_eq!(
            parse_position("after", Some("9223372036854775807")),
            Ok(Some(LogPosition::new(i64::MAX.unsigned_abs())))
        );
        for bad in ["", "-1", "+1", " 1", "1.0", "0x1", "9223372036854775808", "18446744073709551616", "١"] {
            assert!(parse_position("after", Some(bad)).is_err(), "{bad}");
        }
    }
}
