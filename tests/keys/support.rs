//! Fixtures: a manual clock, a party that signs with josekit, and an issuer with canned responses.

use std::{
    collections::HashMap,
    future::pending,
    sync::{
        Arc, LazyLock, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Request, State},
    http::{Response, StatusCode},
};
use errand::{
    adapters::{
        fetch::{FetchLimits, FetchOptions},
        issuers::JwksCache,
    },
    domain::{
        encode_base64url,
        jose::{
            jwk::{JwkSet, JwsAlgorithm},
            jws::UnverifiedJws,
        },
        registry::issuer::TrustedIssuer,
        time::Timestamp,
    },
    ports::{Clock, ErrorChain, FetchCaller, SignatureError, TrustedKeys},
};
use futures_util::{StreamExt, stream};
use josekit::{
    jwk::{
        Jwk,
        alg::{ec::EcCurve, ed::EdCurve},
    },
    jws::{self, JwsSigner},
};
use serde_json::{Map, Value, json};
use tokio::sync::watch;

pub(crate) const NOW: Timestamp = Timestamp::from_unix(1_795_200_000);

/// A clock that the test advances.
#[derive(Debug, Default)]
pub(crate) struct ManualClock(AtomicU64);

impl ManualClock {
    pub(crate) fn advance(&self, seconds: u64) {
        self.0.fetch_add(seconds, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        NOW
    }

    fn monotonic(&self) -> Duration {
        Duration::from_secs(self.0.load(Ordering::SeqCst))
    }
}

/// A party with a key pair.
#[derive(Clone)]
pub(crate) struct KeyPair(pub(crate) Jwk);

static RSA: LazyLock<KeyPair> = LazyLock::new(|| KeyPair(Jwk::generate_rsa_key(2048).unwrap()));

impl KeyPair {
    /// Generates a key for the algorithm. All RSA keys are the same one, because they take long to
    /// generate.
    pub(crate) fn new(algorithm: JwsAlgorithm) -> Self {
        use JwsAlgorithm::{ES256, ES384, ES512, EdDSA};
        let key = match algorithm {
            ES256 => Jwk::generate_ec_key(EcCurve::P256),
            ES384 => Jwk::generate_ec_key(EcCurve::P384),
            ES512 => Jwk::generate_ec_key(EcCurve::P521),
            EdDSA => Jwk::generate_ed_key(EdCurve::Ed25519),
            _ => return RSA.clone(),
        };
        Self(key.unwrap())
    }

    /// Returns the public key with further members.
    pub(crate) fn public(&self, more: Value) -> Value {
        let Value::Object(mut key) = serde_json::to_value(self.0.to_public_key().unwrap().as_ref()).unwrap() else {
            panic!("a JWK is an object")
        };
        let Value::Object(more) = more else { panic!("the members are not an object") };
        key.extend(more);
        Value::Object(key)
    }

    /// Signs a token with this header plus `alg`.
    pub(crate) fn token(&self, algorithm: JwsAlgorithm, header: Value) -> String {
        let signer = self.signer(algorithm);
        sign_jws(algorithm.as_str(), header, |message| signer.sign(message).unwrap())
    }

