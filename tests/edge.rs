//! What the edge answers when no handler comes to a word: no such path, another method, a body that is none, a name that
//! can't be one, a store that is out, hangs or panics. Always in the form that the place has: OAuth errors on OAuth
//! endpoints, problem documents everywhere else, and every answer with its request's id.
#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test: to stop is how it says no")]

use std::{collections::BTreeMap, future::pending, sync::Arc, time::Duration};

use async_trait::async_trait;
use axum::{
    Router,
    body::Body,
    http::{Request, Response, StatusCode, header},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use errand::{
    adapters::system::OwnThreads,
    app::{Cx, Following, Parts, Seats, Service, Settings},
    domain::{
        audit::{Head, Introspections, Writer},
        break_glass::{BreakGlass, BreakGlassLimits, ReviewState},
        client::Resource,
        grant::Grant,
        id::KeyId,
        id::{ClientId, GrantId, TaskId, TokenId},
        issuer::TrustedIssuer,
        jwk::{JwkSet, JwsAlgorithm, SigningAlgorithm},
        jws::{Unread, Unverified},
        keys::{KeyDates, Rotation},
        limits::{MemoryLimits, TaskLimits, TokenLimits},
        replica::{Beat, ReplicaId},
        revocation::{LogEntry, Seq},
        secret::Pepper,
        status_list::{Listing, Shard},
        task::{Requester, Task},
        time::Timestamp,
        tool::ToolRecord,
    },
    http::{App, EdgeSettings, router},
    ports::{
        AuditFilter, AuditRow, Clock, CommitFault, Ear, Entropy, GrantFilter, Having, KeyFault, ListFault, Listed,
        ListedAfter, McpServers, NotListed, Outage, OwnToken, Page, Paged, Signer, Store, StoredKey, StoredKeys,
        StoredRegistry, Swept, TaskFilter, TokenFilter, TokenRecord, TrustedKeys, Write, Written,
    },
};
use http_body_util::BodyExt;
use serde_json::{Map, Value, json};
use tower::ServiceExt;
use uuid::Uuid;

// ---- the tests ------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn every_described_path_refuses_other_methods_and_names_its_own() {
    let description: Value = serde_json::from_str(include_str!("../openapi/errand.json")).unwrap();
    let edge = Edge::new(Mood::Well).await;
    for (path, item) in description["paths"].as_object().unwrap() {
        let mut described: Vec<String> = item.as_object().unwrap().keys().map(|method| method.to_uppercase()).collect();
        described.retain(|member| member != "PARAMETERS");
        if described.contains(&"GET".to_owned()) {
            described.push("HEAD".to_owned());
        }
        described.sort();
        for method in ["TRACE", "QUERY", "OPTIONS", "PATCH"] {
            let answer = edge.ask(method, path, &[], "").await;
            answer.refuses(path, StatusCode::METHOD_NOT_ALLOWED, "invalid_request");
            let mut allowed: Vec<&str> = answer.header("allow").split(',').map(str::trim).collect();
            allowed.sort_unstable();
            assert_eq!(allowed, described, "{path}");
        }
    }
}

#[tokio::test]
async fn an_unknown_path_is_not_found() {
    let edge = Edge::new(Mood::Well).await;
    for path in ["/", "/oauth2", "/oauth2/", "/oauth2/%00", "/.well-known/x", "/v1/admin", "/v1/admin/agents/", "/%ff"]
    {
        edge.ask("GET", path, &[], "").await.refuses(path, StatusCode::NOT_FOUND, "invalid_request");
    }
}

