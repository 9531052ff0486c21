//! The transport for rmcp: requests have the same SSRF protection as all others to untrusted
//! servers, and responses are parsed strictly and up to a limit, in every form.

use std::{
    borrow::Cow,
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use futures_util::stream::BoxStream;
use parking_lot::Mutex;
use rmcp::{
    model::{ClientJsonRpcMessage, ClientRequest, ServerJsonRpcMessage},
    transport::streamable_http_client::{
        SseError, StreamableHttpClient, StreamableHttpError, StreamableHttpPostResponse,
    },
};
use serde_json::Value;
use sse_stream::Sse;
use url::Url;

use super::listing::{ListedTools, take_tools};
use crate::{
    adapters::fetch::{
        DestinationRules, FetchError, FetchResponse, Fetcher, Method,
        header::{HeaderName, HeaderValue},
    },
    domain::{encoding::strict_json, secret::Secret},
    ports::{ListingProblem, ToolListingError},
};

/// The maximum nesting depth of a message, above that of a stored schema. A schema that is too deep
/// loses its tool, and a message that is too deep is rejected.
pub(super) const MAX_JSON_DEPTH: usize = 64;
/// The maximum length of a session id.
const MAX_SESSION_ID_LEN: usize = 256;
/// The length to which the address of a redirect is cut.
const MAX_LOCATION_LEN: usize = 300;
/// The call that lists the tools.
const LIST_TOOLS: &str = "tools/list";

type TransportError = StreamableHttpError<ToolListingError>;

/// The transport to one server for one session.
#[derive(Clone)]
pub(super) struct GuardedTransport(Arc<Connection>);

struct Connection {
    fetcher: Arc<Fetcher>,
    url: Url,
    rules: DestinationRules,
    token: Option<Arc<Secret>>,
    /// The number of bytes that may still be read, over all responses.
    remaining_bytes: AtomicUsize,
    /// The call that was sent last.
    call: Mutex<Option<&'static str>>,
    /// The first error.
    first_error: Mutex<Option<ToolListingError>>,
    /// The tools of the last page.
    tools: Mutex<ListedTools>,
}

impl GuardedTransport {
    pub(super) fn new(
        fetcher: Arc<Fetcher>,
        url: Url,
        rules: DestinationRules,
        token: Option<Arc<Secret>>,
        max_bytes: usize,
    ) -> Self {
        let (remaining_bytes, first_error) = (AtomicUsize::new(max_bytes), Mutex::default());
        let (call, tools) = (Mutex::default(), Mutex::default());
        Self(Arc::new(Connection { fetcher, url, rules, token, remaining_bytes, call, first_error, tools }))
    }

    pub(super) fn uri(&self) -> &str {
        self.0.url.as_str()
    }

    /// Returns the first error of the transport, if there was one.
    pub(super) fn first_error(&self) -> Option<ToolListingError> {
        self.0.first_error.lock().clone()
    }

    pub(super) fn clear_error(&self) {
        *self.0.first_error.lock() = None;
    }

    /// Returns the tools of the page that was read last.
    pub(super) fn take_page(&self) -> ListedTools {
        std::mem::take(&mut *self.0.tools.lock())
    }

    /// Returns the error of a problem in the call that was sent last.
    pub(super) fn error(&self, problem: ListingProblem) -> ToolListingError {
        ToolListingError { call: *self.0.call.lock(), problem }
    }

    fn record_error(&self, problem: ListingProblem) -> TransportError {
        let error = self.error(problem);
        self.0.first_error.lock().get_or_insert(error.clone());
        TransportError::Client(error)
    }

    async fn send(
        &self,
        method: Method,
        session: Option<&str>,
        headers: HashMap<HeaderName, HeaderValue>,
        body: Vec<u8>,
    ) -> Result<FetchResponse, TransportError> {
        let mut headers = headers;
        let mut put = |name: &'static str, value: Option<&str>| {
            let value =
                value.map(HeaderValue::from_str).transpose().map_err(|_| self.record_error(ListingProblem::NotMcp))?;
            headers.extend(value.map(|value| (HeaderName::from_static(name), value)));
            Ok::<_, TransportError>(())
        };
        put("accept", Some("application/json, text/event-stream"))?;
        put("content-type", (!body.is_empty()).then_some("application/json"))?;
        put("mcp-session-id", session)?;
        let bearer = self.0.token.as_ref().map(|token| format!("Bearer {}", token.expose()));
        put("authorization", bearer.as_deref())?;
        let sent = self.0.fetcher.send(method, &self.0.url, &self.0.rules, headers, body).await;
        sent.map_err(|error| self.record_error(listing_problem(error)))
    }

    /// Returns the next chunk of a response and counts its bytes.
    async fn next_chunk(&self, response: &mut FetchResponse) -> Result<Option<Vec<u8>>, TransportError> {
        let chunk = response.next_chunk().await.map_err(|error| self.record_error(listing_problem(error)))?;
        let Some(chunk) = chunk else { return Ok(None) };
        let take = |left: usize| left.checked_sub(chunk.len());
        if self.0.remaining_bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_err() {
            return Err(self.record_error(ListingProblem::LimitExceeded("the responses are too large")));
        }
        Ok(Some(chunk))
    }

    /// Parses a message. The tools of a page are taken out before, each by itself, so that one of
    /// them can't make the message invalid.
    fn parse_message(&self, body: &[u8]) -> Option<ServerJsonRpcMessage> {
        let page = (*self.0.call.lock() == Some(LIST_TOOLS)).then(|| take_tools(std::str::from_utf8(body).ok()?));
        let (tools, rest) = match page.flatten() {
            Some((tools, rest)) => (Some(tools), Cow::Owned(rest.into_bytes())),
            None => (None, Cow::Borrowed(body)),
        };
        let value: Value = strict_json::parse(&rest, MAX_JSON_DEPTH).ok()?;
        let message = serde_json::from_value(value).ok()?;
        *self.0.tools.lock() = tools.unwrap_or_default();
        Some(message)
    }

    /// Returns the message of an event if it is the reply. Other messages that a server sends
    /// before are ignored.
    fn parse_reply(&self, event: &str) -> Option<ServerJsonRpcMessage> {
        let message = self.parse_message(event.as_bytes())?;
        matches!(message, ServerJsonRpcMessage::Response(_) | ServerJsonRpcMessage::Error(_)).then_some(message)
    }

    async fn read_message(&self, response: &mut FetchResponse) -> Result<ServerJsonRpcMessage, TransportError> {
        let media = response.header("content-type").unwrap_or_default().to_ascii_lowercase();
        match media.split(';').next().map(str::trim) {
            Some("application/json") => {
                let mut body = Vec::new();
                while let Some(chunk) = self.next_chunk(response).await? {
                    body.extend(chunk);
                }
                self.parse_message(&body).ok_or_else(|| self.record_error(ListingProblem::NotMcp))
            }
            Some("text/event-stream") => {
                let mut events = SseDecoder::default();
                while let Some(chunk) = self.next_chunk(response).await? {
                    if let Some(message) = events.push(&chunk).iter().find_map(|event| self.parse_reply(event)) {
                        return Ok(message);
                    }
                }
                Err(self.record_error(ListingProblem::NotMcp))
            }
            _ => Err(self.record_error(ListingProblem::NotMcp)),
        }
    }
}

