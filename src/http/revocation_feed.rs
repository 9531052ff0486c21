//! `GET /revocations`: the revocation log for resources that verify tokens offline, in pages or as
//! server-sent events.

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
        negotiation::prefers,
    },
};

/// The position at which a stream was interrupted, sent by a client that reconnects.
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// The time after which a client reconnects to a stream that ended.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// `GET /revocations`
pub(super) async fn follow(
    State(app): State<AppState>,
    FeedSubscriber(subscriber, cx): FeedSubscriber,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let query = Query::parse(query.as_deref(), &["after", "wait"])?;
    let after = parse_position("after", query.text("after"))?;
    let wait = query.parse_value::<u64>("wait")?.map(Duration::from_secs);
    if wait.is_some_and(|wait| wait > LONG_POLL_TIMEOUT) {
        return Err(RequestError::InvalidParameter("wait", "must be 0 to 30 seconds").into());
    }
    if !prefers(&headers, "text/event-stream") {
        let page = app.service.read_feed_page(&subscriber, after, wait.unwrap_or_default(), &cx).await?;
        return Ok(Json(PageView::new(page)).into_response());
    }
    if wait.is_some() {
        return Err(
            RequestError::InvalidParameter("wait", "applies to JSON responses only; omit it for a stream").into()
        );
    }
    // A client that reconnects repeats its URL and sends its position in the header.
    let last = headers.get(LAST_EVENT_ID).map(|value| value.to_str().unwrap_or("?"));
    let after = parse_position("last-event-id", last)?.or(after);
    let events = app.service.open_feed_stream(subscriber, after, cx).await?;
    let mut response = Sse::new(event_stream(events)).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // A proxy must not buffer a stream.
    headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    Ok(response)
}

/// Parses a position. Only digits are allowed, so that a position has one spelling.
fn parse_position(name: &'static str, text: Option<&str>) -> Result<Option<LogPosition>, RequestError> {
    let is_number = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    let parse = |text: &str| text.parse().ok().filter(|_| is_number(text)).filter(|n| *n <= i64::MAX.unsigned_abs());
    let parse = |text| {
        parse(text).map(LogPosition::new).ok_or(RequestError::InvalidParameter(name, "not a position of the log"))
    };
    text.map(parse).transpose()
}

fn event_stream(events: mpsc::Receiver<FeedEvent>) -> impl Stream<Item = Result<Event, Infallible>> {
    stream::unfold((events, true), async |(mut events, is_first)| {
        let event = to_sse_event(events.recv().await?);
        let event = if is_first { event.retry(RETRY_INTERVAL) } else { event };
        Some((Ok(event), (events, false)))
    })
}

fn to_sse_event(event: FeedEvent) -> Event {
    match event {
        FeedEvent::Entry(entry, from) => {
            let view = EntryView::new(entry);
            let id = view.seq.to_string();
            let view = EntryEventView { after: from.number(), entry: view };
            Event::default().event("entry").id(id).data(to_json(&view))
        }
        FeedEvent::Position(at, when) => {
            let view = PositionEventView { seq: at.number(), at: when.to_rfc3339() };
            let id = view.seq.to_string();
            Event::default().event("position").id(id).data(to_json(&view))
        }
        FeedEvent::End(reason) => {
            let view = EndEventView { reason };
            Event::default().event("end").data(to_json(&view))
        }
    }
}

/// Serializes the data of an event. A struct of strings and numbers always serializes.
fn to_json(view: &impl Serialize) -> String {
    serde_json::to_string(view).unwrap_or_default()
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

/// An entry in a stream, with the position that it follows.
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