#[tokio::test]
async fn a_name_that_can_not_be_one_is_not_found_but_only_for_who_may_know() {
    let edge = Edge::new(Mood::Well).await;
    let long = "x".repeat(3000);
    for folder in ["agents", "resources", "issuers", "admins", "tokens", "tasks"] {
        for name in ["%ff", "%00", "nobody", "%2f..%2f", "https%3A%2F%2Flogin.example.com", &long] {
            let path = format!("/v1/admin/{folder}/{name}");
            let unknown = edge.ask("GET", &path, &[], "").await;
            unknown.refuses(&path, StatusCode::UNAUTHORIZED, "invalid_token");
            edge.admin("GET", &path, "").await.refuses(&path, StatusCode::NOT_FOUND, "invalid_request");
        }
    }
    let put = edge.admin("PUT", "/v1/admin/admins/%ff", ADMIN).await;
    put.refuses("/v1", StatusCode::BAD_REQUEST, "invalid_request");
    let path = "/v1/admin/clients/%ff/secret";
    edge.admin("POST", path, "").await.refuses(path, StatusCode::NOT_FOUND, "invalid_request");
    edge.ask("GET", "/docs/%ff", &[], "").await.refuses("/docs", StatusCode::NOT_FOUND, "invalid_request");
}

#[tokio::test]
async fn a_query_is_read_strictly() {
    let edge = Edge::new(Mood::Well).await;
    for (query, status) in [
        ("", StatusCode::OK),
        ("?limit=1000&after=next&audience=x&alive=true", StatusCode::OK),
        ("?issuer=https%3A%2F%2Flogin.example.com&subject=zo%C3%AB", StatusCode::OK),
        ("?limit=0", StatusCode::BAD_REQUEST),
        ("?limit=1001", StatusCode::BAD_REQUEST),
        ("?limit=x", StatusCode::BAD_REQUEST),
        ("?limit=1&limit=1", StatusCode::BAD_REQUEST),
        ("?limits=1", StatusCode::BAD_REQUEST),
        ("?task=", StatusCode::BAD_REQUEST),
        ("?alive", StatusCode::BAD_REQUEST),
        ("?after=unknown", StatusCode::BAD_REQUEST),
        ("?audience=a%00b", StatusCode::BAD_REQUEST),
        ("?after=%00", StatusCode::BAD_REQUEST),
        ("?after=%ff", StatusCode::BAD_REQUEST),
        ("?after=%", StatusCode::BAD_REQUEST),
        ("?subject=alice", StatusCode::BAD_REQUEST),
        ("?issuer=https%3A%2F%2Flogin.example.com", StatusCode::BAD_REQUEST),
        ("?issuer=https%3A%2F%2Flogin.example.com&subject=a%00b", StatusCode::BAD_REQUEST),
        ("?issuer=login&subject=alice", StatusCode::BAD_REQUEST),
        ("?task=01A1FA42-2000-7C1E-9B57-4D2F6A0C8E13", StatusCode::BAD_REQUEST),
        ("?alive=yes", StatusCode::BAD_REQUEST),
    ] {
        let path = format!("/v1/admin/tokens{query}");
        let answer = edge.admin("GET", &path, "").await;
        if status == StatusCode::OK {
            assert_eq!(answer.status, status, "{path}: {}", answer.body);
        } else {
            answer.refuses(&path, status, "invalid_request");
        }
    }
}