/// Returns the address of a redirect without parameters, which may contain secrets. A URL consists
/// of ASCII.
fn shorten(location: &Url) -> String {
    let mut shown = location.clone();
    shown.set_query(None);
    shown.set_fragment(None);
    // Removing the credentials can't fail where there can be any.
    let _: (Result<(), ()>, Result<(), ()>) = (shown.set_username(""), shown.set_password(None));
    shown.as_str().chars().take(MAX_LOCATION_LEN).collect()
}

/// Returns the name of a call of the protocol.
fn name_of(request: &ClientRequest) -> &'static str {
    match request {
        ClientRequest::InitializeRequest(_) => "initialize",
        ClientRequest::DiscoverRequest(_) => "server/discover",
        ClientRequest::ListToolsRequest(_) => LIST_TOOLS,
        _ => "another request",
    }
}

/// Converts a fetch error, keeping only what may be disclosed.
fn listing_problem(error: FetchError) -> ListingProblem {
    match error.into_refusal() {
        Some(refusal) => ListingProblem::DestinationRefused(refusal),
        None => ListingProblem::NoResponse,
    }
}

/// A decoder for the `data` of server-sent events.
#[derive(Default)]
struct SseDecoder {
    line: Vec<u8>,
    data: String,
}

impl SseDecoder {
    /// Adds a chunk and returns the completed events.
    fn push(&mut self, chunk: &[u8]) -> Vec<String> {
        let mut complete = Vec::new();
        for byte in chunk {
            if *byte != b'\n' {
                self.line.push(*byte);
                continue;
            }
            let line = std::mem::take(&mut self.line);
            let line = String::from_utf8_lossy(&line);
            let line = line.trim_end_matches('\r');
            if line.is_empty() {
                complete.extend(Some(std::mem::take(&mut self.data)).filter(|data| !data.is_empty()));
            } else if let Some(data) = line.strip_prefix("data:") {
                if !self.data.is_empty() {
                    self.data.push('\n');
                }
                self.data.push_str(data.strip_prefix(' ').unwrap_or(data));
            }
        }
        complete
    }
}

