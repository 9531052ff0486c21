//! The cached keys of one issuer, and when they are fetched again.

use std::{sync::Arc, time::Duration};

use ipnet::IpNet;
use parking_lot::{RwLock, RwLockReadGuard};
use serde_json::Value;
use thiserror::Error;
use tokio::sync::Mutex;
use url::Url;

use crate::{
    adapters::{
        fetch::{DestinationRules, FetchError, Fetcher},
        jose::VerifierSet,
    },
    domain::{
        id::ClientId,
        jose::jwk::{JwkSet, JwkSetError, JwsAlgorithm, UnusedKey},
        registry::issuer::{KeySource, TrustedIssuer},
        time::Lifetime,
        uri::IssuerUrl,
    },
    ports::{Clock, ErrorChain, FetchCaller, Outage, RetryLater},
};

/// The pause after a failed fetch.
const RETRY_DELAY: Duration = Duration::from_secs(5);
/// The minimum interval between fetches that one caller causes with tokens that name an unknown
/// key. Anonymous callers count as one.
const UNKNOWN_KID_INTERVAL: Duration = Duration::from_mins(1);
/// The minimum interval between such fetches of all callers together.
const MIN_FETCH_INTERVAL: Duration = Duration::from_secs(5);

/// The dependencies of a fetch.
#[derive(Clone)]
pub(super) struct FetchContext {
    pub(super) clock: Arc<dyn Clock>,
    pub(super) fetcher: Arc<Fetcher>,
    /// The time limit for all the requests of one fetch together.
    pub(super) timeout: Duration,
}

/// The keys of one issuer, as long as its entry describes the same keys.
#[derive(Debug)]
pub(super) struct IssuerKeys {
    source_id: KeySourceId,
    /// The age at which the keys are fetched again.
    refresh_age: Duration,
    /// The age up to which the keys are used while the issuer is unreachable.
    max_age: Duration,
    state: RwLock<CacheState>,
    /// Held during a fetch. A caller that waits for the lock finds the result in the state.
    fetch_lock: Mutex<()>,
}

/// The part of an issuer's entry on which its keys depend.
#[derive(Debug, PartialEq, Eq)]
struct KeySourceId {
    issuer: IssuerUrl,
    source: KeySource,
    algorithms: Vec<JwsAlgorithm>,
    networks: Vec<IpNet>,
    allow_http: bool,
    ca_pem: Option<String>,
}

impl KeySourceId {
    fn of(issuer: &TrustedIssuer) -> Self {
        Self {
            issuer: issuer.issuer.clone(),
            source: issuer.keys.clone(),
            algorithms: issuer.algorithms.clone(),
            networks: issuer.allowed_networks.clone(),
            allow_http: issuer.allow_http,
            ca_pem: issuer.ca_pem.clone(),
        }
    }

    fn rules(&self) -> DestinationRules {
        DestinationRules {
            networks: self.networks.clone(),
            allow_http: self.allow_http,
            ca_pem: self.ca_pem.as_deref().map(Arc::from),
        }
    }
}

/// The cached keys and the state of fetching. Times are those of the monotonic clock.
#[derive(Debug, Default)]
struct CacheState {
    cached: Option<CachedJwks>,
    /// The time and the cause of the last failure, unless the last fetch succeeded.
    last_failure: Option<(Duration, Arc<str>)>,
    /// The fetches of the last minute that unknown keys caused, with the caller; `None` stands for
    /// anonymous ones. [`MIN_FETCH_INTERVAL`] limits their number.
    unknown_kid_fetches: Vec<(Option<ClientId>, Duration)>,
    /// The number of times that the keys were discarded. What a fetch read before is not used.
    discarded: u64,
    /// The set whose unused keys were logged last.
    logged: Option<[u8; 32]>,
}

#[derive(Clone, Debug)]
struct CachedJwks {
    keys: Arc<VerifierSet>,
    fetched_at: Duration,
}