#[tokio::test]
async fn a_body_is_what_it_is_said_to_be() {
    let edge = Edge::new(Mood::Well).await;
    let path = "/v1/admin/admins/ops";
    let token = edge.bearer();
    for (media, body, status) in [
        ("", ADMIN, StatusCode::UNSUPPORTED_MEDIA_TYPE),
        ("text/plain", ADMIN, StatusCode::UNSUPPORTED_MEDIA_TYPE),
        ("application/json; charset=latin1", ADMIN, StatusCode::UNSUPPORTED_MEDIA_TYPE),
        ("application/json", "", StatusCode::BAD_REQUEST),
        ("application/json", "[]", StatusCode::BAD_REQUEST),
        ("application/json", r#"{"id":"ops","id":"ops"}"#, StatusCode::BAD_REQUEST),
        ("application/json", &" ".repeat(65_537), StatusCode::PAYLOAD_TOO_LARGE),
    ] {
        let answer = edge.ask("PUT", path, &[("content-type", media), ("authorization", &token)], body).await;
        answer.refuses(path, status, "invalid_request");
    }
    assert_eq!(edge.admin("PUT", path, ADMIN).await.status, StatusCode::CREATED);

    let form = [("content-type", "application/x-www-form-urlencoded")];
    for path in ["/oauth2/token", "/oauth2/introspect", "/oauth2/revoke"] {
        edge.ask("POST", path, &[], "token=x").await.refuses(path, StatusCode::BAD_REQUEST, "invalid_request");
        edge.ask("POST", path, &form, "a=%zz").await.refuses(path, StatusCode::BAD_REQUEST, "invalid_request");
        let large = edge.ask("POST", path, &form, &"a".repeat(65_537)).await;
        large.refuses(path, StatusCode::PAYLOAD_TOO_LARGE, "invalid_request");
        edge.ask("POST", path, &form, "token=x").await.refuses(path, StatusCode::UNAUTHORIZED, "invalid_client");
    }
}

#[tokio::test]
async fn what_can_not_be_found_out_is_a_503_and_a_mistake_of_ours_a_500() {
    let form = [("content-type", "application/x-www-form-urlencoded"), ("authorization", "Basic YTpi")];
    for (mood, status, code) in [
        (Mood::Out, StatusCode::SERVICE_UNAVAILABLE, "temporarily_unavailable"),
        (Mood::Hangs, StatusCode::SERVICE_UNAVAILABLE, "temporarily_unavailable"),
        (Mood::Panics, StatusCode::INTERNAL_SERVER_ERROR, "server_error"),
    ] {
        let edge = Edge::new(mood).await;
        for (method, path) in [("POST", "/oauth2/token"), ("POST", "/oauth2/introspect"), ("GET", "/oauth2/jwks")] {
            edge.ask(method, path, &form, "token=x").await.refuses(path, status, code);
        }
        for path in ["/v1/admin/keys", "/v1/admin/tokens", "/readyz"] {
            edge.admin("GET", path, "").await.refuses(path, status, code);
        }
        assert_eq!(edge.ask("GET", "/healthz", &[], "").await.status, StatusCode::OK);
    }
}

#[tokio::test]
async fn the_page_and_the_description_are_served() {
    let edge = Edge::new(Mood::Well).await;
    for (path, media) in [
        ("/docs", "text/html; charset=utf-8"),
        ("/docs/docs.js", "text/javascript; charset=utf-8"),
        ("/docs/docs.css", "text/css; charset=utf-8"),
        ("/openapi.json", "application/json"),
        ("/openapi.yaml", "application/yaml"),
    ] {
        let answer = edge.ask("GET", path, &[], "").await;
        assert_eq!((answer.status, answer.header("content-type")), (StatusCode::OK, media), "{path}");
        assert!(!answer.body.is_empty(), "{path}");
    }
    let page = edge.ask("GET", "/docs", &[], "").await;
    assert!(page.header("content-security-policy").starts_with("default-src 'none';"));
    // What the policy would refuse must not be in the page.
    for inline in ["style=", "<style", "<script>", "onclick=", "onload=", "javascript:", "http://", "https://"] {
        assert!(!page.body.contains(inline), "the page has `{inline}` in it");
    }
}

// ---- asking ---------------------------------------------------------------------------------------------------------

const ADMIN: &str = r#"{"id":"ops","role":"operator","authentication":{"method":"client_secret_basic"}}"#;

struct Edge {
    router: Router,
    token: String,
}

struct Answer {
    status: StatusCode,
    headers: axum::http::HeaderMap,
    body: String,
}

impl Edge {
    async fn new(mood: Mood) -> Self {
        // The token is made while all is well.
        let token = service(Mood::Well).bootstrap_token(&cx()).await.unwrap();
        // Who hangs is waited for; nobody else is in a hurry.
        let patience = if matches!(mood, Mood::Hangs) { Duration::from_millis(50) } else { Duration::from_mins(1) };
        let settings = EdgeSettings { request_timeout: patience, operations_here: true };
        Self { router: router(App::new(service(mood)), settings), token: token.token.expose().to_owned() }
    }

    fn bearer(&self) -> String {
        format!("Bearer {}", self.token)
    }

    async fn admin(&self, method: &str, path: &str, body: &str) -> Answer {
        let bearer = self.bearer();
        let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
        self.ask(method, path, &headers, body).await
    }

    async fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let mut request = Request::builder().method(method).uri(path).header("x-request-id", "r-1");
        for (name, value) in headers.iter().filter(|(_, value)| !value.is_empty()) {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::from(body.to_owned())).unwrap();
        let response: Response<Body> = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Answer { status: parts.status, headers: parts.headers, body: String::from_utf8(body.to_vec()).unwrap() }
    }
}

