//! Snapshots: the registry, and the revocation log up to a position, as one request sees them.

use std::{collections::BTreeSet, sync::Arc};

use parking_lot::RwLock;

use crate::domain::{
    authority::Permission,
    id::ClientId,
    registry::{Registry, issuer::IssuerKeyId},
    requester::Requester,
    revocation::{
        Index, LogEntry, LogPosition, RevocationKeys, Standing, SuspensionCause, UnknownEntryError,
        evidence::{EndedEvidence, EvidenceEnd, PresentedEvidence},
        tool_key,
    },
};

/// What a replica knows at one moment: the registry, and the log up to a position. A request uses
/// one snapshot from start to end.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The registry.
    pub registry: Arc<Registry>,
    /// The log position that had been applied; the index may contain later entries.
    pub seq: LogPosition,
    /// The log that `seq` belongs to. The number changes when the store has lost a part of its log,
    /// because positions then mean other entries.
    pub(in crate::app) log_epoch: u64,
    /// The number of times that the registry had been read: whatever was derived from a registry is
    /// valid for every snapshot with the same number. (After a failover, a registry *version* may
    /// denote another registry.)
    pub(in crate::app) registry_generation: u64,
    index: Arc<RwLock<Index>>,
    withdrawn_issuer_keys: Arc<BTreeSet<IssuerKeyId>>,
}

impl Snapshot {
    /// Returns the keys of identity providers that admins withdrew.
    #[must_use]
    pub fn withdrawn_issuer_keys(&self) -> &BTreeSet<IssuerKeyId> {
        &self.withdrawn_issuer_keys
    }

    /// Returns the standing of a token according to the log.
    #[must_use]
    pub fn standing(&self, keys: &RevocationKeys) -> Standing {
        self.index.read().standing(keys)
    }

    /// Returns whether every tool of a token is live.
    #[must_use]
    pub fn all_tools_are_live(&self, keys: &RevocationKeys) -> bool {
        self.index.read().all_tools_are_live(keys)
    }

    /// Returns whether a permission of a token with this `rev` is live.
    #[must_use]
    pub fn is_permission_live(&self, permission: &Permission, rev: LogPosition) -> bool {
        permission.tool().is_none_or(|tool| {
            self.index.read().tool_standing(&tool_key(&permission.resource, tool), rev) == Standing::Live
        })
    }

    /// Returns what a suspended token waits for.
    #[must_use]
    pub fn suspension_cause(&self, keys: &RevocationKeys) -> Option<SuspensionCause> {
        self.index.read().suspension_cause(keys)
    }

    /// Returns why a user token is no longer evidence for an agent; `None` if it still is.
    #[must_use]
    pub fn evidence_end(
        &self,
        agent: &ClientId,
        requester: &Requester,
        evidence: &PresentedEvidence,
    ) -> Option<EvidenceEnd> {
        self.index.read().evidence_end(agent, requester, evidence)
    }

    /// Returns why a user token no longer speaks for its requester; `None` if it still does.
    #[must_use]
    pub fn evidence_end_of_requester(
        &self,
        requester: &Requester,
        evidence: &PresentedEvidence,
    ) -> Option<EvidenceEnd> {
        self.index.read().evidence_end_of_requester(requester, evidence)
    }

    /// Returns whether this evidence was ended, whenever that was.
    #[must_use]
    pub fn has_ended(&self, ended: &EndedEvidence) -> bool {
        self.index.read().has_ended(ended)
    }

    /// Returns whether a requester refused an agent.
    #[must_use]
    pub fn is_refused(&self, agent: &ClientId, requester: &Requester) -> bool {
        self.index.read().is_refused(agent, requester)
    }

    /// Returns the agents that a requester refused.
    #[must_use]
    pub fn refused_agents(&self, requester: &Requester) -> Vec<ClientId> {
        self.index.read().refused_agents(requester)
    }

    /// Returns whether a retained entry ends the token: every replica that has applied as much
    /// gives the same answer.
    #[must_use]
    pub fn is_revoked(&self, keys: &RevocationKeys) -> bool {
        self.index.read().standing_by_entries(keys) == Standing::Revoked
    }
}