/// The reason for a fetch.
#[derive(Clone, Debug)]
enum FetchReason {
    /// No usable keys are cached.
    NoKeys,
    /// The keys are due for a refresh.
    Due,
    /// A token of this caller, `None` if anonymous, names a key that is not in this set.
    UnknownKid(Arc<VerifierSet>, Option<ClientId>),
}

impl IssuerKeys {
    pub(super) fn new(issuer: &TrustedIssuer) -> Self {
        let seconds = |age: Lifetime| Duration::from_secs(age.as_seconds().into());
        Self {
            source_id: KeySourceId::of(issuer),
            refresh_age: seconds(issuer.key_refresh),
            max_age: seconds(issuer.key_max_age),
            state: RwLock::default(),
            fetch_lock: Mutex::default(),
        }
    }

    /// Returns whether the entry still describes these keys, and for how long they may be used.
    pub(super) fn is_current_for(&self, issuer: &TrustedIssuer) -> bool {
        let KeySourceId { issuer: url, source, algorithms, networks, allow_http, ca_pem } = &self.source_id;
        let seconds = |age: Lifetime| Duration::from_secs(age.as_seconds().into());
        *url == issuer.issuer
            && *source == issuer.keys
            && *algorithms == issuer.algorithms
            && *networks == issuer.allowed_networks
            && *allow_http == issuer.allow_http
            && *ca_pem == issuer.ca_pem
            && self.refresh_age == seconds(issuer.key_refresh)
            && self.max_age == seconds(issuer.key_max_age)
    }

    /// Discards the cached keys. The next use fetches them, however little time has passed.
    pub(super) fn discard(&self) {
        let mut state = self.state.write();
        let (discarded, logged) = (state.discarded.saturating_add(1), state.logged);
        *state = CacheState { discarded, logged, ..CacheState::default() };
    }

    /// Returns the time since the keys were fetched, or `None` if none are cached.
    pub(super) fn age(&self, now: Duration) -> Option<Duration> {
        self.read_state().cached.as_ref().map(|cached| now.saturating_sub(cached.fetched_at))
    }

    pub(super) fn issuer(&self) -> &str {
        self.source_id.issuer.as_str()
    }

    /// Returns whether the last fetch failed.
    pub(super) fn is_unreachable(&self) -> bool {
        self.read_state().last_failure.is_some()
    }

    /// Returns the keys, and fetches them if none are cached.
    pub(super) async fn get_or_fetch(self: &Arc<Self>, context: &FetchContext) -> Result<Arc<VerifierSet>, Outage> {
        match self.usable_keys(context.clock.monotonic()) {
            Some(cached) => Ok(cached.keys),
            None => self.fetch(context, FetchReason::NoKeys).await,
        }
    }

    /// Returns newer keys than `than`, in which a token's key is missing. If it is too early for
    /// another fetch, nothing shows that the issuer lacks the key, so that is an outage.
    pub(super) async fn fetch_newer_keys(
        self: &Arc<Self>,
        context: &FetchContext,
        than: Arc<VerifierSet>,
        caller: FetchCaller<'_>,
    ) -> Result<Arc<VerifierSet>, Outage> {
        let caller = match caller {
            FetchCaller::Client(client) => Some(client.clone()),
            FetchCaller::Anonymous => None,
        };
        self.fetch(context, FetchReason::UnknownKid(than, caller)).await
    }

    /// Fetches the keys if they are due.
    pub(super) async fn refresh_if_due(self: &Arc<Self>, context: &FetchContext) -> Result<(), Outage> {
        if self.is_refresh_due(context.clock.monotonic()) {
            self.fetch(context, FetchReason::Due).await?;
        }
        Ok(())
    }

    /// Fetches in a task of its own, so that a caller that disconnects does not cancel the fetch
    /// for the others.
    async fn fetch(self: &Arc<Self>, context: &FetchContext, reason: FetchReason) -> Result<Arc<VerifierSet>, Outage> {
        let (keys, context) = (Arc::clone(self), context.clone());
        let fetch = tokio::spawn(async move { keys.fetch_coalesced(&context, reason).await });
        fetch.await.map_err(Outage::during(OP_FETCH_JWKS))?
    }

