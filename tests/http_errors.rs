//! Error responses of the HTTP layer: an unknown path, an unsupported method, a malformed body, an
//! invalid id, and a store that is unavailable, hangs or panics. OAuth endpoints response with
//! OAuth errors, all other paths with problem documents. Every response has its request id.
#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a panic fails the test")]

use std::{
    collections::{BTreeMap, BTreeSet},
    future::pending,
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use axum::{
    Router,
    body::Body,
    http::{Request, Response, StatusCode, header},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use errand::{
    adapters::system::DedicatedThreads,
    app::{CommitQueueLimits, LeaseSettings, Ports, RequestContext, Service, Settings, SubscriberLimits},
    domain::{
        audit::{
            EvaluationAuditMode, Head, IntrospectionAuditMode, Seal, SearchColumns, WriterId,
            checkpoint::{RegistryState, SignedCheckpoint},
        },
        configuration::ConfigurationHistory,
        grants::{
            Grant,
            break_glass::{BreakGlassGrant, BreakGlassLimits, ReviewState},
        },
        id::{ClientId, GrantId, KeyId, TaskId, TokenId},
        jose::{
            jwk::{JwkSet, JwsAlgorithm, SigningAlgorithm},
            jws::{CompactJws, UnverifiedJws},
        },
        keys::{KeySchedule, RotationSettings},
        quota::QuotaKey,
        registry::{
            client::Resource,
            issuer::{IssuerKeyId, TrustedIssuer},
            tool::ToolRecord,
        },
        replication::{Heartbeat, ReplicaId},
        revocation::{LinkedEntry, LogAnchor, LogEntry, LogPosition, evidence::EvidenceDigest},
        sealed_key::StoredSealedKey,
        secret::{Pepper, Secret},
        settings::{AdmissionLimits, MemoryLimits, Quotas, Retention, RetentionCutoffs, TaskLimits, TokenLimits},
        status_list::{Shard, StatusListSettings},
        task::{Requester, Task},
        time::Timestamp,
        uri::IssuerUrl,
    },
    http::{AppState, HttpSettings, router},
    ports::{
        AuditFilter, AuditKeys, AuditRow, AuditState, AuditStore, ChangeListener, Clock, CommitError,
        ConfigurationStore, Entropy, EvidenceSelector, FetchCaller, GcStats, GrantFilter, GrantStore, IndexedToken,
        KeyStore, ListError, ListingProblem, LiveCounts, LogStore, MaintenanceStore, McpServers, Outage, Page,
        PageRequest, QuotaStore, RegistryStore, ReplicaStore, RequesterRows, SeenEvidence, SignatureError, Signer,
        StatusListStore, StoredKey, StoredKeys, StoredRegistry, TaskFilter, TaskStore, TokenCursor, TokenFilter,
        TokenRecord, TokenSelector, TokenStore, ToolListing, ToolListingError, TrustedKeys, VerifiedToken,
        WriteOutcome, WriteSet, WriteStore,
    },
};
use http_body_util::BodyExt;
use serde_json::{Map, Value, json};
use tower::ServiceExt;
use uuid::Uuid;

// ---- tests -------------------------------------------------------------------------------------

#[tokio::test]
async fn undescribed_methods_return_405_with_allow() {
    let description: Value = serde_json::from_str(include_str!("../openapi/errand.json")).unwrap();
    let http = HttpFixture::new(StoreBehavior::Working).await;
    for (path, item) in description["paths"].as_object().unwrap() {
        let mut described: Vec<String> = item.as_object().unwrap().keys().map(|method| method.to_uppercase()).collect();
        described.retain(|member| member != "PARAMETERS");
        if described.contains(&"GET".to_owned()) {
            described.push("HEAD".to_owned());
        }
        described.sort();
        for method in ["TRACE", "QUERY", "OPTIONS", "PATCH"] {
            let response = http.send(method, path, &[], "").await;
            response.assert_refused(path, StatusCode::METHOD_NOT_ALLOWED, "invalid_request");
            let mut allowed: Vec<&str> = response.header("allow").split(',').map(str::trim).collect();
            allowed.sort_unstable();
            assert_eq!(allowed, described, "{path}");
        }
    }
}

#[tokio::test]
async fn unknown_path_returns_404() {
    let http = HttpFixture::new(StoreBehavior::Working).await;
    for path in ["/", "/oauth2", "/oauth2/", "/oauth2/%00", "/.well-known/x", "/v1/admin", "/v1/admin/agents/", "/%ff"]
    {
        http.send("GET", path, &[], "").await.assert_refused(path, StatusCode::NOT_FOUND, "invalid_request");
    }
}

#[tokio::test]
async fn invalid_id_returns_404_to_authorized_callers_only() {
    let http = HttpFixture::new(StoreBehavior::Working).await;
    let long = "x".repeat(3000);
    for folder in ["agents", "resources", "issuers", "admins", "tokens", "tasks"] {
        for name in ["%ff", "%00", "unknown", "%2f..%2f", "https%3A%2F%2Flogin.example.com", &long] {
            let path = format!("/v1/admin/{folder}/{name}");
            let unauthenticated = http.send("GET", &path, &[], "").await;
            unauthenticated.assert_refused(&path, StatusCode::UNAUTHORIZED, "invalid_token");
            http.admin("GET", &path, "").await.assert_refused(&path, StatusCode::NOT_FOUND, "invalid_request");
        }
    }
    let put = http.admin("PUT", "/v1/admin/admins/%ff", ADMIN).await;
    put.assert_refused("/v1", StatusCode::BAD_REQUEST, "invalid_request");
    let path = "/v1/admin/clients/%ff/secret";
    http.admin("POST", path, "").await.assert_refused(path, StatusCode::NOT_FOUND, "invalid_request");
    http.send("GET", "/docs/%ff", &[], "").await.assert_refused("/docs", StatusCode::NOT_FOUND, "invalid_request");
}

#[tokio::test]
async fn query_parameters_are_parsed_strictly() {
    let http = HttpFixture::new(StoreBehavior::Working).await;
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
        let response = http.admin("GET", &path, "").await;
        if status == StatusCode::OK {
            assert_eq!(response.status, status, "{path}: {}", response.body);
        } else {
            response.assert_refused(&path, status, "invalid_request");
        }
    }
}

#[tokio::test]
async fn body_must_match_its_content_type() {
    let http = HttpFixture::new(StoreBehavior::Working).await;
    let path = "/v1/admin/admins/ops";
    let token = http.bearer();
    for (media, body, status) in [
        ("", ADMIN, StatusCode::UNSUPPORTED_MEDIA_TYPE),
        ("text/plain", ADMIN, StatusCode::UNSUPPORTED_MEDIA_TYPE),
        ("application/json; charset=latin1", ADMIN, StatusCode::UNSUPPORTED_MEDIA_TYPE),
        ("application/json", "", StatusCode::BAD_REQUEST),
        ("application/json", "[]", StatusCode::BAD_REQUEST),
        ("application/json", r#"{"id":"ops","id":"ops"}"#, StatusCode::BAD_REQUEST),
        ("application/json", &" ".repeat(65_537), StatusCode::PAYLOAD_TOO_LARGE),
    ] {
        let response = http.send("PUT", path, &[("content-type", media), ("authorization", &token)], body).await;
        response.assert_refused(path, status, "invalid_request");
    }
    assert_eq!(http.admin("PUT", path, ADMIN).await.status, StatusCode::CREATED);

    let form = [("content-type", "application/x-www-form-urlencoded")];
    for path in ["/oauth2/token", "/oauth2/introspect", "/oauth2/revoke"] {
        http.send("POST", path, &[], "token=x").await.assert_refused(path, StatusCode::BAD_REQUEST, "invalid_request");
        http.send("POST", path, &form, "a=%zz").await.assert_refused(path, StatusCode::BAD_REQUEST, "invalid_request");
        let large = http.send("POST", path, &form, &"a".repeat(65_537)).await;
        large.assert_refused(path, StatusCode::PAYLOAD_TOO_LARGE, "invalid_request");
        http.send("POST", path, &form, "token=x").await.assert_refused(
            path,
            StatusCode::UNAUTHORIZED,
            "invalid_client",
        );
    }
}

/// Returns the members that a schema describes, with their own schemas.
fn members_of<'a>(description: &'a Value, schema: &'a Value, members: &mut BTreeMap<&'a str, &'a Value>) {
    let schema = resolve(description, schema);
    for (name, member) in schema["properties"].as_object().into_iter().flatten() {
        members.insert(name, resolve(description, member));
    }
    for part in ["allOf", "oneOf", "anyOf"] {
        for one in schema[part].as_array().into_iter().flatten() {
            members_of(description, one, members);
        }
    }
}

fn resolve<'a>(description: &'a Value, schema: &'a Value) -> &'a Value {
    match schema["$ref"].as_str() {
        Some(name) => resolve(description, description.pointer(name.trim_start_matches('#')).unwrap()),
        None => schema,
    }
}

/// Returns the first example of a body.
fn example_of(description: &Value, content: &Value) -> Value {
    let first = content["examples"].as_object().and_then(|examples| examples.values().next());
    let example = first.map_or(&content["example"], |first| &resolve(description, first)["value"]);
    assert!(example.is_object(), "{content}");
    example.clone()
}

/// Every described body of the admin API: in an otherwise valid body, the error names an unknown
/// member, and each member of a wrong type.
#[tokio::test]
async fn json_errors_name_the_member() {
    let description: Value = serde_json::from_str(include_str!("../openapi/errand.json")).unwrap();
    let http = HttpFixture::new(StoreBehavior::Working).await;
    let (mut bodies, mut wrong) = (0, Vec::new());
    for (path, item) in description["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
            if schema.is_null() || !path.starts_with("/v1/admin/") {
                continue;
            }
            bodies += 1;
            let path = path.replace("{id}", "ops").replace("{kid}", "ops");
            let mut members = BTreeMap::new();
            members_of(&description, schema, &mut members);
            let example = example_of(&description, &operation["requestBody"]["content"]["application/json"]);
            let with = |name: &str, value: Value| {
                let mut body = example.clone();
                body.as_object_mut().unwrap().insert(name.to_owned(), value);
                body
            };
            let mut requests = vec![(with("zz", json!(1)), "`zz`".to_owned()), (json!([]), "object".to_owned())];
            for (name, member) in members {
                let kind = member["type"].as_str().or(member["type"][0].as_str());
                let value = match kind {
                    Some("object" | "array") => json!(7),
                    Some(_) => json!([7]),
                    None => continue,
                };
                requests.push((with(name, value), name.to_owned()));
            }
            for (body, want) in requests {
                let response = http.admin(&method.to_uppercase(), &path, &body.to_string()).await;
                let problem: Value = serde_json::from_str(&response.body).unwrap_or_default();
                let detail = problem["detail"].as_str().unwrap_or_default().to_owned();
                if response.status != StatusCode::BAD_REQUEST || !detail.contains(&want) {
                    wrong.push(format!("{method} {path} {body}: {} {detail}", response.status));
                }
            }
        }
    }
    assert!(bodies > 10, "{bodies} bodies");
    assert!(wrong.is_empty(), "{} errors do not name the member:\n{}", wrong.len(), wrong.join("\n"));
}