    fn signer(&self, algorithm: JwsAlgorithm) -> Box<dyn JwsSigner> {
        let key = &self.0;
        match algorithm {
            JwsAlgorithm::RS256 => Box::new(jws::RS256.signer_from_jwk(key).unwrap()),
            JwsAlgorithm::RS384 => Box::new(jws::RS384.signer_from_jwk(key).unwrap()),
            JwsAlgorithm::RS512 => Box::new(jws::RS512.signer_from_jwk(key).unwrap()),
            JwsAlgorithm::PS256 => Box::new(jws::PS256.signer_from_jwk(key).unwrap()),
            JwsAlgorithm::PS384 => Box::new(jws::PS384.signer_from_jwk(key).unwrap()),
            JwsAlgorithm::PS512 => Box::new(jws::PS512.signer_from_jwk(key).unwrap()),
            JwsAlgorithm::ES256 => Box::new(jws::ES256.signer_from_jwk(key).unwrap()),
            JwsAlgorithm::ES384 => Box::new(jws::ES384.signer_from_jwk(key).unwrap()),
            JwsAlgorithm::ES512 => Box::new(jws::ES512.signer_from_jwk(key).unwrap()),
            JwsAlgorithm::EdDSA => Box::new(jws::EdDSA.signer_from_jwk(key).unwrap()),
        }
    }
}

/// Returns a compact JWS of fixed claims with the signature that `sign` returns.
pub(crate) fn sign_jws(alg: &str, mut header: Value, sign: impl FnOnce(&[u8]) -> Vec<u8>) -> String {
    header["alg"] = alg.into();
    let claims = json!({"iss": "https://login.example.com", "sub": "alice"});
    let message = format!(
        "{}.{}",
        encode_base64url(header.to_string().as_bytes()),
        encode_base64url(claims.to_string().as_bytes())
    );
    let signature = sign(message.as_bytes());
    format!("{message}.{}", encode_base64url(&signature))
}

pub(crate) fn jwk_set(keys: &[Value]) -> JwkSet {
    JwkSet::try_from(json!({ "keys": keys })).unwrap()
}

/// A comparable kind of [`SignatureError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FailureKind {
    UnknownKey,
    Algorithm,
    Signature,
    Withdrawn,
    Outage,
}

pub(crate) fn failure_kind(verdict: &Result<Map<String, Value>, SignatureError>) -> Option<FailureKind> {
    verdict.as_ref().err().map(|error| match error {
        SignatureError::UnknownKey => FailureKind::UnknownKey,
        SignatureError::AlgorithmNotAllowed => FailureKind::Algorithm,
        SignatureError::InvalidSignature => FailureKind::Signature,
        SignatureError::WithdrawnKey => FailureKind::Withdrawn,
        SignatureError::Outage(_) => FailureKind::Outage,
    })
}

/// The keys of other parties, with a manual clock.
pub(crate) struct VerifierFixture {
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) keys: JwksCache,
}

impl VerifierFixture {
    pub(crate) fn new() -> Self {
        // A slow machine needs more time than a provider is given.
        Self::with_limits(FetchLimits { timeout: Duration::from_mins(1), ..FetchLimits::default() })
    }

    pub(crate) fn with_limits(limits: FetchLimits) -> Self {
        Self::with_options(limits.into())
    }

    pub(crate) fn with_options(options: FetchOptions) -> Self {
        let clock = Arc::new(ManualClock::default());
        Self { keys: JwksCache::new(Arc::clone(&clock) as Arc<dyn Clock>, options), clock }
    }

    /// Verifies with the keys of an entry.
    pub(crate) fn verify_with(&self, keys: &JwkSet, algorithms: &[JwsAlgorithm], token: &str) -> Option<FailureKind> {
        failure_kind(&self.keys.verify_with_keys(keys, algorithms, UnverifiedJws::parse(token).unwrap()))
    }

    /// Verifies with the keys of an issuer.
    pub(crate) async fn verify(&self, issuer: &TrustedIssuer, token: &str) -> Option<FailureKind> {
        self.verify_for(FetchCaller::Anonymous, issuer, token).await
    }

    /// Verifies with the keys of an issuer, on behalf of a caller.
    pub(crate) async fn verify_for(
        &self,
        caller: FetchCaller<'_>,
        issuer: &TrustedIssuer,
        token: &str,
    ) -> Option<FailureKind> {
        failure_kind(&self.keys.verify_with_issuer(issuer, UnverifiedJws::parse(token).unwrap(), caller).await)
    }

    /// Returns why the issuer's keys are unavailable, with all causes.
    pub(crate) async fn expect_unavailable(&self, issuer: &TrustedIssuer, token: &str) -> String {
        let token = UnverifiedJws::parse(token).unwrap();
        let verdict = self.keys.verify_with_issuer(issuer, token, FetchCaller::Anonymous).await;
        let Err(SignatureError::Outage(outage)) = verdict else { panic!("no outage: {verdict:?}") };
        ErrorChain(&outage).to_string()
    }
}