    async fn fetch_coalesced(&self, context: &FetchContext, reason: FetchReason) -> Result<Arc<VerifierSet>, Outage> {
        let _guard = self.fetch_lock.lock().await;
        let now = context.clock.monotonic();
        let cached = self.usable_keys(now);
        if let Some(CachedJwks { keys, .. }) = &cached {
            let fetched_while_waiting = match &reason {
                FetchReason::NoKeys => true,
                FetchReason::Due => !self.is_refresh_due(now),
                FetchReason::UnknownKid(than, _) => !Arc::ptr_eq(keys, than),
            };
            if fetched_while_waiting {
                return Ok(Arc::clone(keys));
            }
        }
        if self.is_in_retry_delay(now) {
            return Err(self
                .recent_failure()
                .unwrap_or_else(|| Outage::during(OP_FETCH_JWKS)("the last fetch failed a moment ago")));
        }
        if let (FetchReason::UnknownKid(_, caller), Some(_)) = (&reason, cached) {
            self.claim_unknown_kid_fetch(caller.as_ref(), now).map_err(Outage::during(OP_FETCH_JWKS))?;
        }
        let discarded = self.read_state().discarded;
        let result = tokio::time::timeout(context.timeout, self.source_id.fetch_jwks(&context.fetcher)).await;
        let result = result.unwrap_or_else(|_| Err(JwksError::TimedOut(context.timeout)));
        let result = result.and_then(|(set, unused)| self.build_verifiers(&set, unused));
        let now = context.clock.monotonic();
        let mut state = self.state.write();
        if state.discarded != discarded {
            // The document may be older than the request to read the keys anew.
            return Err(Outage::during(OP_FETCH_JWKS)("the keys were discarded during the fetch"));
        }
        match result {
            Ok(keys) => {
                let keys = Arc::new(keys);
                state.cached = Some(CachedJwks { keys: Arc::clone(&keys), fetched_at: now });
                state.last_failure = None;
                Ok(keys)
            }
            Err(error) => {
                if matches!(error, JwksError::NoUsableKey(_)) {
                    // The issuer was reached, and has withdrawn the keys that are cached.
                    state.cached = None;
                }
                state.last_failure = Some((now, ErrorChain(&error).to_string().into()));
                Err(Outage::during(OP_FETCH_JWKS)(error))
            }
        }
    }

    /// Builds the verifiers, and logs the keys of a new set that are not used.
    fn build_verifiers(&self, set: &JwkSet, left_out: Vec<UnusedKey>) -> Result<VerifierSet, JwksError> {
        let (verifiers, unused) = VerifierSet::build_with_unused(set, &self.source_id.algorithms);
        if self.state.write().logged.replace(*set.digest()) != Some(*set.digest()) {
            let issuer = self.issuer();
            for UnusedKey { name, reason, is_expected } in left_out.iter().chain(&unused) {
                if *is_expected {
                    tracing::info!(issuer, kid = ?name, %reason, "a key of the issuer is not used");
                } else {
                    tracing::warn!(issuer, kid = ?name, %reason, "a key of the issuer can't be used");
                }
            }
        }
        if verifiers.is_empty() {
            let UnusedKey { name, reason, .. } = unused.into_iter().chain(left_out).next().unwrap_or_default();
            return Err(JwksError::NoUsableKey(format!("{name:?}: {reason}")));
        }
        Ok(verifiers)
    }

    fn usable_keys(&self, now: Duration) -> Option<CachedJwks> {
        self.read_state().cached.clone().filter(|cached| now.saturating_sub(cached.fetched_at) < self.max_age)
    }

