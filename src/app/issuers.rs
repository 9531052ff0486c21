//! The trusted issuers and the state of their keys.

use std::{collections::HashMap, time::Duration};

use parking_lot::Mutex;
use serde_json::{Map, Value, json};

use crate::{
    app::{
        Actor, ConflictError, Error, RequestContext, RequestError, Service,
        commit::{
            approval::apply_approval,
            idempotency::Idempotent,
            retry::{Completion, Decision},
        },
        four_eyes::act_of,
    },
    domain::{
        audit::{Event, Outcome, Record},
        id::Reason,
        registry::issuer::{Entitlement, IssuerKeyId, TrustedIssuer},
        replication::Propagation,
        revocation::{LogAction, NewEntry},
        time::Timestamp,
        uri::IssuerUrl,
    },
    ports::{Precondition, WriteSet},
};

/// The maximum length of a `kid` (bytes).
const MAX_KID_BYTES: usize = 512;
/// Maximum number of keys that one request withdraws and restores: each is a log entry.
const MAX_CHANGED_KEYS: usize = 100;

/// A trusted issuer, and the state of its keys at this replica.
#[derive(Clone, Debug)]
pub struct IssuerStatus {
    /// The issuer.
    pub issuer: IssuerUrl,
    /// Whether the last fetch of its keys succeeded.
    pub is_reachable: bool,
    /// The time since its keys were fetched; `None` if no fetched keys are cached.
    pub key_age: Option<Duration>,
    /// How many tokens each entitlement rule matched since the start.
    pub rule_matches: Vec<u64>,
}

/// What to do with the keys of an issuer, besides reading them anew.
#[derive(Clone, Debug, Default)]
pub struct IssuerKeysChange {
    /// The `kid`s of keys that are no longer used, although the issuer may publish them.
    pub withdraw: Vec<String>,
    /// The `kid`s of withdrawn keys that are used again.
    pub restore: Vec<String>,
}

/// The result of a change of an issuer's keys.
#[derive(Clone, Debug)]
pub struct IssuerKeysReceipt {
    /// The issuer.
    pub issuer: IssuerUrl,
    /// The `kid`s of its keys that are withdrawn now.
    pub withdrawn: Vec<String>,
    /// How far the change is propagated; `None` if an earlier request made it.
    pub propagation: Option<Propagation>,
}

impl Service {
    /// Returns the trusted issuers that are enabled, for the refresh of their keys.
    pub async fn list_trusted_issuers(&self, now: Timestamp) -> Result<Vec<TrustedIssuer>, Error> {
        let snapshot = self.inner.follower.snapshot(now).await?;
        Ok(snapshot.registry.issuers().filter(|issuer| !issuer.disabled).cloned().collect())
    }

    /// Returns each trusted issuer with the state of its keys.
    pub async fn issuer_health(&self, cx: &RequestContext) -> Result<Vec<IssuerStatus>, Error> {
        let snapshot = self.inner.follower.snapshot(cx.now).await?;
        let keys = &self.inner.ports.trusted_keys;
        let (unreachable, ages) = (keys.unreachable_issuers(), keys.issuer_key_ages());
        let status = |issuer: &TrustedIssuer| IssuerStatus {
            issuer: issuer.issuer.clone(),
            is_reachable: !unreachable.iter().any(|name| name == issuer.issuer.as_str()),
            key_age: ages.iter().find(|(name, _)| name == issuer.issuer.as_str()).map(|(_, age)| *age),
            rule_matches: self.inner.rule_matches.counts(&issuer.issuer, &issuer.entitlements),
        };
        Ok(snapshot.registry.issuers().map(status).collect())
    }