#[tokio::test]
async fn outage_returns_503_and_internal_error_returns_500() {
    let form = [("content-type", "application/x-www-form-urlencoded"), ("authorization", "Basic YTpi")];
    for (behavior, status, code) in [
        (StoreBehavior::Unavailable, StatusCode::SERVICE_UNAVAILABLE, "temporarily_unavailable"),
        (StoreBehavior::Hanging, StatusCode::SERVICE_UNAVAILABLE, "temporarily_unavailable"),
        (StoreBehavior::Panicking, StatusCode::INTERNAL_SERVER_ERROR, "server_error"),
    ] {
        let http = HttpFixture::new(behavior).await;
        for (method, path) in [("POST", "/oauth2/token"), ("POST", "/oauth2/introspect"), ("GET", "/oauth2/jwks")] {
            http.send(method, path, &form, "token=x").await.assert_refused(path, status, code);
        }
        for path in ["/v1/admin/keys", "/v1/admin/tokens", "/readyz"] {
            http.admin("GET", path, "").await.assert_refused(path, status, code);
        }
        assert_eq!(http.send("GET", "/healthz", &[], "").await.status, StatusCode::OK);
    }
}

#[tokio::test]
async fn docs_page_and_openapi_are_served() {
    let http = HttpFixture::new(StoreBehavior::Working).await;
    for (path, media) in [
        ("/docs", "text/html; charset=utf-8"),
        ("/docs/docs.js", "text/javascript; charset=utf-8"),
        ("/docs/docs.css", "text/css; charset=utf-8"),
        ("/openapi.json", "application/json"),
        ("/openapi.yaml", "application/yaml"),
    ] {
        let response = http.send("GET", path, &[], "").await;
        assert_eq!((response.status, response.header("content-type")), (StatusCode::OK, media), "{path}");
        assert!(!response.body.is_empty(), "{path}");
    }
    let page = http.send("GET", "/docs", &[], "").await;
    assert!(page.header("content-security-policy").starts_with("default-src 'none';"));
    // The page must not contain anything that the policy blocks.
    for inline in ["style=", "<style", "<script>", "onclick=", "onload=", "javascript:", "http://", "https://"] {
        assert!(!page.body.contains(inline), "the page contains `{inline}`");
    }
}