    fn is_refresh_due(&self, now: Duration) -> bool {
        let fresh = self
            .read_state()
            .cached
            .as_ref()
            .is_some_and(|cached| now.saturating_sub(cached.fetched_at) < self.refresh_age);
        !fresh && !self.is_in_retry_delay(now)
    }

    fn is_in_retry_delay(&self, now: Duration) -> bool {
        self.read_state().last_failure.as_ref().is_some_and(|(at, _)| now.saturating_sub(*at) < RETRY_DELAY)
    }

    /// Claims a fetch that an unknown key causes. A claimed fetch counts, whatever its result.
    fn claim_unknown_kid_fetch(&self, caller: Option<&ClientId>, now: Duration) -> Result<(), RetryLater> {
        let mut state = self.state.write();
        let fetches = &mut state.unknown_kid_fetches;
        fetches.retain(|(_, at)| now.saturating_sub(*at) < UNKNOWN_KID_INTERVAL);
        let remaining = fetches.iter().map(|(other, at)| {
            let interval = if other.as_ref() == caller { UNKNOWN_KID_INTERVAL } else { MIN_FETCH_INTERVAL };
            interval.saturating_sub(now.saturating_sub(*at))
        });
        if let Some(retry_after) = remaining.max().filter(|remaining| !remaining.is_zero()) {
            let reason = "the key is unknown, and the keys were fetched a moment ago";
            return Err(RetryLater { reason, retry_after });
        }
        fetches.push((caller.cloned(), now));
        Ok(())
    }

    fn recent_failure(&self) -> Option<Outage> {
        let state = self.read_state();
        let (_, cause) = state.last_failure.as_ref()?;
        Some(Outage::during(OP_FETCH_JWKS)(format!("the last fetch failed and is not retried yet: {cause}")))
    }

    fn read_state(&self) -> RwLockReadGuard<'_, CacheState> {
        self.state.read()
    }
}

const OP_FETCH_JWKS: &str = "fetch the keys of the issuer";