impl Answer {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).unwrap_or_else(|| panic!("no `{name}`")).to_str().unwrap()
    }

    /// An error of this status and code, in the form that the path has.
    fn refuses(&self, path: &str, status: StatusCode, code: &str) {
        assert_eq!(self.status, status, "{path}: {}", self.body);
        assert_eq!((self.header("x-request-id"), self.header("cache-control")), ("r-1", "no-store"), "{path}");
        let body: Value = serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("{path}: {}", self.body));
        if path.starts_with("/oauth2/") || path.starts_with("/.well-known/") {
            assert_eq!(self.header(header::CONTENT_TYPE.as_str()), "application/json", "{path}");
            assert_eq!(body["error"], code, "{path}");
            assert!(body["error_description"].is_string(), "{path}");
        } else {
            assert_eq!(self.header(header::CONTENT_TYPE.as_str()), "application/problem+json", "{path}");
            // What OAuth has one word for.
            let code = match status {
                StatusCode::BAD_REQUEST => "malformed",
                StatusCode::NOT_FOUND => "not_found",
                StatusCode::METHOD_NOT_ALLOWED => "method_not_allowed",
                StatusCode::PAYLOAD_TOO_LARGE => "too_large",
                StatusCode::UNSUPPORTED_MEDIA_TYPE => "unsupported_media_type",
                _ => code,
            };
            assert_eq!(body["type"], format!("urn:errand:problem:{code}"), "{path}");
            assert_eq!(body["status"], status.as_u16(), "{path}");
            assert!(body["title"].is_string() && body["detail"].is_string(), "{path}");
        }
        assert_eq!(self.headers.contains_key("retry-after"), status == StatusCode::SERVICE_UNAVAILABLE, "{path}");
        assert_eq!(self.headers.contains_key("www-authenticate"), status == StatusCode::UNAUTHORIZED, "{path}");
    }
}

// ---- a server without an outside ------------------------------------------------------------------------------------

fn cx() -> Cx {
    Cx { request_id: "r-1".parse().unwrap(), now: NOW }
}

const NOW: Timestamp = Timestamp::from_unix(1_795_200_000);

fn service(mood: Mood) -> Service {
    let settings = Settings {
        issuer: "https://sts.example.com".parse().unwrap(),
        trust_domain: "example.com".into(),
        consent_uri: None,
        algorithm: SigningAlgorithm::ES256,
        rotation: Rotation::default(),
        tokens: TokenLimits::default(),
        tasks: TaskLimits::default(),
        break_glass: BreakGlassLimits::default(),
        introspection_audit: Introspections::Off,
        write_queue: 16,
        following: Following {
            name: "edge".into(),
            lease: Duration::from_secs(2),
            heartbeat: Duration::from_millis(500),
        },
        write_batch: 16,
        memory: MemoryLimits::default(),
        listeners: Seats { all: 2, per_client: 2 },
        status_list: Listing::default(),
    };
    let parts = Parts {
        clock: Arc::new(Still),
        entropy: Arc::new(Still),
        threads: Arc::new(OwnThreads),
        signer: Arc::new(Still),
        trusted: Arc::new(Still),
        servers: Arc::new(Still),
        store: Arc::new(mood),
        pepper: Pepper::new(&[7; 32]),
    };
    Service::new(settings, parts)
}

/// Clock, dice and keys that never move; its signatures are worth nothing.
struct Still;

impl Clock for Still {
    fn now(&self) -> Timestamp {
        NOW
    }

    fn monotonic(&self) -> Duration {
        Duration::ZERO
    }
}

impl Entropy for Still {
    fn bytes32(&self) -> Result<[u8; 32], Outage> {
        Ok([7; 32])
    }