/// The memory of a follower, of which snapshots are taken.
#[derive(Default)]
pub(super) struct FollowerState {
    registry: Arc<Registry>,
    is_loaded: bool,
    registry_generation: u64,
    /// Replaced as a whole by [`reset`](Self::reset): existing snapshots keep the previous one.
    index: Arc<RwLock<Index>>,
    /// The entry up to which the log has been applied.
    last_applied: Option<LogEntry>,
    /// Whether entries were applied that may follow a missing one: the log has not been compared
    /// with its anchor yet.
    is_unverified: bool,
    /// The keys of identity providers that are not used.
    withdrawn_issuer_keys: Arc<BTreeSet<IssuerKeyId>>,
    /// The number of times that the store turned out to have another log.
    log_epoch: u64,
    /// The entry that this version of the program does not know. While there is one, nothing is
    /// answered from memory.
    unknown_entry: Option<UnknownEntryError>,
}

impl FollowerState {
    /// Returns a snapshot, if the registry is loaded and the log has been applied up to `seq`.
    pub(super) fn snapshot_at(&self, seq: LogPosition) -> Option<Snapshot> {
        // A changed registry is stored before the position advances, so the registry is not older
        // than the position.
        let applied = self.applied_seq();
        (self.is_loaded && applied >= seq).then(|| Snapshot {
            registry: Arc::clone(&self.registry),
            seq: applied,
            log_epoch: self.log_epoch,
            registry_generation: self.registry_generation,
            index: Arc::clone(&self.index),
            withdrawn_issuer_keys: Arc::clone(&self.withdrawn_issuer_keys),
        })
    }

    /// Returns the registry as last read.
    pub(super) fn registry(&self) -> &Registry {
        &self.registry
    }

    pub(super) fn withdrawn_issuer_keys(&self) -> &BTreeSet<IssuerKeyId> {
        &self.withdrawn_issuer_keys
    }

    pub(super) fn set_withdrawn_issuer_keys(&mut self, withdrawn: BTreeSet<IssuerKeyId>) {
        self.withdrawn_issuer_keys = Arc::new(withdrawn);
    }

    /// Returns whether the registry and the keys have been read.
    pub(super) fn is_loaded(&self) -> bool {
        self.is_loaded
    }

    pub(super) fn applied_seq(&self) -> LogPosition {
        self.index.read().applied()
    }

    pub(super) fn last_applied(&self) -> Option<&LogEntry> {
        self.last_applied.as_ref()
    }

    pub(super) fn set_last_applied(&mut self, entry: Option<LogEntry>) {
        self.last_applied = entry;
    }

    pub(super) fn unknown_entry(&self) -> Option<&UnknownEntryError> {
        self.unknown_entry.as_ref()
    }

    /// Returns whether the value differs from the previous one.
    pub(super) fn set_unknown_entry(&mut self, entry: Option<UnknownEntryError>) -> bool {
        let is_changed = self.unknown_entry != entry;
        self.unknown_entry = entry;
        is_changed
    }

    pub(super) fn log_epoch(&self) -> u64 {
        self.log_epoch
    }

    pub(super) fn index(&self) -> Arc<RwLock<Index>> {
        Arc::clone(&self.index)
    }

    pub(super) fn replace_registry(&mut self, registry: Arc<Registry>) {
        (self.registry, self.is_loaded) = (registry, true);
        self.registry_generation = self.registry_generation.saturating_add(1);
    }

    /// Begins to apply entries of which some may be missing. Returns the index.
    pub(super) fn begin_unverified(&mut self) -> Arc<RwLock<Index>> {
        self.is_unverified = true;
        self.index()
    }

    /// Records that nothing is missing up to an entry.
    pub(super) fn set_verified(&mut self, last: LogEntry) {
        (self.is_unverified, self.last_applied) = (false, Some(last));
    }

    /// Discards what an attempt applied that failed before the comparison with the anchor: a
    /// missing entry that was restored since would not be applied below it.
    pub(super) fn discard_unverified(&mut self) {
        if self.is_unverified {
            self.reset();
        }
    }

    /// Discards everything, because the store has another log, or the memory may lack entries.
    pub(super) fn reset(&mut self) {
        *self = Self {
            log_epoch: self.log_epoch.saturating_add(1),
            registry_generation: self.registry_generation,
            ..Self::default()
        };
    }
}