/// A reason why an issuer's keys could not be fetched.
#[derive(Debug, Error)]
enum JwksError {
    #[error("{document} at `{url}` could not be fetched")]
    Fetch { document: &'static str, url: Box<str>, source: FetchError },
    #[error("the fetch took longer than {0:?}")]
    TimedOut(Duration),
    #[error("the document at `{0}` is not metadata: it is not an object with `issuer` and `jwks_uri`")]
    NotMetadata(Box<str>),
    #[error(
        "the metadata names another issuer: the configured `issuer` is `{configured}`, and the metadata has `{found}`{hint}"
    )]
    IssuerMismatch { configured: IssuerUrl, found: Box<str>, hint: &'static str },
    #[error("the metadata does not contain a valid `jwks_uri`")]
    MissingJwksUri,
    #[error("no key in the set can be used for the issuer's `algorithms`; the first one, {0}")]
    NoUsableKey(String),
    #[error("the issuer is not a URL to which a metadata path can be added")]
    InvalidIssuerUrl,
    #[error(transparent)]
    InvalidJwkSet(#[from] JwkSetError),
}

impl KeySourceId {
    async fn fetch_jwks(&self, fetcher: &Fetcher) -> Result<(JwkSet, Vec<UnusedKey>), JwksError> {
        let uri = match &self.source {
            KeySource::Inline(keys) => return Ok((keys.clone(), Vec::new())),
            KeySource::JwksUri(uri) => uri.clone(),
            KeySource::Discovery => self.discover_jwks_uri(fetcher).await?,
        };
        let document = self.fetch_json(fetcher, &uri, "the key set").await?;
        Ok(JwkSet::from_published(&document)?)
    }

    /// Reads `jwks_uri` from the metadata: OpenID Connect Discovery §4, or RFC 8414 §3 if the
    /// issuer does not serve the former.
    async fn discover_jwks_uri(&self, fetcher: &Fetcher) -> Result<Url, JwksError> {
        let issuer = &self.issuer;
        let oidc = Url::parse(&issuer.join("/.well-known/openid-configuration")).ok();
        let oidc = oidc.ok_or(JwksError::InvalidIssuerUrl)?;
        let metadata = match self.fetch_json(fetcher, &oidc, "the metadata").await {
            Err(JwksError::Fetch { source: first, url, .. }) if is_other_document(&first) => {
                let oauth = oauth_metadata_url(issuer).ok_or(JwksError::InvalidIssuerUrl)?;
                // If neither is served, the cause at the more common URL is the better one.
                let fallback = self.fetch_json(fetcher, &oauth, "the metadata").await;
                fallback.map_err(|error| match error {
                    JwksError::Fetch { source: FetchError::UnexpectedStatus(_), .. } => {
                        JwksError::Fetch { document: "the metadata", url, source: first }
                    }
                    error => error,
                })?
            }
            result => result?,
        };
        let Some(found) = metadata.get("issuer").and_then(Value::as_str) else {
            return Err(JwksError::NotMetadata(oidc.as_str().into()));
        };
        // The same string, not the same URL (OpenID Connect Discovery §4.3, RFC 8414 §3.3).
        if found != issuer.as_str() {
            let hint = mismatch_hint(issuer, found);
            let found = found.chars().take(256).flat_map(char::escape_debug).collect::<String>().into();
            return Err(JwksError::IssuerMismatch { configured: issuer.clone(), found, hint });
        }
        metadata
            .get("jwks_uri")
            .and_then(Value::as_str)
            .and_then(|uri| uri.parse().ok())
            .ok_or(JwksError::MissingJwksUri)
    }

    async fn fetch_json(&self, fetcher: &Fetcher, url: &Url, document: &'static str) -> Result<Value, JwksError> {
        let fetched = fetcher.fetch_json_from(url, &self.rules()).await;
        fetched.map_err(|source| JwksError::Fetch { document, url: shown_url(url), source })
    }
}

/// Returns a URL for the log, without the parts that may contain a secret.
fn shown_url(url: &Url) -> Box<str> {
    format!("{}{}", url.origin().ascii_serialization(), url.path()).chars().take(256).collect()
}

/// Returns whether the server answered, but not with this document.
fn is_other_document(error: &FetchError) -> bool {
    matches!(error, FetchError::UnexpectedStatus(_) | FetchError::NotJson(_) | FetchError::Redirected { .. })
}

/// Says how two issuer names differ, if it is a well-known way.
fn mismatch_hint(configured: &IssuerUrl, found: &str) -> &'static str {
    if configured.is_same_location(found) {
        "; they differ in the trailing slash alone, so configure the one that the tokens have as `iss`"
    } else if found.contains(['{', '}']) {
        "; that is a template for many tenants, so configure the `issuer` of the tenant, with its id"
    } else {
        "; configure the one that the tokens have as `iss`, and name the keys in `jwks_uri` if the two must differ"
    }
}

/// Returns the metadata URL of RFC 8414 §3.1: the well-known part goes between the host and the
/// path of the issuer.
fn oauth_metadata_url(issuer: &IssuerUrl) -> Option<Url> {
    let mut url = Url::parse(issuer.as_str()).ok()?;
    let path = url.path().trim_end_matches('/').to_owned();
    url.set_path(&format!("/.well-known/oauth-authorization-server{path}"));
    Some(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_path_is_inserted_between_host_and_path() {
        for (issuer, want) in [
            ("https://login.example.com", "https://login.example.com/.well-known/oauth-authorization-server"),
            ("https://login.example.com/", "https://login.example.com/.well-known/oauth-authorization-server"),
            ("https://login.example.com/t/1", "https://login.example.com/.well-known/oauth-authorization-server/t/1"),
            ("https://login.example.com/t/", "https://login.example.com/.well-known/oauth-authorization-server/t"),
        ] {
            assert_eq!(oauth_metadata_url(&issuer.parse().unwrap()).unwrap().as_str(), want);
        }
    }
}