// ---- requests ----------------------------------------------------------------------------------

const ADMIN: &str = r#"{"id":"ops","role":"operator","authentication":{"method":"client_secret_basic"}}"#;

struct HttpFixture {
    router: Router,
    token: String,
}

struct TestResponse {
    status: StatusCode,
    headers: axum::http::HeaderMap,
    body: String,
}

impl HttpFixture {
    async fn new(behavior: StoreBehavior) -> Self {
        // The token comes from a working store.
        let token = service(StoreBehavior::Working).issue_bootstrap_token(&cx()).await.unwrap();
        // Only a store that hangs has to reach the timeout.
        let is_hanging = matches!(behavior, StoreBehavior::Hanging);
        let request_timeout = if is_hanging { Duration::from_millis(50) } else { Duration::from_mins(1) };
        let settings = HttpSettings { request_timeout, ..HttpSettings::default() };
        Self { router: router(AppState::new(service(behavior)), settings), token: token.token.expose().to_owned() }
    }

    fn bearer(&self) -> String {
        format!("Bearer {}", self.token)
    }

    async fn admin(&self, method: &str, path: &str, body: &str) -> TestResponse {
        let bearer = self.bearer();
        let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
        self.send(method, path, &headers, body).await
    }

    async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> TestResponse {
        let mut request = Request::builder().method(method).uri(path).header("x-request-id", "r-1");
        for (name, value) in headers.iter().filter(|(_, value)| !value.is_empty()) {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::from(body.to_owned())).unwrap();
        let response: Response<Body> = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        TestResponse { status: parts.status, headers: parts.headers, body: String::from_utf8(body.to_vec()).unwrap() }
    }
}

