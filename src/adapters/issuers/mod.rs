//! The keys of others: fetched, kept, refreshed, and used to verify what they signed.

mod issuer_keys;
mod verifiers;

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, PoisonError, RwLock},
};

use async_trait::async_trait;
use futures_util::{StreamExt, stream};
use serde_json::{Map, Value, json};

use issuer_keys::{FetchContext, IssuerKeys};
use verifiers::VerifierCache;

use crate::{
    adapters::{
        fetch::{FetchLimits, Fetcher},
        jose::{self, VerifierSet},
    },
    domain::{
        jose::{
            jwk::{JwkSet, JwsAlgorithm},
            jws::UnverifiedJws,
        },
        registry::issuer::{KeySource, TrustedIssuer},
        time::Timestamp,
    },
    ports::{Clock, SignatureError, TrustedKeys},
};

/// How many issuers are asked at a time.
const MAX_CONCURRENT_FETCHES: usize = 8;

/// The keys of issuers and clients.
pub struct JwksCache {
    context: FetchContext,
    issuers: RwLock<HashMap<String, Arc<IssuerKeys>>>,
    inline_verifiers: VerifierCache,
    dummy_verifier: VerifierSet,
}

impl JwksCache {
    /// Knows no keys yet: see [`ForeignKeys::refresh`].
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>, limits: FetchLimits) -> Self {
        let fetcher = Arc::new(Fetcher::new(limits));
        Self {
            context: FetchContext { clock, fetcher, timeout: limits.timeout },
            issuers: RwLock::default(),
            inline_verifiers: VerifierCache::default(),
            dummy_verifier: dummy_verifier(),
        }
    }

    /// Asks those of the issuers whose keys are missing or ten minutes old, and forgets the keys of all others. To be
    /// called at the start and every minute or so. A failure is logged, and seen in [`TrustedKeys::unreachable`].
    pub async fn refresh(&self, issuers: impl IntoIterator<Item = &TrustedIssuer> + Send) {
        let fetched = |issuer: &&TrustedIssuer| !issuer.disabled && !matches!(issuer.keys, KeySource::Inline(_));
        let slots: Vec<_> = issuers.into_iter().filter(fetched).map(|issuer| self.issuer_keys(issuer)).collect();
        self.issuers
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|_, slot| slots.iter().any(|wanted| Arc::ptr_eq(wanted, slot)));
        stream::iter(slots)
            .for_each_concurrent(MAX_CONCURRENT_FETCHES, |slot| async move {
                if let Err(outage) = slot.refresh_if_due(&self.context).await {
                    let error: &(dyn std::error::Error + 'static) = &outage;
                    tracing::warn!(issuer = slot.issuer(), error, "keys of an issuer not refreshed");
                }
            })
            .await;
    }

    /// The slot of an issuer as its entry is now: another key source, algorithm or network makes another slot.
    fn issuer_keys(&self, issuer: &TrustedIssuer) -> Arc<IssuerKeys> {
        let known = |slots: &HashMap<String, Arc<IssuerKeys>>| {
            slots.get(issuer.issuer.as_str()).filter(|slot| slot.is_current_for(issuer)).cloned()
        };
        if let Some(slot) = known(&self.issuers.read().unwrap_or_else(PoisonError::into_inner)) {
            return slot;
        }
        let mut slots = self.issuers.write().unwrap_or_else(PoisonError::into_inner);
        known(&slots).unwrap_or_else(|| {
            let slot = Arc::new(IssuerKeys::new(issuer));
            slots.insert(issuer.issuer.as_str().to_owned(), Arc::clone(&slot));
            slot
        })
    }
}

#[async_trait]
impl TrustedKeys for JwksCache {
    async fn verify_with_issuer(
        &self,
        issuer: &TrustedIssuer,
        token: UnverifiedJws<'_>,
        _now: Timestamp,
    ) -> Result<Map<String, Value>, SignatureError> {
        if let KeySource::Inline(keys) = &issuer.keys {
            return self.verify_with_keys(keys, &issuer.algorithms, token);
        }
        let algorithm = jose::check_algorithm(&token, &issuer.algorithms)?;
        let slot = self.issuer_keys(issuer);
        let keys = slot.get_or_fetch(&self.context).await?;
        match keys.verify(algorithm, &token) {
            Err(SignatureError::UnknownKey) => {
                let newer = slot.fetch_newer_keys(&self.context, keys).await?;
                newer.ok_or(SignatureError::UnknownKey)?.verify(algorithm, &token)?;
            }
            verdict => verdict?,
        }
        Ok(token.into_payload())
    }

    fn verify_with_keys(
        &self,
        keys: &JwkSet,
        algorithms: &[JwsAlgorithm],
        token: UnverifiedJws<'_>,
    ) -> Result<Map<String, Value>, SignatureError> {
        let verdict = jose::check_algorithm(&token, algorithms)
            .and_then(|algorithm| self.inline_verifiers.get_or_build(keys, algorithms).verify(algorithm, &token));
        match verdict {
            Ok(()) => Ok(token.into_payload()),
            Err(fault) => {
                // A known client's bad token takes as long as an unknown client's.
                if matches!(fault, SignatureError::AlgorithmNotAllowed | SignatureError::UnknownKey) {
                    self.verify_dummy(token);
                }
                Err(fault)
            }
        }
    }

    fn verify_dummy(&self, token: UnverifiedJws<'_>) {
        self.dummy_verifier.verify_dummy(&token);
    }

    fn unreachable_issuers(&self) -> Vec<String> {
        let slots = self.issuers.read().unwrap_or_else(PoisonError::into_inner);
        let mut names: Vec<_> =
            slots.values().filter(|slot| slot.is_unreachable()).map(|slot| slot.issuer().to_owned()).collect();
        names.sort_unstable();
        names
    }
}

impl fmt::Debug for JwksCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ForeignKeys").field("unreachable", &self.unreachable_issuers()).finish_non_exhaustive()
    }
}

/// The key that a stranger's signature is tried with: the base point of P-256, for no answer of it is ever used.
fn dummy_verifier() -> VerifierSet {
    let key = json!({"kty": "EC", "crv": "P-256",
        "x": "axfR8uEsQkf4vOblY6RA8ncDfYEt6zOg9KE5RdiYwpY", "y": "T-NC4v4af5uO5-tKfA-eFivOM1drMV7Oy7ZAaDe_UfU"});
    let keys = key.as_object().cloned().into_iter().collect();
    VerifierSet::build(&keys, &[JwsAlgorithm::ES256])
}
