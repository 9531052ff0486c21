//! What we hold of one issuer's keys, and when it is asked for more.

use std::{
    error::Error as StdError,
    fmt::Write as _,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard},
    time::Duration,
};

use ipnet::IpNet;
use serde_json::Value;
use thiserror::Error;
use tokio::sync::Mutex;
use url::Url;

use crate::{
    adapters::{
        fetch::{FetchFault, Fetcher},
        jose::VerifierSet,
    },
    domain::{
        issuer::{KeySource, TrustedIssuer},
        jwk::{InvalidJwkSet, JwkSet, JwsAlgorithm},
        uri::IssuerUrl,
    },
    ports::{Clock, Outage},
};

/// How old keys get before they are asked for again.
const REFRESH: Duration = Duration::from_mins(10);
/// How long keys are good when the issuer can't be asked any more.
const KEEP: Duration = Duration::from_hours(24);
/// How long an issuer that failed is left alone.
const PAUSE: Duration = Duration::from_secs(5);
/// How often a token can make us ask, by naming a key that we don't know.
const UNKNOWN_KID: Duration = Duration::from_mins(1);

/// What asking needs.
#[derive(Clone)]
pub(super) struct Means {
    pub(super) clock: Arc<dyn Clock>,
    pub(super) fetcher: Arc<Fetcher>,
    /// How long all the fetches of one asking may take together.
    pub(super) time: Duration,
}

/// One issuer's keys, for as long as its entry says the same about them.
#[derive(Debug)]
pub(super) struct Slot {
    about: About,
    state: RwLock<State>,
    /// Held by the one that asks. Who waits for it finds the answer.
    asking: Mutex<()>,
}

/// The part of an issuer's entry that its keys depend on.
#[derive(Debug, PartialEq, Eq)]
struct About {
    issuer: IssuerUrl,
    source: KeySource,
    algorithms: Vec<JwsAlgorithm>,
    networks: Vec<IpNet>,
}

/// Times are those of the monotonic clock.
#[derive(Debug, Default)]
struct State {
    held: Option<Held>,
    /// When the last asking failed and why, if it did.
    failure: Option<(Duration, Arc<str>)>,
    asked_for_kid: Option<Duration>,
}

#[derive(Clone, Debug)]
struct Held {
    keys: Arc<VerifierSet>,
    since: Duration,
}

/// Why we ask.
#[derive(Clone, Debug)]
enum Occasion {
    /// There are none, or they are too old to be used.
    NoKeys,
    /// It is time.
    Due,
    /// A token names a key that is not among these.
    UnknownKid(Arc<VerifierSet>),
}

impl Slot {
    pub(super) fn new(issuer: &TrustedIssuer) -> Self {
        let about = About {
            issuer: issuer.issuer.clone(),
            source: issuer.keys.clone(),
            algorithms: issuer.algorithms.clone(),
            networks: issuer.allowed_networks.clone(),
        };
        Self { about, state: RwLock::default(), asking: Mutex::default() }
    }

    /// Whether this slot's keys are those that the entry, as it is now, would lead to.
    pub(super) fn is_about(&self, issuer: &TrustedIssuer) -> bool {
        let About { issuer: url, source, algorithms, networks } = &self.about;
        *url == issuer.issuer
            && *source == issuer.keys
            && *algorithms == issuer.algorithms
            && *networks == issuer.allowed_networks
    }

    pub(super) fn issuer(&self) -> &str {
        self.about.issuer.as_str()
    }

    /// Whether the last asking failed.
    pub(super) fn is_unreachable(&self) -> bool {
        self.state().failure.is_some()
    }

    /// The keys; asks for them if there are none.
    pub(super) async fn keys(self: &Arc<Self>, means: &Means) -> Result<Arc<VerifierSet>, Outage> {
        match self.usable(means.clock.monotonic()) {
            Some(held) => Ok(held.keys),
            None => self.ask(means, Occasion::NoKeys).await,
        }
    }