impl TestResponse {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).unwrap_or_else(|| panic!("no `{name}`")).to_str().unwrap()
    }

    /// Asserts an error with this status and code, in the format of the path.
    fn assert_refused(&self, path: &str, status: StatusCode, code: &str) {
        assert_eq!(self.status, status, "{path}: {}", self.body);
        assert_eq!((self.header("x-request-id"), self.header("cache-control")), ("r-1", "no-store"), "{path}");
        let body: Value = serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("{path}: {}", self.body));
        if path.starts_with("/oauth2/") || path.starts_with("/.well-known/") {
            assert_eq!(self.header(header::CONTENT_TYPE.as_str()), "application/json", "{path}");
            assert_eq!(body["error"], code, "{path}");
            assert!(body["error_description"].is_string(), "{path}");
        } else {
            assert_eq!(self.header(header::CONTENT_TYPE.as_str()), "application/problem+json", "{path}");
            // Problem types that have `invalid_request` as their OAuth code.
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

// ---- fixtures ----------------------------------------------------------------------------------

fn cx() -> RequestContext {
    RequestContext::internal("r-1".parse().unwrap(), NOW)
}

const NOW: Timestamp = Timestamp::from_unix(1_795_200_000);

fn service(behavior: StoreBehavior) -> Service {
    let settings = Settings {
        issuer: "https://sts.example.com".parse().unwrap(),
        trust_domain: "example.com".into(),
        consent_uri: None,
        algorithm: SigningAlgorithm::ES256,
        rotation: RotationSettings::default(),
        tokens: TokenLimits::default(),
        tasks: TaskLimits::default(),
        break_glass: BreakGlassLimits::default(),
        four_eyes: errand::domain::four_eyes::FourEyes::Never,
        audit_writer: WriterId::of_commands("http"),
        introspection_audit: IntrospectionAuditMode::Off,
        evaluation_audit: EvaluationAuditMode::Off,
        commit_queue: CommitQueueLimits { standard: 16, reserved: 16, audit: 16, max_batch: 16 },
        admission: AdmissionLimits::default(),
        quotas: Quotas::default(),
        retention: Retention::default(),
        lists_per_client: 2,
        lease: LeaseSettings {
            replica_name: "http".into(),
            duration: Duration::from_secs(2),
            heartbeat_interval: Duration::from_millis(500),
        },
        memory: MemoryLimits::default(),
        subscribers: SubscriberLimits { total: 2, per_client: 2 },
        status_list: StatusListSettings::default(),
        fetch_networks: Vec::new(),
    };
    let ports = Ports {
        clock: Arc::new(FrozenClock),
        entropy: Arc::new(FrozenClock),
        threads: Arc::new(DedicatedThreads),
        signer: Arc::new(FrozenClock),
        trusted_keys: Arc::new(FrozenClock),
        mcp_servers: Arc::new(FrozenClock),
        store: Arc::new(behavior),
        reserved_store: Arc::new(behavior),
        pepper: Pepper::new(&[7; 32]),
        audit_keys: Arc::new(FrozenClock),
    };
    Service::new(settings, ports)
}

/// A clock, a source of randomness and keys with constant results. Its signatures are not valid.
struct FrozenClock;

impl Clock for FrozenClock {
    fn now(&self) -> Timestamp {
        NOW
    }

    fn monotonic(&self) -> Duration {
        Duration::ZERO
    }
}

impl Entropy for FrozenClock {
    fn random_bytes32(&self) -> Result<[u8; 32], Outage> {
        Ok([7; 32])
    }

    fn new_uuid(&self) -> Uuid {
        Uuid::from_bytes([7; 16])
    }
}

impl Signer for FrozenClock {
    fn sign(&self, _: SigningAlgorithm, typ: &str, claims: &[u8], _: Timestamp) -> Result<String, Outage> {
        let header = json!({"alg": "ES256", "typ": typ}).to_string();
        Ok(format!("{}.{}.AAAA", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims)))
    }

    fn verify(&self, token: CompactJws<'_>, _: Timestamp) -> Option<VerifiedToken> {
        let typ = token.decode_header().ok()?.typ?.into();
        Some(VerifiedToken { key: "frozen".parse().unwrap(), typ, payload: token.into_payload() })
    }

    fn is_published(&self, _: &KeyId, _: Timestamp) -> bool {
        true
    }

    fn jwks(&self, _: Timestamp) -> JwkSet {
        JwkSet::try_from(json!({"keys": [{"kty": "EC"}]})).unwrap()
    }

    fn active_algorithms(&self, _: Timestamp) -> Vec<SigningAlgorithm> {
        vec![SigningAlgorithm::ES256]
    }

    fn schedules(&self) -> Vec<KeySchedule> {
        Vec::new()
    }

    fn version(&self) -> u64 {
        0
    }

    fn replace_keys(&self, _: StoredKeys) -> Result<(), Outage> {
        Ok(())
    }

    fn create_key(&self, _: SigningAlgorithm, _: Timestamp, _: Timestamp) -> Result<StoredKey, Outage> {
        Err(Outage::during("make a key")("no randomness"))
    }

    fn create_audit_key(&self, _: Timestamp) -> Result<StoredSealedKey, Outage> {
        Err(Outage::during("make a key")("no randomness"))
    }

    fn reseal_keys(&self, keys: StoredKeys) -> Result<StoredKeys, Outage> {
        Ok(keys)
    }
}