    fn uuid(&self) -> Uuid {
        Uuid::from_bytes([7; 16])
    }
}

impl Signer for Still {
    fn sign(&self, _: SigningAlgorithm, typ: &str, claims: &[u8], _: Timestamp) -> Result<String, Outage> {
        let header = json!({"alg": "ES256", "typ": typ}).to_string();
        Ok(format!("{}.{}.AAAA", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims)))
    }

    fn verify(&self, token: Unread<'_>, _: Timestamp) -> Option<OwnToken> {
        let typ = token.header().ok()?.typ?.into();
        Some(OwnToken { key: "still".parse().unwrap(), typ, payload: token.into_payload() })
    }

    fn publishes(&self, _: &KeyId, _: Timestamp) -> bool {
        true
    }

    fn jwks(&self, _: Timestamp) -> JwkSet {
        JwkSet::try_from(json!({"keys": [{"kty": "EC"}]})).unwrap()
    }

    fn algorithms(&self, _: Timestamp) -> Vec<SigningAlgorithm> {
        vec![SigningAlgorithm::ES256]
    }

    fn dates(&self) -> Vec<KeyDates> {
        Vec::new()
    }

    fn version(&self) -> u64 {
        0
    }

    fn replace(&self, _: StoredKeys) -> Result<(), Outage> {
        Ok(())
    }

    fn make(&self, _: SigningAlgorithm, _: Timestamp, _: Timestamp) -> Result<StoredKey, Outage> {
        Err(Outage::during("make a key")("there are no dice"))
    }
}

#[async_trait]
impl McpServers for Still {
    async fn tools(&self, _: &Resource) -> Result<Listed, NotListed> {
        Err(NotListed::NoAnswer)
    }
}

#[async_trait]
impl TrustedKeys for Still {
    async fn verify_issuer(
        &self,
        _: &TrustedIssuer,
        _: Unverified<'_>,
        _: Timestamp,
    ) -> Result<Map<String, Value>, KeyFault> {
        Err(KeyFault::UnknownKey)
    }

    fn verify_with(&self, _: &JwkSet, _: &[JwsAlgorithm], _: Unverified<'_>) -> Result<Map<String, Value>, KeyFault> {
        Err(KeyFault::UnknownKey)
    }

    fn verify_nothing(&self, _: Unverified<'_>) {}

    fn unreachable(&self) -> Vec<String> {
        Vec::new()
    }
}

/// A store that has nothing in it and forgets what is put in, or worse.
#[derive(Clone, Copy)]
enum Mood {
    Well,
    Out,
    Hangs,
    Panics,
}

impl Mood {
    async fn get<T>(self, answer: T) -> Result<T, Outage> {
        match self {
            Self::Well => Ok(answer),
            Self::Out => Err(Outage::during("ask the store")("it is out")),
            Self::Hangs => pending().await,
            Self::Panics => panic!("the store's adapter has a mistake in it"),
        }
    }

    async fn page<T>(self, page: &Page) -> Result<Paged<T>, ListFault> {
        if page.after.as_deref().is_some_and(|after| after != "next") {
            return Err(ListFault::Cursor);
        }
        Ok(self.get(Paged { items: Vec::new(), next: None }).await?)
    }
}

#[async_trait]
impl Store for Mood {
    async fn commit(&self, _: Writer, batch: &[Write]) -> Result<Vec<Written>, CommitFault> {
        Ok(self.get(batch.iter().map(|_| Written::Done { seq: None }).collect()).await?)
    }

    async fn head(&self) -> Result<Seq, Outage> {
        self.get(Seq::new(0)).await
    }

    async fn log_after(&self, _: Seq, _: Timestamp, _: u32) -> Result<Vec<LogEntry>, Outage> {
        self.get(Vec::new()).await
    }

    async fn registry(&self) -> Result<StoredRegistry, Outage> {
        self.get(StoredRegistry {
            version: 0,
            entries: Vec::new(),
            since: BTreeMap::new(),
            tags: BTreeMap::new(),
            shut_out: Vec::new(),
            tools: BTreeMap::new(),
        })
        .await
    }