/// Returns an issuer entry with this key source.
pub(crate) fn issuer(url: &str, keys: impl Into<Value>, allowed_networks: &[&str]) -> TrustedIssuer {
    let keys: Value = keys.into();
    let entry = json!({"issuer": url, "keys": keys, "algorithms": ["ES256"], "token_types": ["access_token"],
        "allowed_networks": allowed_networks});
    serde_json::from_value(entry).unwrap()
}

/// The response of the issuer on one path.
#[derive(Clone, Debug)]
pub(crate) enum CannedResponse {
    Json(Value),
    Raw(&'static str, Bytes),
    Status(u16),
    Redirect(&'static str),
    /// A response after a delay.
    Late(Duration, Value),
    /// No response at all.
    Silence,
    /// A body that stalls.
    Stall,
    /// An endless body.
    Flood,
}

/// An issuer on a loopback address.
pub(crate) struct IssuerServer {
    pub(crate) url: String,
    shared: Arc<Shared>,
}

struct Shared {
    replies: Mutex<HashMap<String, CannedResponse>>,
    requested: Mutex<Vec<String>>,
    open: watch::Sender<bool>,
}

impl IssuerServer {
    pub(crate) async fn start() -> Self {
        let shared =
            Arc::new(Shared { replies: Mutex::default(), requested: Mutex::default(), open: watch::Sender::new(true) });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().fallback(respond).with_state(Arc::clone(&shared));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url, shared }
    }

    pub(crate) fn set_response(&self, path: &str, reply: CannedResponse) {
        self.shared.replies.lock().unwrap().insert(path.to_owned(), reply);
    }

    /// Serves these keys at `/jwks`.
    pub(crate) fn publish_keys(&self, keys: &[Value]) {
        self.set_response("/jwks", CannedResponse::Json(json!({ "keys": keys })));
    }

    /// Returns the requested paths, in order.
    pub(crate) fn requested_paths(&self) -> Vec<String> {
        self.shared.requested.lock().unwrap().clone()
    }

    pub(crate) fn request_count(&self) -> usize {
        self.requested_paths().len()
    }

    /// Holds back all responses, or releases them.
    pub(crate) fn set_held(&self, held: bool) {
        self.shared.open.send_replace(!held);
    }

    /// Returns an entry for this issuer, with its keys at `/jwks`.
    pub(crate) fn entry(&self) -> TrustedIssuer {
        self.entry_at("/jwks")
    }

    pub(crate) fn entry_at(&self, path: &str) -> TrustedIssuer {
        issuer(&self.url, json!({ "jwks_uri": format!("{}{path}", self.url) }), &["127.0.0.0/8"])
    }
}

async fn respond(State(shared): State<Arc<Shared>>, request: Request) -> Response<Body> {
    let path = request.uri().path().to_owned();
    shared.requested.lock().unwrap().push(path.clone());
    let _ = shared.open.subscribe().wait_for(|open| *open).await;
    let reply = shared.replies.lock().unwrap().get(&path).cloned();
    let chunk = || Ok::<_, std::io::Error>(Bytes::from_static(&[b' '; 4096]));
    let (status, name, value, body) = match reply {
        None => (404, "x-none", "", Body::empty()),
        Some(CannedResponse::Json(document)) => {
            (200, "content-type", "application/json", Body::from(document.to_string()))
        }
        Some(CannedResponse::Raw(encoding, bytes)) => (200, "content-encoding", encoding, Body::from(bytes)),
        Some(CannedResponse::Status(status)) => (status, "x-none", "", Body::empty()),
        Some(CannedResponse::Redirect(to)) => (302, "location", to, Body::empty()),
        Some(CannedResponse::Late(time, document)) => {
            tokio::time::sleep(time).await;
            (200, "x-none", "", Body::from(document.to_string()))
        }
        Some(CannedResponse::Silence) => pending().await,
        Some(CannedResponse::Stall) => {
            (200, "x-none", "", Body::from_stream(stream::iter([chunk()]).chain(stream::pending())))
        }
        Some(CannedResponse::Flood) => (200, "x-none", "", Body::from_stream(stream::repeat_with(chunk))),
    };
    let status = StatusCode::from_u16(status).unwrap();
    Response::builder().status(status).header(name, value).body(body).unwrap()
}

/// Waits until a condition holds, with a limit.
pub(crate) async fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    for _ in 0..6000 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("timed out: {what}");
}