    /// Newer keys than these, which lack one that a token names. `None` if it is too early to ask again, and the last
    /// answer has to do.
    pub(super) async fn newer_keys(
        self: &Arc<Self>,
        means: &Means,
        than: Arc<VerifierSet>,
    ) -> Result<Option<Arc<VerifierSet>>, Outage> {
        let newer = self.ask(means, Occasion::UnknownKid(Arc::clone(&than))).await?;
        Ok((!Arc::ptr_eq(&newer, &than)).then_some(newer))
    }

    /// Asks if it is time.
    pub(super) async fn refresh(self: &Arc<Self>, means: &Means) -> Result<(), Outage> {
        if self.is_due(means.clock.monotonic()) {
            self.ask(means, Occasion::Due).await?;
        }
        Ok(())
    }

    /// Asks in a task of its own: who wanted the keys may hang up, and must not take the answer from all others.
    async fn ask(self: &Arc<Self>, means: &Means, occasion: Occasion) -> Result<Arc<VerifierSet>, Outage> {
        let (slot, means) = (Arc::clone(self), means.clone());
        let asking = tokio::spawn(async move { slot.ask_in_turn(&means, occasion).await });
        asking.await.map_err(Outage::during(ASKING))?
    }

    async fn ask_in_turn(&self, means: &Means, occasion: Occasion) -> Result<Arc<VerifierSet>, Outage> {
        let _turn = self.asking.lock().await;
        let now = means.clock.monotonic();
        let held = self.usable(now);
        if let Some(Held { keys, .. }) = &held {
            let done_while_we_waited = match &occasion {
                Occasion::NoKeys => true,
                Occasion::Due => !self.is_due(now),
                Occasion::UnknownKid(than) => !Arc::ptr_eq(keys, than),
            };
            if done_while_we_waited {
                return Ok(Arc::clone(keys));
            }
        }
        if self.failed_just_now(now) {
            return Err(self.failure().unwrap_or_else(|| Outage::during(ASKING)("it failed a moment ago")));
        }
        if let (Occasion::UnknownKid(_), Some(Held { keys, .. })) = (&occasion, held)
            && !self.may_ask_for_kid(now)
        {
            // With the issuer out of reach we can't say that it has no such key.
            return self.failure().map_or(Ok(keys), Err);
        }
        let answer = tokio::time::timeout(means.time, self.about.ask(&means.fetcher)).await;
        let answer = answer.unwrap_or_else(|_| Err(AskFault::Slow(means.time)));
        let now = means.clock.monotonic();
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        match answer {
            Ok(keys) => {
                let keys = Arc::new(VerifierSet::build(&keys, &self.about.algorithms));
                state.held = Some(Held { keys: Arc::clone(&keys), since: now });
                state.failure = None;
                Ok(keys)
            }
            Err(fault) => {
                state.failure = Some((now, in_full(&fault).into()));
                Err(Outage::during(ASKING)(fault))
            }
        }
    }

    fn usable(&self, now: Duration) -> Option<Held> {
        self.state().held.clone().filter(|held| now.saturating_sub(held.since) < KEEP)
    }

    fn is_due(&self, now: Duration) -> bool {
        let fresh = self.state().held.as_ref().is_some_and(|held| now.saturating_sub(held.since) < REFRESH);
        !fresh && !self.failed_just_now(now)
    }

    fn failed_just_now(&self, now: Duration) -> bool {
        self.state().failure.as_ref().is_some_and(|(at, _)| now.saturating_sub(*at) < PAUSE)
    }

    /// Counts the asking as done when it is allowed, whatever becomes of it.
    fn may_ask_for_kid(&self, now: Duration) -> bool {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        if state.asked_for_kid.is_some_and(|at| now.saturating_sub(at) < UNKNOWN_KID) {
            return false;
        }
        state.asked_for_kid = Some(now);
        true
    }

    fn failure(&self) -> Option<Outage> {
        let state = self.state();
        let (_, why) = state.failure.as_ref()?;
        Some(Outage::during(ASKING)(format!("it failed a moment ago and is not asked again yet: {why}")))
    }

