//! Signing of checkpoints.

use std::collections::BTreeMap;

use crate::{
    app::{Error, LogicError, RequestContext, Service},
    domain::{
        audit::{
            Head, Record, WriterId,
            checkpoint::{Checkpoint, CheckpointFault, SignedCheckpoint, count_records, is_due, record_of},
        },
        encoding::jcs,
        jose::jwk::JwkSet,
        time::{Lifetime, Timestamp},
    },
    ports::{AuditKeys, AuditState, Outage, Page, PageRequest, ReplayGuard, StateChange, WriteOutcome, WriteSet},
};

const OP_SIGN_CHECKPOINT: &str = "sign an audit checkpoint";
/// The party of the replay guard that makes a number unique.
const GUARD_PARTY: &str = "audit checkpoint";
/// How long the replay guard of a number is kept; afterwards the row makes the number unique.
const GUARD_RETENTION: Lifetime = Lifetime::hours(24);
/// How often a checkpoint is tried while other replicas are faster.
const MAX_ATTEMPTS: usize = 5;

/// What the next checkpoint says was pruned, and the record of it.
pub(super) struct Pruning {
    /// The last pruned record of each chain.
    pub(super) pruned: BTreeMap<WriterId, Head>,
    /// The audit record of the prune.
    pub(super) record: Record,
}

impl Service {
    /// Signs a checkpoint if one is due. Returns its number and hash. Any number of replicas may do
    /// this concurrently: of two checkpoints with the same number, one is stored, and the other is
    /// discarded.
    pub async fn sign_due_checkpoint(&self, cx: &RequestContext) -> Result<Option<SignedCheckpoint>, Error> {
        let state = self.reserved_store().read_audit_state().await?;
        let last = read_last_checkpoint(&*self.inner.ports.audit_keys, &state)?;
        if !is_due(last.as_ref(), count_records(&state.writers), cx.now) {
            return Ok(None);
        }
        self.commit_checkpoint(state, last, None, cx.now).await
    }

    /// Signs a checkpoint of everything that has been recorded so far.
    pub async fn sign_checkpoint(&self, cx: &RequestContext) -> Result<SignedCheckpoint, Error> {
        self.sign_checkpoint_with(None, cx).await
    }

    /// Signs a checkpoint of everything that has been recorded so far, and of records that are
    /// about to be pruned. The last checkpoint must cover those.
    pub(super) async fn sign_checkpoint_with(
        &self,
        pruning: Option<&Pruning>,
        cx: &RequestContext,
    ) -> Result<SignedCheckpoint, Error> {
        for _ in 0..MAX_ATTEMPTS {
            let state = self.reserved_store().read_audit_state().await?;
            let last = read_last_checkpoint(&*self.inner.ports.audit_keys, &state)?;
            if let Some(signed) = self.commit_checkpoint(state, last, pruning, cx.now).await? {
                return Ok(signed);
            }
        }
        Err(Outage::during(OP_SIGN_CHECKPOINT)("other replicas were faster in every attempt").into())
    }

    /// Lists checkpoints, newest first.
    pub async fn list_checkpoints(&self, page: &PageRequest) -> Result<Page<SignedCheckpoint>, Error> {
        Ok(self.store().list_checkpoints(page).await?)
    }

    /// Returns the public keys of checkpoints.
    #[must_use]
    pub fn checkpoint_jwks(&self) -> JwkSet {
        self.inner.ports.audit_keys.checkpoint_jwks()
    }

    /// Signs a checkpoint of a state, and commits it with its record. Returns `None` if another
    /// replica stored a checkpoint with the same number.
    async fn commit_checkpoint(
        &self,
        state: AuditState,
        last: Option<Checkpoint>,
        pruning: Option<&Pruning>,
        now: Timestamp,
    ) -> Result<Option<SignedCheckpoint>, Error> {
        let log = state.log.number();
        let before = last.as_ref().map(|last| last.pruned.clone()).unwrap_or_default();
        let pruned = pruning.map_or(before, |pruning| pruning.pruned.clone());
        if let Some(last) = &last {
            // A checkpoint of a trail that has lost records would vouch for the loss.
            last.check_progress(log, &state.writers).map_err(Outage::during(OP_SIGN_CHECKPOINT))?;
            if !last.registry.can_become(&state.registry) {
                return Err(Outage::during(OP_SIGN_CHECKPOINT)(CheckpointFault::Registry(last.number)).into());
            }
            last.check_pruned(&pruned).map_err(Outage::during(OP_SIGN_CHECKPOINT))?;
        } else if !pruned.is_empty() {
            return Err(Outage::during(OP_SIGN_CHECKPOINT)("no checkpoint covers what is to be pruned").into());
        }
        let checkpoint = Checkpoint {
            iat: now,
            iss: self.settings().issuer.to_string(),
            log,
            number: last.map_or(0, |last| last.number).saturating_add(1),
            previous: state.last_checkpoint.map(|last| last.hash).unwrap_or_default(),
            pruned,
            registry: state.registry,
            writers: state.writers,
        };
        let payload = jcs::to_string(&checkpoint)
            .ok_or_else(|| Outage::during(OP_SIGN_CHECKPOINT)("the checkpoint has no canonical form"))?;
        let text = self.inner.ports.audit_keys.sign_checkpoint(payload.as_bytes())?;
        let signed = SignedCheckpoint::new(checkpoint.number, text);
        let write = WriteSet {
            replay_guards: vec![ReplayGuard {
                party: GUARD_PARTY.to_owned(),
                id: signed.number.to_string(),
                keep_until: now.saturating_add(GUARD_RETENTION),
            }],
            state_changes: vec![StateChange::PutCheckpoint(signed.clone())],
            audit_records: [record_of(&signed, now)].into_iter().chain(pruning.map(|p| p.record.clone())).collect(),
            ..WriteSet::default()
        };
        match self.inner.writer.commit(write).await? {
            WriteOutcome::Committed { .. } => Ok(Some(signed)),
            WriteOutcome::Replayed => {
                // Another replica has stored this number, unless the row was removed.
                let state = self.reserved_store().read_audit_state().await?;
                if state.last_checkpoint.is_some_and(|last| last.number >= signed.number) {
                    return Ok(None);
                }
                Err(Outage::during(OP_SIGN_CHECKPOINT)(CheckpointFault::Unknown(signed.number)).into())
            }
            WriteOutcome::Conflict => Err(LogicError::ImpossibleOutcome("conflict").into()),
            WriteOutcome::AlreadyApplied { .. } => Err(LogicError::ImpossibleOutcome("already applied").into()),
        }
    }
}

/// Reads the last stored checkpoint. It must verify: a checkpoint after a forged one would vouch
/// for it.
pub(super) fn read_last_checkpoint(keys: &dyn AuditKeys, state: &AuditState) -> Result<Option<Checkpoint>, Outage> {
    let Some(last) = &state.last_checkpoint else { return Ok(None) };
    let before = last.number.saturating_sub(1);
    let payload = keys.verify_checkpoint(&last.text).ok_or(CheckpointFault::Signature(before));
    let checkpoint = payload.and_then(|payload| {
        let checkpoint = serde_json::from_slice::<Checkpoint>(&payload).ok();
        checkpoint.filter(|found| found.number == last.number).ok_or(CheckpointFault::Malformed(before))
    });
    checkpoint.map(Some).map_err(Outage::during(OP_SIGN_CHECKPOINT))
}