impl AuditKeys for FrozenClock {
    fn is_authentic(&self, _: &str, _: &Seal) -> bool {
        true
    }

    fn sign_checkpoint(&self, _: &[u8]) -> Result<String, Outage> {
        Ok("a.b.c".into())
    }

    fn verify_checkpoint(&self, _: &str) -> Option<Vec<u8>> {
        None
    }

    fn checkpoint_jwks(&self) -> JwkSet {
        JwkSet::try_from(json!({"keys": [{"kty": "OKP"}]})).unwrap()
    }
}

#[async_trait]
impl McpServers for FrozenClock {
    fn has_token(&self, _: &ClientId) -> bool {
        false
    }

    async fn list_tools(&self, _: &Resource, _: Option<Secret>) -> Result<ToolListing, ToolListingError> {
        Err(ToolListingError { call: None, problem: ListingProblem::NoResponse })
    }
}

#[async_trait]
impl TrustedKeys for FrozenClock {
    async fn verify_with_issuer(
        &self,
        _: &TrustedIssuer,
        _: UnverifiedJws<'_>,
        _: FetchCaller<'_>,
    ) -> Result<Map<String, Value>, SignatureError> {
        Err(SignatureError::UnknownKey)
    }

    fn verify_with_keys(
        &self,
        _: &JwkSet,
        _: &[JwsAlgorithm],
        _: UnverifiedJws<'_>,
    ) -> Result<Map<String, Value>, SignatureError> {
        Err(SignatureError::UnknownKey)
    }