    fn state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }
}

const ASKING: &str = "asking the issuer for its keys";

/// Why an issuer's keys could not be had.
#[derive(Debug, Error)]
enum AskFault {
    #[error("fetching {what}")]
    Fetch { what: &'static str, source: FetchFault },
    #[error("all in all it took longer than {0:?}")]
    Slow(Duration),
    #[error("the metadata names another issuer: `issuer` must be exactly `{0}`")]
    OtherIssuer(IssuerUrl),
    #[error("the metadata has no `jwks_uri` that is a URL")]
    NoJwksUri,
    #[error("the issuer is no URL that metadata could be below")]
    NoMetadataUrl,
    #[error(transparent)]
    NoJwkSet(#[from] InvalidJwkSet),
}

impl About {
    async fn ask(&self, fetcher: &Fetcher) -> Result<JwkSet, AskFault> {
        let uri = match &self.source {
            KeySource::Inline(keys) => return Ok(keys.clone()),
            KeySource::JwksUri(uri) => uri.clone(),
            KeySource::Discovery => self.discover(fetcher).await?,
        };
        let document = self.fetch(fetcher, &uri, "the keys").await?;
        Ok(JwkSet::try_from(document)?)
    }

    /// OpenID Connect Discovery §4, and RFC 8414 §3 if the issuer has nothing there.
    async fn discover(&self, fetcher: &Fetcher) -> Result<Url, AskFault> {
        let issuer = &self.issuer;
        let oidc = Url::parse(&issuer.join("/.well-known/openid-configuration")).ok();
        let oidc = oidc.ok_or(AskFault::NoMetadataUrl)?;
        let metadata = match self.fetch(fetcher, &oidc, "the metadata").await {
            Err(AskFault::Fetch { source: FetchFault::Status(_) | FetchFault::NotJson, .. }) => {
                let oauth = oauth_metadata(issuer).ok_or(AskFault::NoMetadataUrl)?;
                self.fetch(fetcher, &oauth, "the metadata").await?
            }
            answer => answer?,
        };
        // The same string, not the same URL (OpenID Connect Discovery §4.3, RFC 8414 §3.3).
        if metadata.get("issuer").and_then(Value::as_str) != Some(issuer.as_str()) {
            return Err(AskFault::OtherIssuer(issuer.clone()));
        }
        metadata.get("jwks_uri").and_then(Value::as_str).and_then(|uri| uri.parse().ok()).ok_or(AskFault::NoJwksUri)
    }

    async fn fetch(&self, fetcher: &Fetcher, url: &Url, what: &'static str) -> Result<Value, AskFault> {
        fetcher.json(url, &self.networks).await.map_err(|source| AskFault::Fetch { what, source })
    }
}

/// RFC 8414 §3.1: the well-known part goes between the host and the issuer's path.
fn oauth_metadata(issuer: &IssuerUrl) -> Option<Url> {
    let mut url = Url::parse(issuer.as_str()).ok()?;
    let path = url.path().trim_end_matches('/').to_owned();
    url.set_path(&format!("/.well-known/oauth-authorization-server{path}"));
    Some(url)
}

/// A fault with its causes, for who meets it later.
fn in_full(fault: &AskFault) -> String {
    let mut text = fault.to_string();
    let mut cause = fault.source();
    while let Some(fault) = cause {
        let _ = write!(text, ": {fault}");
        cause = fault.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_lies_between_host_and_path() {
        for (issuer, want) in [
            ("https://login.example.com", "https://login.example.com/.well-known/oauth-authorization-server"),
            ("https://login.example.com/", "https://login.example.com/.well-known/oauth-authorization-server"),
            ("https://login.example.com/t/1", "https://login.example.com/.well-known/oauth-authorization-server/t/1"),
            ("https://login.example.com/t/", "https://login.example.com/.well-known/oauth-authorization-server/t"),
        ] {
            assert_eq!(oauth_metadata(&issuer.parse().unwrap()).unwrap().as_str(), want);
        }
    }
}
