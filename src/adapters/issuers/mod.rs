//! The keys of others: fetched, kept, refreshed, and used to verify what they signed.

mod slot;
mod verifiers;

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, PoisonError, RwLock},
};

use async_trait::async_trait;
use futures_util::{StreamExt, stream};
use serde_json::{Map, Value, json};

use slot::{Means, Slot};
use verifiers::Verifiers;

use crate::{
    adapters::{
        fetch::{FetchLimits, Fetcher},
        jose::{self, VerifierSet},
    },
    domain::{
        issuer::{KeySource, TrustedIssuer},
        jwk::{JwkSet, JwsAlgorithm},
        jws::Unverified,
        time::Timestamp,
    },
    ports::{Clock, KeyFault, TrustedKeys},
};

/// How many issuers are asked at a time.
const AT_ONCE: usize = 8;

/// The keys of issuers and clients.
pub struct ForeignKeys {
    means: Means,
    slots: RwLock<HashMap<String, Arc<Slot>>>,
    verifiers: Verifiers,
    stranger: VerifierSet,
}

impl ForeignKeys {
    /// Knows no keys yet: see [`ForeignKeys::refresh`].
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>, limits: FetchLimits) -> Self {
        let fetcher = Arc::new(Fetcher::new(limits));
        Self {
            means: Means { clock, fetcher, time: limits.time },
            slots: RwLock::default(),
            verifiers: Verifiers::default(),
            stranger: stranger(),
        }
    }

    /// Asks those of the issuers whose keys are missing or ten minutes old, and forgets the keys of all others. To be
    /// called at the start and every minute or so. A failure is logged, and seen in [`TrustedKeys::unreachable`].
    pub async fn refresh(&self, issuers: impl IntoIterator<Item = &TrustedIssuer> + Send) {
        let fetched = |issuer: &&TrustedIssuer| !issuer.disabled && !matches!(issuer.keys, KeySource::Inline(_));
        let slots: Vec<_> = issuers.into_iter().filter(fetched).map(|issuer| self.slot(issuer)).collect();
        self.slots
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|_, slot| slots.iter().any(|wanted| Arc::ptr_eq(wanted, slot)));
        stream::iter(slots)
            .for_each_concurrent(AT_ONCE, |slot| async move {
                if let Err(outage) = slot.refresh(&self.means).await {
                    let error: &(dyn std::error::Error + 'static) = &outage;
                    tracing::warn!(issuer = slot.issuer(), error, "keys of an issuer not refreshed");
                }
            })
            .await;
    }

    /// The slot of an issuer as its entry is now: another key source, algorithm or network makes another slot.
    fn slot(&self, issuer: &TrustedIssuer) -> Arc<Slot> {
        let known = |slots: &HashMap<String, Arc<Slot>>| {
            slots.get(issuer.issuer.as_str()).filter(|slot| slot.is_about(issuer)).cloned()
        };
        if let Some(slot) = known(&self.slots.read().unwrap_or_else(PoisonError::into_inner)) {
            return slot;
        }
        let mut slots = self.slots.write().unwrap_or_else(PoisonError::into_inner);
        known(&slots).unwrap_or_else(|| {
            let slot = Arc::new(Slot::new(issuer));
            slots.insert(issuer.issuer.as_str().to_owned(), Arc::clone(&slot));
            slot
        })
    }
}

#[async_trait]
impl TrustedKeys for ForeignKeys {
    async fn verify_issuer(
        &self,
        issuer: &TrustedIssuer,
        token: Unverified<'_>,
        _now: Timestamp,
    ) -> Result<Map<String, Value>, KeyFault> {
        if let KeySource::Inline(keys) = &issuer.keys {
            return self.verify_with(keys, &issuer.algorithms, token);
        }
        let algorithm = jose::algorithm(&token, &issuer.algorithms)?;
        let slot = self.slot(issuer);
        let keys = slot.keys(&self.means).await?;
        match keys.verify(algorithm, &token) {
            Err(KeyFault::UnknownKey) => {
                let newer = slot.newer_keys(&self.means, keys).await?;
                newer.ok_or(KeyFault::UnknownKey)?.verify(algorithm, &token)?;
            }
            verdict => verdict?,
        }
        Ok(token.into_payload())
    }

    fn verify_with(
        &self,
        keys: &JwkSet,
        algorithms: &[JwsAlgorithm],
        token: Unverified<'_>,
    ) -> Result<Map<String, Value>, KeyFault> {
        let verdict = jose::algorithm(&token, algorithms)
            .and_then(|algorithm| self.verifiers.of(keys, algorithms).verify(algorithm, &token));
        match verdict {
            Ok(()) => Ok(token.into_payload()),
            Err(fault) => {
                // A known client's bad token takes as long as an unknown client's.
                if matches!(fault, KeyFault::Algorithm | KeyFault::UnknownKey) {
                    self.verify_nothing(token);
                }
                Err(fault)
            }
        }
    }

    fn verify_nothing(&self, token: Unverified<'_>) {
        self.stranger.verify_for_nothing(&token);
    }

    fn unreachable(&self) -> Vec<String> {
        let slots = self.slots.read().unwrap_or_else(PoisonError::into_inner);
        let mut names: Vec<_> =
            slots.values().filter(|slot| slot.is_unreachable()).map(|slot| slot.issuer().to_owned()).collect();
        names.sort_unstable();
        names
    }
}

impl fmt::Debug for ForeignKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ForeignKeys").field("unreachable", &self.unreachable()).finish_non_exhaustive()
    }
}

/// The key that a stranger's signature is tried with: the base point of P-256, for no answer of it is ever used.
fn stranger() -> VerifierSet {
    let key = json!({"kty": "EC", "crv": "P-256",
        "x": "axfR8uEsQkf4vOblY6RA8ncDfYEt6zOg9KE5RdiYwpY", "y": "T-NC4v4af5uO5-tKfA-eFivOM1drMV7Oy7ZAaDe_UfU"});
    let keys = key.as_object().cloned().into_iter().collect();
    VerifierSet::build(&keys, &[JwsAlgorithm::ES256])
}
