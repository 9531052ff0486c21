//! What rmcp's messages travel on: requests that are guarded like all others to strangers, and answers that are read strictly
//! and up to a limit, whatever their form.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use futures_util::stream::BoxStream;
use ipnet::IpNet;
use rmcp::{
    model::{ClientJsonRpcMessage, ServerJsonRpcMessage},
    transport::streamable_http_client::{
        SseError, StreamableHttpClient, StreamableHttpError, StreamableHttpPostResponse,
    },
};
use serde_json::Value;
use sse_stream::Sse;
use url::Url;

use crate::{
    adapters::fetch::{
        Answer, FetchFault, Fetcher, Method,
        header::{HeaderName, HeaderValue},
    },
    domain::{json, secret::Secret},
    ports::NotListed,
};

/// Deeper than any schema that is kept: who nests deeper than that loses the tool, who nests deeper than this the answer.
const MAX_DEPTH: usize = 64;
/// Longer than any session's name.
const MAX_SESSION: usize = 256;

type Fault = StreamableHttpError<NotListed>;

/// The way to one server, for one conversation.
#[derive(Clone)]
pub(super) struct Guarded(Arc<Way>);

struct Way {
    fetcher: Arc<Fetcher>,
    url: Url,
    networks: Vec<IpNet>,
    token: Option<Arc<Secret>>,
    /// How many bytes are still read, of all answers together.
    left: AtomicUsize,
    /// What went wrong first.
    fault: Mutex<Option<NotListed>>,
}

impl Guarded {
    pub(super) fn new(
        fetcher: Arc<Fetcher>,
        url: Url,
        networks: Vec<IpNet>,
        token: Option<Arc<Secret>>,
        bytes: usize,
    ) -> Self {
        let (left, fault) = (AtomicUsize::new(bytes), Mutex::default());
        Self(Arc::new(Way { fetcher, url, networks, token, left, fault }))
    }

    pub(super) fn uri(&self) -> &str {
        self.0.url.as_str()
    }

    /// What went wrong on the wire, if anything did.
    pub(super) fn fault(&self) -> Option<NotListed> {
        self.0.fault.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn forget_fault(&self) {
        *self.0.fault.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn fail(&self, fault: NotListed) -> Fault {
        self.0.fault.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(fault.clone());
        Fault::Client(fault)
    }

    async fn send(
        &self,
        method: Method,
        session: Option<&str>,
        headers: HashMap<HeaderName, HeaderValue>,
        body: Vec<u8>,
    ) -> Result<Answer, Fault> {
        let mut headers = headers;
        let mut put = |name: &'static str, value: Option<&str>| {
            let value = value.map(HeaderValue::from_str).transpose().map_err(|_| self.fail(NotListed::NotMcp))?;
            headers.extend(value.map(|value| (HeaderName::from_static(name), value)));
            Ok::<_, Fault>(())
        };
        put("accept", Some("application/json, text/event-stream"))?;
        put("content-type", (!body.is_empty()).then_some("application/json"))?;
        put("mcp-session-id", session)?;
        let bearer = self.0.token.as_ref().map(|token| format!("Bearer {}", token.expose()));
        put("authorization", bearer.as_deref())?;
        let sent = self.0.fetcher.send(method, &self.0.url, &self.0.networks, headers, body).await;
        sent.map_err(|fault| self.fail(told(fault)))
    }

    /// The next part of an answer; every byte of it counts.
    async fn chunk(&self, answer: &mut Answer) -> Result<Option<Vec<u8>>, Fault> {
        let chunk = answer.chunk().await.map_err(|fault| self.fail(told(fault)))?;
        let Some(chunk) = chunk else { return Ok(None) };
        let take = |left: usize| left.checked_sub(chunk.len());
        if self.0.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_err() {
            return Err(self.fail(NotListed::TooMuch("its answers are larger than is read")));
        }
        Ok(Some(chunk))
    }

    async fn message(&self, answer: &mut Answer) -> Result<ServerJsonRpcMessage, Fault> {
        let media = answer.header("content-type").unwrap_or_default().to_ascii_lowercase();
        match media.split(';').next().map(str::trim) {
            Some("application/json") => {
                let mut body = Vec::new();
                while let Some(chunk) = self.chunk(answer).await? {
                    body.extend(chunk);
                }
                message(&body).ok_or_else(|| self.fail(NotListed::NotMcp))
            }
            Some("text/event-stream") => {
                let mut events = Events::default();
                while let Some(chunk) = self.chunk(answer).await? {
                    if let Some(message) = events.read(&chunk).iter().find_map(|event| answering(event)) {
                        return Ok(message);
                    }
                }
                Err(self.fail(NotListed::NotMcp))
            }
            _ => Err(self.fail(NotListed::NotMcp)),
        }
    }
}

/// Why something could not be fetched, in what may be told.
fn told(fault: FetchFault) -> NotListed {
    match fault.into_refusal() {
        Some(refusal) => NotListed::Refused(refusal),
        None => NotListed::NoAnswer,
    }
}

fn message(body: &[u8]) -> Option<ServerJsonRpcMessage> {
    let value: Value = json::parse(body, MAX_DEPTH).ok()?;
    serde_json::from_value(value).ok()
}

/// The message of an event, if it answers what was asked. A server may say other things before; nobody listens.
fn answering(event: &str) -> Option<ServerJsonRpcMessage> {
    let message = message(event.as_bytes())?;
    matches!(message, ServerJsonRpcMessage::Response(_) | ServerJsonRpcMessage::Error(_)).then_some(message)
}

/// The `data` of server-sent events, as far as they have come.
#[derive(Default)]
struct Events {
    line: Vec<u8>,
    data: String,
}

impl Events {
    /// Takes what came, and gives the events that are whole.
    fn read(&mut self, chunk: &[u8]) -> Vec<String> {
        let mut whole = Vec::new();
        for byte in chunk {
            if *byte != b'\n' {
                self.line.push(*byte);
                continue;
            }
            let line = std::mem::take(&mut self.line);
            let line = String::from_utf8_lossy(&line);
            let line = line.trim_end_matches('\r');
            if line.is_empty() {
                whole.extend(Some(std::mem::take(&mut self.data)).filter(|data| !data.is_empty()));
            } else if let Some(data) = line.strip_prefix("data:") {
                if !self.data.is_empty() {
                    self.data.push('\n');
                }
                self.data.push_str(data.strip_prefix(' ').unwrap_or(data));
            }
        }
        whole
    }
}

impl StreamableHttpClient for Guarded {
    type Error = NotListed;