    /// Makes every replica fetch the keys of an issuer again, and withdraws or restores some of
    /// them. From the commit on, no replica verifies a token with a withdrawn key, or with keys
    /// that it fetched before.
    ///
    /// To restore a key, an admin needs a second person, as for lifting a block.
    pub async fn refresh_issuer_keys(
        &self,
        actor: Actor<'_>,
        issuer: &str,
        change: &IssuerKeysChange,
        reason: &Reason,
        key: Option<String>,
        cx: &RequestContext,
    ) -> Result<IssuerKeysReceipt, Error> {
        let by = &actor.identity();
        let IssuerKeysChange { withdraw, restore } = change;
        if withdraw.iter().chain(restore).any(|kid| !is_valid_kid(kid)) {
            return Err(
                RequestError::InvalidParameter("kid", "must be 1 to 512 bytes without control characters").into()
            );
        }
        if withdraw.len().saturating_add(restore.len()) > MAX_CHANGED_KEYS {
            return Err(RequestError::InvalidParameter("kid", "name at most 100 keys in one request").into());
        }
        if withdraw.iter().any(|kid| restore.contains(kid)) {
            return Err(
                RequestError::InvalidParameter("kid", "can't be withdrawn and restored at the same time").into()
            );
        }
        let requested = json!({"issuer": issuer, "withdraw": withdraw, "restore": restore});
        let request =
            Idempotent::<()>::new(by.to_owned(), key, format!("refresh issuer keys {requested} {reason}"), cx);
        let record = Record {
            admin: Some(by.to_owned()),
            requested: Some(requested),
            reason: Some(reason.to_string()),
            request_id: Some(cx.request_id.clone()),
            source: cx.source_text(),
            ..Record::new(cx.now, Event::IssuerKeysRefresh, Outcome::Done)
        };
        let completion = self.commit_with_retry(&request, None, |_| async {
            let snapshot = self.inner.follower.snapshot(cx.now).await?;
            let found = snapshot.registry.issuer(issuer).ok_or(ConflictError::NotFound("issuer"))?;
            let issuer = found.issuer.clone();
            let entry = |verb, kid: &String| {
                let key = IssuerKeyId { issuer: issuer.clone(), kid: kid.clone() };
                NewEntry::issuer_key(verb, key, reason.to_string(), by.to_owned(), cx.now)
            };
            let refresh = NewEntry::issuer_keys_changed(issuer.clone(), reason.to_string(), by.to_owned(), cx.now);
            let approval = match actor {
                Actor::Admin(admin) if !restore.is_empty() => {
                    self.find_approval(admin, &snapshot.registry, &act_of(&record, None)?, cx)?
                }
                Actor::Admin(_) | Actor::Host(_) => None,
            };
            let withdrawn = withdraw.iter().map(|kid| entry(LogAction::Suspend, kid));
            let restored = restore.iter().map(|kid| entry(LogAction::Resume, kid));
            let mut write = WriteSet {
                // Both persons are still active at the commit.
                precondition: approval.as_ref().map(|_| Precondition::RegistryVersion(snapshot.registry.version())),
                idempotency: request.storing(&())?,
                log_entries: withdrawn.chain(restored).chain([refresh]).collect(),
                audit_records: vec![record.clone()],
                ..WriteSet::default()
            };
            apply_approval(&mut write, approval);
            Ok(Decision::Write(Box::new(write), ()))
        });
        let propagation = match completion.await? {
            Completion::Done((), propagation) => propagation,
            Completion::Replayed(replay) => replay.propagation,
            Completion::Refused(conflict) => {
                return Err(self.record_refusal_after_barrier(record, conflict).await);
            }
        };
        let snapshot = self.inner.follower.snapshot(cx.now).await?;
        let found = snapshot.registry.issuer(issuer).ok_or(ConflictError::NotFound("issuer"))?;
        let withdrawn = snapshot.withdrawn_issuer_keys().iter().filter(|key| key.issuer == found.issuer);
        let withdrawn = withdrawn.map(|key| key.kid.clone()).collect();
        Ok(IssuerKeysReceipt { issuer: found.issuer.clone(), withdrawn, propagation })
    }
}

fn is_valid_kid(kid: &str) -> bool {
    (1..=MAX_KID_BYTES).contains(&kid.len()) && !kid.chars().any(char::is_control)
}

/// Counts how many user tokens each entitlement rule matched since the start. A rule that never
/// matches is probably wrong: it looks for a claim that the tokens do not have.
#[derive(Debug, Default)]
pub(in crate::app) struct RuleMatches {
    by_issuer: Mutex<HashMap<IssuerUrl, Vec<(Entitlement, u64)>>>,
}

impl RuleMatches {
    /// Counts the rules of an issuer that match the claims of a token.
    pub(in crate::app) fn count(&self, issuer: &TrustedIssuer, claims: &Map<String, Value>) {
        if issuer.entitlements.is_empty() {
            return;
        }
        let mut by_issuer = self.by_issuer.lock();
        let counts = by_issuer.entry(issuer.issuer.clone()).or_default();
        if !counts.iter().map(|(rule, _)| rule).eq(&issuer.entitlements) {
            let count_of = |rule: &Entitlement| counts.iter().find(|(known, _)| known == rule).map_or(0, |(_, n)| *n);
            *counts = issuer.entitlements.iter().map(|rule| (rule.clone(), count_of(rule))).collect();
        }
        for (_, count) in counts.iter_mut().filter(|(rule, _)| rule.to.matches(claims)) {
            *count = count.saturating_add(1);
        }
    }

    /// Returns the count of each rule.
    fn counts(&self, issuer: &IssuerUrl, rules: &[Entitlement]) -> Vec<u64> {
        let by_issuer = self.by_issuer.lock();
        let counts = by_issuer.get(issuer).map(Vec::as_slice).unwrap_or_default();
        let count_of = |rule: &Entitlement| counts.iter().find(|(known, _)| known == rule).map_or(0, |(_, n)| *n);
        rules.iter().map(count_of).collect()
    }
}
