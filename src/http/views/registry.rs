//! Registry objects, blocks, secrets and signing keys.

use serde::Serialize;

use crate::domain::{
    id::{ClientId, KeyId},
    jose::jwk::SigningAlgorithm,
    keys::{KeySchedule, KeyState},
    registry::{Block, BlockKind, BlockSubject, Entry, Registry, RegistryObject, Source},
    time::Timestamp,
};

/// A registry object with its source, and the block that an admin has placed on it. A block is
/// independent of the object's own fields.
#[derive(Serialize)]
pub(in crate::http) struct ObjectView {
    owner: Source,
    #[serde(flatten)]
    object: RegistryObject,
    #[serde(skip_serializing_if = "Option::is_none")]
    block: Option<BlockView>,
}

impl ObjectView {
    pub(in crate::http) fn new(entry: &Entry, registry: &Registry) -> Self {
        let subject = BlockSubject::Object(entry.object.kind(), entry.object.id().to_owned());
        let block = registry.find_block(&subject).map(BlockView::from);
        Self { owner: entry.source, object: entry.object.clone(), block }
    }
}

/// A blocked party.
#[derive(Serialize)]
pub(in crate::http) struct BlockView {
    kind: &'static str,
    id: String,
    mode: BlockKind,
    reason: String,
    by: String,
    at: String,
}

impl From<&Block> for BlockView {
    fn from(block: &Block) -> Self {
        Self {
            kind: block.subject.kind(),
            id: block.subject.id(),
            mode: block.kind,
            reason: block.reason.to_string(),
            by: block.by.clone(),
            at: block.at.to_rfc3339(),
        }
    }
}

/// A signing key: its schedule, without key material.
#[derive(Serialize)]
pub(in crate::http) struct KeyView {
    kid: KeyId,
    algorithm: SigningAlgorithm,
    state: KeyState,
    created: String,
    activates: String,
    retires: Option<String>,
    gone: Option<String>,
}

impl From<(KeySchedule, KeyState)> for KeyView {
    fn from((schedule, state): (KeySchedule, KeyState)) -> Self {
        Self {
            kid: schedule.kid,
            algorithm: schedule.algorithm,
            state,
            created: schedule.created_at.to_rfc3339(),
            activates: schedule.activates_at.to_rfc3339(),
            retires: schedule.retires_at.map(Timestamp::to_rfc3339),
            gone: schedule.unpublished_at.map(Timestamp::to_rfc3339),
        }
    }
}

/// A created key.
#[derive(Serialize)]
pub(in crate::http) struct CreatedKeyView {
    pub(in crate::http) algorithm: SigningAlgorithm,
    pub(in crate::http) kid: KeyId,
}

/// A new secret. No other response contains a secret.
#[derive(Serialize)]
pub(in crate::http) struct SecretView<'a> {
    pub(in crate::http) client_id: &'a ClientId,
    pub(in crate::http) client_secret: &'a str,
}