    async fn post_message(
        &self,
        _: Arc<str>,
        message: ClientJsonRpcMessage,
        session: Option<Arc<str>>,
        _: Option<String>,
        headers: HashMap<HeaderName, HeaderValue>,
    ) -> Result<StreamableHttpPostResponse, Fault> {
        let is_question = matches!(message, ClientJsonRpcMessage::Request(_));
        let body = serde_json::to_vec(&message).map_err(|_| self.fail(NotListed::NotMcp))?;
        let mut answer = self.send(Method::POST, session.as_deref(), headers, body).await?;
        let session = answer.header("mcp-session-id").filter(|name| name.len() <= MAX_SESSION).map(str::to_owned);
        match answer.status() {
            200..=299 if !is_question => Ok(StreamableHttpPostResponse::Accepted),
            200 => Ok(StreamableHttpPostResponse::Json(self.message(&mut answer).await?, session)),
            status @ (401 | 403) => Err(self.fail(NotListed::Unauthorized(status))),
            // A refusal may be said in the protocol's own words.
            status @ 400..=599 => match self.message(&mut answer).await {
                Ok(refusal @ ServerJsonRpcMessage::Error(_)) => {
                    self.forget_fault();
                    Ok(StreamableHttpPostResponse::Json(refusal, None))
                }
                _ if status == 400 => Err(self.fail(NotListed::NotMcp)),
                _ => {
                    self.forget_fault();
                    Err(self.fail(NotListed::Status(status)))
                }
            },
            status => Err(self.fail(NotListed::Status(status))),
        }
    }

    async fn delete_session(
        &self,
        _: Arc<str>,
        session: Arc<str>,
        _: Option<String>,
        headers: HashMap<HeaderName, HeaderValue>,
    ) -> Result<(), Fault> {
        // A server that can't end a session ends it by itself: nothing of ours depends on it.
        let (url, networks) = (&self.0.url, &self.0.networks);
        let mut headers = headers;
        headers
            .extend(HeaderValue::from_str(&session).ok().map(|name| (HeaderName::from_static("mcp-session-id"), name)));
        let bearer = self.0.token.as_ref().map(|token| format!("Bearer {}", token.expose()));
        let bearer = bearer.and_then(|bearer| HeaderValue::from_str(&bearer).ok());
        headers.extend(bearer.map(|bearer| (HeaderName::from_static("authorization"), bearer)));
        let _: Result<Answer, FetchFault> =
            self.0.fetcher.send(Method::DELETE, url, networks, headers, Vec::new()).await;
        Ok(())
    }

    async fn get_stream(
        &self,
        _: Arc<str>,
        _: Option<Arc<str>>,
        _: Option<String>,
        _: Option<String>,
        _: HashMap<HeaderName, HeaderValue>,
    ) -> Result<BoxStream<'static, Result<Sse, SseError>>, Fault> {
        // We ask, and don't listen to what a server says by itself.
        Err(Fault::ServerDoesNotSupportSse)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_in_any_pieces() {
        let text =
            "event: message\r\nid: 1\r\ndata: {\"a\":\r\ndata: 1}\r\n\r\n: nothing\n\ndata:x\n\ndata: unfinished\n";
        let want = ["{\"a\":\n1}", "x"];
        for size in [1, 2, 3, 7, 1000] {
            let mut events = Events::default();
            let read = text.as_bytes().chunks(size).flat_map(|chunk| events.read(chunk)).collect::<Vec<_>>();
            assert_eq!(read, want, "{size}");
        }
    }
}