    fn verify_dummy(&self, _: UnverifiedJws<'_>) {}

    fn discard_issuer_keys(&self, _: &IssuerUrl) {}

    fn set_withdrawn_keys(&self, _: BTreeSet<IssuerKeyId>) {}

    fn issuer_key_ages(&self) -> Vec<(String, Duration)> {
        Vec::new()
    }

    fn unreachable_issuers(&self) -> Vec<String> {
        Vec::new()
    }
}

/// A store that is empty and discards writes, or fails in one way.
#[derive(Clone, Copy)]
enum StoreBehavior {
    Working,
    Unavailable,
    Hanging,
    Panicking,
}

impl StoreBehavior {
    async fn get<T>(self, result: T) -> Result<T, Outage> {
        match self {
            Self::Working => Ok(result),
            Self::Unavailable => Err(Outage::during("query the store")("unavailable")),
            Self::Hanging => pending().await,
            Self::Panicking => panic!("a bug in the store adapter"),
        }
    }

    async fn page<T>(self, page: &PageRequest) -> Result<Page<T>, ListError> {
        if page.cursor.as_deref().is_some_and(|cursor| cursor != "next") {
            return Err(ListError::InvalidCursor);
        }
        Ok(self.get(Page { items: Vec::new(), next: None }).await?)
    }
}

#[async_trait]
impl WriteStore for StoreBehavior {
    async fn commit(&self, _: WriterId, batch: &[WriteSet]) -> Result<Vec<WriteOutcome>, CommitError> {
        Ok(self.get(batch.iter().map(|_| WriteOutcome::Committed { seq: None }).collect()).await?)
    }

    async fn find_idempotent_response(&self, _: &str, _: &str) -> Result<Option<WriteOutcome>, Outage> {
        self.get(None).await
    }

    async fn probe_write(&self, _: u64) -> Result<(), Outage> {
        self.get(()).await
    }
}

#[async_trait]
impl LogStore for StoreBehavior {
    async fn read_log_head(&self) -> Result<LogPosition, Outage> {
        self.get(LogPosition::new(0)).await
    }

    async fn read_log_after(&self, _: LogPosition, _: Timestamp, _: u32) -> Result<Vec<LogEntry>, Outage> {
        self.get(Vec::new()).await
    }

    async fn read_linked_log(&self, _: LogPosition, _: Timestamp, _: u32) -> Result<Vec<LinkedEntry>, Outage> {
        self.get(Vec::new()).await
    }