    async fn tools(&self, _: &ClientId) -> Result<Vec<ToolRecord>, Outage> {
        self.get(Vec::new()).await
    }

    async fn keys(&self) -> Result<StoredKeys, Outage> {
        self.get(StoredKeys { version: 0, keys: Vec::new() }).await
    }

    async fn task(&self, _: TaskId) -> Result<Option<Task>, Outage> {
        self.get(None).await
    }

    async fn tasks_due(&self, _: Timestamp, _: u32) -> Result<Vec<Task>, Outage> {
        self.get(Vec::new()).await
    }

    async fn tasks(&self, _: &TaskFilter, page: &Page) -> Result<Paged<Task>, ListFault> {
        self.page(page).await
    }

    async fn token(&self, _: TokenId) -> Result<Option<TokenRecord>, Outage> {
        self.get(None).await
    }

    async fn tokens(&self, _: &TokenFilter, page: &Page) -> Result<Paged<TokenRecord>, ListFault> {
        self.page(page).await
    }

    async fn listed_tokens(
        &self,
        _: &Having,
        _: Timestamp,
        _: ListedAfter,
        _: u32,
    ) -> Result<Vec<TokenRecord>, Outage> {
        self.get(Vec::new()).await
    }

    async fn take_status_block(&self, _: Shard) -> Result<u64, Outage> {
        self.get(0).await
    }

    async fn status_shards(&self, _: Timestamp) -> Result<Vec<(Shard, u64)>, Outage> {
        self.get(Vec::new()).await
    }

    async fn tasks_without_grant(&self, _: u32) -> Result<Vec<Task>, Outage> {
        self.get(Vec::new()).await
    }

    async fn tasks_of_removed(&self, _: u32) -> Result<Vec<Task>, Outage> {
        self.get(Vec::new()).await
    }

    async fn grant(&self, _: GrantId) -> Result<Option<Grant>, Outage> {
        self.get(None).await
    }

    async fn grants_between(&self, _: &Requester, _: &ClientId, _: Timestamp, _: u32) -> Result<Vec<Grant>, Outage> {
        self.get(Vec::new()).await
    }

    async fn break_glass(&self, _: GrantId) -> Result<Option<BreakGlass>, Outage> {
        self.get(None).await
    }

    async fn break_glass_list(&self, _: Option<ReviewState>, page: &Page) -> Result<Paged<BreakGlass>, ListFault> {
        self.page(page).await
    }

    async fn grants(&self, _: &GrantFilter, page: &Page) -> Result<Paged<Grant>, ListFault> {
        self.page(page).await
    }

    async fn revocations(&self, page: &Page) -> Result<Paged<LogEntry>, ListFault> {
        self.page(page).await
    }

    async fn answered(&self, _: &str, _: &str) -> Result<Option<Written>, Outage> {
        self.get(None).await
    }

    async fn audit(&self, _: &AuditFilter, page: &Page) -> Result<Paged<AuditRow>, ListFault> {
        self.page(page).await
    }

    async fn audit_heads(&self) -> Result<Vec<(Writer, Head)>, Outage> {
        self.get(Vec::new()).await
    }

    async fn audit_chain(&self, _: Writer, _: u64, _: u32) -> Result<Vec<AuditRow>, Outage> {
        self.get(Vec::new()).await
    }

    async fn renew(&self, _: &Beat, _: bool) -> Result<(), Outage> {
        self.get(()).await
    }

    async fn replicas(&self) -> Result<Vec<Beat>, Outage> {
        self.get(Vec::new()).await
    }

    async fn remove_replica(&self, _: ReplicaId, _: u64) -> Result<bool, Outage> {
        self.get(false).await
    }

    async fn listen(&self) -> Result<Box<dyn Ear>, Outage> {
        Err(Outage::during("listen")("nobody speaks"))
    }

    async fn sweep(&self, _: Timestamp) -> Result<Swept, Outage> {
        self.get(Swept::default()).await
    }

    async fn ping(&self) -> Result<(), Outage> {
        self.get(()).await
    }
}