impl StreamableHttpClient for GuardedTransport {
    type Error = ToolListingError;

    async fn post_message(
        &self,
        _: Arc<str>,
        message: ClientJsonRpcMessage,
        session: Option<Arc<str>>,
        _: Option<String>,
        headers: HashMap<HeaderName, HeaderValue>,
    ) -> Result<StreamableHttpPostResponse, TransportError> {
        let is_request = matches!(message, ClientJsonRpcMessage::Request(_));
        if let ClientJsonRpcMessage::Request(request) = &message {
            *self.0.call.lock() = Some(name_of(&request.request));
        }
        let body = serde_json::to_vec(&message).map_err(|_| self.record_error(ListingProblem::NotMcp))?;
        let mut response = self.send(Method::POST, session.as_deref(), headers, body).await?;
        let session =
            response.header("mcp-session-id").filter(|name| name.len() <= MAX_SESSION_ID_LEN).map(str::to_owned);
        match response.status() {
            200..=299 if !is_request => Ok(StreamableHttpPostResponse::Accepted),
            200 => Ok(StreamableHttpPostResponse::Json(self.read_message(&mut response).await?, session)),
            status @ (401 | 403) => Err(self.record_error(ListingProblem::Unauthorized(status))),
            status @ 300..=399 => {
                let location = response.header("location").and_then(|location| self.0.url.join(location).ok());
                let location = location.map(|location| shorten(&location));
                Err(self.record_error(ListingProblem::Redirect { status, location }))
            }
            // A rejection may be a message of the protocol.
            status @ 400..=599 => match self.read_message(&mut response).await {
                Ok(rejection @ ServerJsonRpcMessage::Error(_)) => {
                    self.clear_error();
                    Ok(StreamableHttpPostResponse::Json(rejection, None))
                }
                _ if status == 400 => Err(self.record_error(ListingProblem::NotMcp)),
                _ => {
                    self.clear_error();
                    Err(self.record_error(ListingProblem::UnexpectedStatus(status)))
                }
            },
            status => Err(self.record_error(ListingProblem::UnexpectedStatus(status))),
        }
    }

    async fn delete_session(
        &self,
        _: Arc<str>,
        session: Arc<str>,
        _: Option<String>,
        headers: HashMap<HeaderName, HeaderValue>,
    ) -> Result<(), TransportError> {
        // A server that does not support this ends the session itself. Nothing here depends on it.
        let (url, rules) = (&self.0.url, &self.0.rules);
        let mut headers = headers;
        headers
            .extend(HeaderValue::from_str(&session).ok().map(|name| (HeaderName::from_static("mcp-session-id"), name)));
        let bearer = self.0.token.as_ref().map(|token| format!("Bearer {}", token.expose()));
        let bearer = bearer.and_then(|bearer| HeaderValue::from_str(&bearer).ok());
        headers.extend(bearer.map(|bearer| (HeaderName::from_static("authorization"), bearer)));
        let _: Result<FetchResponse, FetchError> =
            self.0.fetcher.send(Method::DELETE, url, rules, headers, Vec::new()).await;
        Ok(())
    }

    async fn get_stream(
        &self,
        _: Arc<str>,
        _: Option<Arc<str>>,
        _: Option<String>,
        _: Option<String>,
        _: HashMap<HeaderName, HeaderValue>,
    ) -> Result<BoxStream<'static, Result<Sse, SseError>>, TransportError> {
        // Messages that a server sends on its own initiative are not read.
        Err(TransportError::ServerDoesNotSupportSse)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_parsed_across_chunk_boundaries() {
        let text =
            "event: message\r\nid: 1\r\ndata: {\"a\":\r\ndata: 1}\r\n\r\n: nothing\n\ndata:x\n\ndata: unfinished\n";
        let want = ["{\"a\":\n1}", "x"];
        for size in [1, 2, 3, 7, 1000] {
            let mut events = SseDecoder::default();
            let read = text.as_bytes().chunks(size).flat_map(|chunk| events.push(chunk)).collect::<Vec<_>>();
            assert_eq!(read, want, "{size}");
        }
    }
}