    async fn load_log_anchor(&self) -> Result<LogAnchor, Outage> {
        self.get(LogAnchor::default()).await
    }

    async fn store_log_anchor(&self, _: &LogAnchor) -> Result<(), Outage> {
        self.get(()).await
    }

    async fn list_revocations(&self, page: &PageRequest) -> Result<Page<LogEntry>, ListError> {
        self.page(page).await
    }
}

#[async_trait]
impl TokenStore for StoreBehavior {
    async fn find_token(&self, _: TokenId) -> Result<Option<TokenRecord>, Outage> {
        self.get(None).await
    }

    async fn list_tokens(&self, _: &TokenFilter, page: &PageRequest) -> Result<Page<TokenRecord>, ListError> {
        self.page(page).await
    }

    async fn list_evidence(&self, _: &EvidenceSelector, _: Timestamp) -> Result<Vec<SeenEvidence>, Outage> {
        self.get(Vec::new()).await
    }

    async fn list_sessions(&self, _: &Requester) -> Result<Vec<EvidenceDigest>, Outage> {
        self.get(Vec::new()).await
    }
}

#[async_trait]
impl TaskStore for StoreBehavior {
    async fn find_task(&self, _: TaskId) -> Result<Option<Task>, Outage> {
        self.get(None).await
    }

    async fn list_tasks(&self, _: &TaskFilter, page: &PageRequest) -> Result<Page<Task>, ListError> {
        self.page(page).await
    }

    async fn list_overdue_tasks(&self, _: Timestamp, _: u32) -> Result<Vec<Task>, Outage> {
        self.get(Vec::new()).await
    }

    async fn count_live(&self, _: Timestamp, _: Timestamp, _: u32) -> Result<LiveCounts, Outage> {
        self.get(LiveCounts::default()).await
    }

    async fn list_tasks_without_grant(&self, _: u32) -> Result<Vec<Task>, Outage> {
        self.get(Vec::new()).await
    }

    async fn list_orphaned_tasks(&self, _: u32) -> Result<Vec<Task>, Outage> {
        self.get(Vec::new()).await
    }

    async fn is_party_revoked(&self, _: &Task) -> Result<bool, Outage> {
        self.get(false).await
    }

    async fn list_tasks_of_revoked_parties(&self, _: Timestamp, _: u32) -> Result<Vec<Task>, Outage> {
        self.get(Vec::new()).await
    }
}

#[async_trait::async_trait]
impl QuotaStore for StoreBehavior {
    async fn count_usage(&self, _: &QuotaKey, _: Timestamp, _: u32) -> Result<u32, Outage> {
        Ok(0)
    }
}

#[async_trait]
impl GrantStore for StoreBehavior {
    async fn find_grant(&self, _: GrantId) -> Result<Option<Grant>, Outage> {
        self.get(None).await
    }

    async fn list_grants(&self, _: &GrantFilter, page: &PageRequest) -> Result<Page<Grant>, ListError> {
        self.page(page).await
    }

    async fn list_live_grants(&self, _: &Requester, _: &ClientId, _: Timestamp, _: u32) -> Result<Vec<Grant>, Outage> {
        self.get(Vec::new()).await
    }

    async fn find_break_glass(&self, _: GrantId) -> Result<Option<BreakGlassGrant>, Outage> {
        self.get(None).await
    }

    async fn list_break_glass(
        &self,
        _: Option<ReviewState>,
        page: &PageRequest,
    ) -> Result<Page<BreakGlassGrant>, ListError> {
        self.page(page).await
    }
}

#[async_trait]
impl ConfigurationStore for StoreBehavior {
    async fn load_configuration_history(&self) -> Result<ConfigurationHistory, Outage> {
        self.get(ConfigurationHistory::default()).await
    }
}

#[async_trait]
impl RegistryStore for StoreBehavior {
    async fn load_registry(&self) -> Result<StoredRegistry, Outage> {
        self.get(StoredRegistry {
            version: 0,
            entries: Vec::new(),
            registration_positions: BTreeMap::new(),
            secret_tags: BTreeMap::new(),
            blocks: Vec::new(),
            known_tools: BTreeMap::new(),
        })
        .await
    }

    async fn list_tools(&self, _: &ClientId) -> Result<Vec<ToolRecord>, Outage> {
        self.get(Vec::new()).await
    }
}

#[async_trait]
impl KeyStore for StoreBehavior {
    async fn load_keys(&self) -> Result<StoredKeys, Outage> {
        self.get(StoredKeys { version: 0, keys: Vec::new(), sealed_keys: Vec::new(), seal: None }).await
    }

    async fn is_unused(&self) -> Result<bool, Outage> {
        self.get(true).await
    }
}

#[async_trait]
impl AuditStore for StoreBehavior {
    async fn list_audit_records(&self, _: &AuditFilter, page: &PageRequest) -> Result<Page<AuditRow>, ListError> {
        self.page(page).await
    }

    async fn list_audit_heads(&self) -> Result<Vec<(WriterId, Head)>, Outage> {
        self.get(Vec::new()).await
    }

    async fn read_audit_chain(&self, _: WriterId, _: u64, _: u32) -> Result<Vec<AuditRow>, Outage> {
        self.get(Vec::new()).await
    }

    async fn read_audit_state(&self) -> Result<AuditState, Outage> {
        let registry = RegistryState { digest: String::new(), version: 0 };
        let (writers, log) = (BTreeMap::new(), LogPosition::new(0));
        self.get(AuditState { writers, log, registry, last_checkpoint: None }).await
    }

    async fn read_checkpoints(&self, _: u64, _: u32) -> Result<Vec<SignedCheckpoint>, Outage> {
        self.get(Vec::new()).await
    }

    async fn replace_personal_values(&self, _: WriterId, _: u64, _: &str, _: &SearchColumns) -> Result<(), Outage> {
        self.get(()).await
    }

    async fn delete_audit_records(&self, _: WriterId, _: u64, _: u32) -> Result<u64, Outage> {
        self.get(0).await
    }

    async fn list_checkpoints(&self, page: &PageRequest) -> Result<Page<SignedCheckpoint>, ListError> {
        self.page(page).await
    }
}

#[async_trait]
impl ReplicaStore for StoreBehavior {
    async fn record_heartbeat(&self, _: &Heartbeat, _: bool) -> Result<(), Outage> {
        self.get(()).await
    }

    async fn list_replicas(&self) -> Result<Vec<Heartbeat>, Outage> {
        self.get(Vec::new()).await
    }

    async fn deregister_replica(&self, _: ReplicaId, _: u64) -> Result<bool, Outage> {
        self.get(false).await
    }

    async fn listen(&self) -> Result<Box<dyn ChangeListener>, Outage> {
        Err(Outage::during("listen")("unavailable"))
    }
}

#[async_trait]
impl StatusListStore for StoreBehavior {
    async fn allocate_status_block(&self, _: Shard) -> Result<u64, Outage> {
        self.get(0).await
    }

    async fn list_status_shards(&self, _: Timestamp) -> Result<Vec<(Shard, u64)>, Outage> {
        self.get(Vec::new()).await
    }

    async fn list_tokens_with_status(
        &self,
        _: &TokenSelector,
        _: Timestamp,
        _: TokenCursor,
        _: u32,
    ) -> Result<Vec<IndexedToken>, Outage> {
        self.get(Vec::new()).await
    }
}

#[async_trait]
impl MaintenanceStore for StoreBehavior {
    async fn collect_garbage(&self, _: Timestamp, _: &RetentionCutoffs) -> Result<GcStats, Outage> {
        self.get(GcStats::default()).await
    }

    async fn delete_requester_rows(&self, _: &Requester, _: Timestamp) -> Result<RequesterRows, Outage> {
        self.get(RequesterRows::default()).await
    }

    async fn count_requester_rows(&self, _: &Requester) -> Result<RequesterRows, Outage> {
        self.get(RequesterRows::default()).await
    }

    async fn ping(&self) -> Result<(), Outage> {
        self.get(()).await
    }

    fn tampering_count(&self) -> u64 {
        0
    }
}
