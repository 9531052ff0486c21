//! Rows of the registry: objects, secrets, blocks, keys, grants, and the versions for optimistic
//! concurrency.

use std::collections::BTreeMap;

use serde::Serialize;
use sqlx::FromRow;

use super::{RowContext, Tagged, TaggedRow, to_i64};
use crate::{
    domain::{
        grants::{
            Grant,
            break_glass::{BreakGlassGrant, Review},
        },
        id::ClientId,
        jose::jwk::SigningAlgorithm,
        keys::KeySchedule,
        registry::{Block, BlockKind, BlockSubject, Entry, ObjectKind, RegistryObject, StoredSecretTag},
        revocation::LogPosition,
        sealed_key::{KeyPurpose, SealedKeyName, StoredSealedKey},
        secret::SecretTag,
        time::Timestamp,
    },
    ports::{Outage, StoreSealer, StoredKey},
};

/// `objects`
#[derive(Serialize, FromRow)]
pub(crate) struct ObjectRow {
    pub(crate) kind: String,
    pub(crate) id: String,
    pub(crate) body: String,
    pub(crate) owner: String,
    pub(crate) registered_seq: i64,
}

impl ObjectRow {
    pub(crate) fn new(entry: &Entry, registered_at: LogPosition) -> Result<Self, Outage> {
        Ok(Self {
            kind: entry.object.kind().as_str().to_owned(),
            id: entry.object.id().to_owned(),
            body: serde_json::to_string(&entry.object).map_err(Outage::during("write an object"))?,
            owner: entry.source.as_str().to_owned(),
            registered_seq: to_i64(registered_at.number()),
        })
    }

    /// Returns the object and the position at which it was registered.
    pub(crate) fn registration_position(&self) -> Result<((ObjectKind, String), LogPosition), Outage> {
        let row = format!("{}/{}", self.kind, self.id);
        let context = RowContext { table: "objects", row: &row };
        let kind = context.parse_word("kind", &self.kind)?;
        Ok(((kind, self.id.clone()), LogPosition::new(context.parse_u64("registered_seq", self.registered_seq)?)))
    }

    pub(crate) fn read(&self) -> Result<Entry, Outage> {
        let row = format!("{}/{}", self.kind, self.id);
        let context = RowContext { table: "objects", row: &row };
        let object: RegistryObject = context.parse_json("body", &self.body)?;
        // An object under the name of another would be changed and removed as that one.
        if object.kind().as_str() != self.kind || object.id() != self.id {
            return Err(context.corrupt("id"));
        }
        Ok(Entry { object, source: context.parse_word("owner", &self.owner)? })
    }
}

/// `secrets`
#[derive(Serialize, FromRow)]
pub(crate) struct SecretRow {
    client: String,
    tag: Vec<u8>,
    owner: String,
}

impl SecretRow {
    pub(crate) fn read_all(rows: Vec<Self>) -> Result<BTreeMap<ClientId, StoredSecretTag>, Outage> {
        rows.into_iter()
            .map(|row| {
                let context = RowContext { table: "secrets", row: &row.client };
                let (client, owner) = (context.parse("client", &row.client)?, context.parse_word("owner", &row.owner)?);
                Ok((client, StoredSecretTag { tag: SecretTag::from_bytes(row.tag), source: owner }))
            })
            .collect()
    }
}

/// `blocks`
#[derive(Serialize, FromRow)]
pub(crate) struct BlockRow {
    pub(crate) kind: String,
    pub(crate) id: String,
    pub(crate) block_kind: String,
    pub(crate) reason: String,
    pub(crate) actor: String,
    pub(crate) occurred_at: i64,
}

impl BlockRow {
    pub(crate) fn new(one: &Block) -> Self {
        Self {
            kind: one.subject.kind().to_owned(),
            id: one.subject.id(),
            block_kind: one.kind.as_str().to_owned(),
            reason: one.reason.to_string(),
            actor: one.by.clone(),
            occurred_at: one.at.unix(),
        }
    }

    pub(crate) fn read(self) -> Result<Block, Outage> {
        let row = format!("{}/{}", self.kind, self.id);
        let context = RowContext { table: "blocks", row: &row };
        Ok(Block {
            subject: BlockSubject::parse(&self.kind, &self.id).ok_or_else(|| context.corrupt("id"))?,
            kind: [BlockKind::Suspended, BlockKind::Blocked]
                .into_iter()
                .find(|kind| kind.as_str() == self.block_kind)
                .ok_or_else(|| context.corrupt("block_kind"))?,
            reason: context.parse("reason", &self.reason)?,
            by: self.actor,
            at: context.parse_time("occurred_at", self.occurred_at)?,
        })
    }
}

/// `versions`
#[derive(Clone, Debug, FromRow)]
pub(crate) struct VersionRow {
    pub(crate) name: String,
    pub(crate) version: i64,
}

impl VersionRow {
    pub(crate) fn find(rows: &[Self], name: &'static str) -> Result<u64, Outage> {
        let context = RowContext { table: "versions", row: &name };
        let row = rows.iter().find(|row| row.name == name).ok_or_else(|| context.corrupt("version"))?;
        context.parse_u64("version", row.version)
    }
}

/// `signing_keys`
#[derive(FromRow)]
pub(crate) struct KeyRow {
    pub(crate) kid: String,
    pub(crate) algorithm: String,
    pub(crate) created: i64,
    pub(crate) activates: i64,
    pub(crate) retires: Option<i64>,
    pub(crate) gone: Option<i64>,
    pub(crate) public_jwk: String,
    pub(crate) sealed: Vec<u8>,
}

impl KeyRow {
    pub(crate) fn new(key: &StoredKey) -> Self {
        Self {
            kid: key.schedule.kid.to_string(),
            algorithm: key.schedule.algorithm.as_str().to_owned(),
            created: key.schedule.created_at.unix(),
            activates: key.schedule.activates_at.unix(),
            retires: key.schedule.retires_at.map(Timestamp::unix),
            gone: key.schedule.unpublished_at.map(Timestamp::unix),
            public_jwk: key.public_jwk.clone(),
            sealed: key.sealed_private_key.clone(),
        }
    }

    pub(crate) fn read(self) -> Result<StoredKey, Outage> {
        let context = RowContext { table: "signing_keys", row: &self.kid };
        let schedule = KeySchedule {
            kid: context.parse("kid", &self.kid)?,
            algorithm: SigningAlgorithm::parse(&self.algorithm).ok_or_else(|| context.corrupt("algorithm"))?,
            created_at: context.parse_time("created", self.created)?,
            activates_at: context.parse_time("activates", self.activates)?,
            retires_at: self.retires.map(|at| context.parse_time("retires", at)).transpose()?,
            unpublished_at: self.gone.map(|at| context.parse_time("gone", at)).transpose()?,
        };
        Ok(StoredKey { schedule, public_jwk: self.public_jwk, sealed_private_key: self.sealed })
    }
}

/// `sealed_keys`
#[derive(FromRow)]
pub(crate) struct SealedKeyRow {
    purpose: String,
    epoch: i64,
    created: i64,
    sealed: Vec<u8>,
}

impl SealedKeyRow {
    pub(crate) fn read(self) -> Result<StoredSealedKey, Outage> {
        let row = format!("{}/{}", self.purpose, self.epoch);
        let context = RowContext { table: "sealed_keys", row: &row };
        let purpose = KeyPurpose::parse(&self.purpose).ok_or_else(|| context.corrupt("purpose"))?;
        Ok(StoredSealedKey {
            name: SealedKeyName { purpose, epoch: context.parse_u64("epoch", self.epoch)? },
            created_at: context.parse_time("created", self.created)?,
            sealed: self.sealed,
        })
    }
}

/// `grants`
#[derive(Clone, Debug, Serialize, FromRow)]
pub(crate) struct GrantRow {
    id: String,
    pub(crate) requester_issuer: String,
    pub(crate) requester_subject: String,
    pub(crate) agent: String,
    pub(crate) authority: Option<String>,
    pub(crate) until: i64,
    pub(crate) actor: String,
    pub(crate) occurred_at: i64,
    pub(crate) break_glass: bool,
}

impl TaggedRow for GrantRow {
    const TABLE: &'static str = "grants";

    fn key(&self) -> String {
        self.id.clone()
    }
}

impl GrantRow {
    pub(crate) fn new(grant: &Grant) -> Result<Self, Outage> {
        let authority = grant.authority.as_ref().map(serde_json::to_string).transpose();
        Ok(Self {
            id: grant.id.to_string(),
            requester_issuer: grant.requester.issuer.to_string(),
            requester_subject: grant.requester.subject.to_string(),
            agent: grant.agent.to_string(),
            authority: authority.map_err(Outage::during("write a grant"))?,
            until: grant.expires.unix(),
            actor: grant.by.clone(),
            occurred_at: grant.at.unix(),
            break_glass: grant.break_glass,
        })
    }

    pub(crate) fn read(self) -> Result<Grant, Outage> {
        self.read_of("grants")
    }

    /// Parses the grant. `table` is for errors.
    fn read_of(self, table: &'static str) -> Result<Grant, Outage> {
        let context = RowContext { table, row: &self.id };
        Ok(Grant {
            id: context.parse("id", &self.id)?,
            requester: context.parse_requester(&self.requester_issuer, &self.requester_subject)?,
            agent: context.parse("agent", &self.agent)?,
            authority: self.authority.as_ref().map(|text| context.parse_json("authority", text)).transpose()?,
            expires: context.parse_time("until", self.until)?,
            by: self.actor,
            at: context.parse_time("occurred_at", self.occurred_at)?,
            break_glass: self.break_glass,
        })
    }
}

/// `break_glass`: the grant and its review.
#[derive(Clone, Debug, Serialize, FromRow)]
pub(crate) struct BreakGlassRow {
    id: String,
    pub(crate) requester_issuer: String,
    pub(crate) requester_subject: String,
    pub(crate) agent: String,
    pub(crate) authority: Option<String>,
    pub(crate) until: i64,
    pub(crate) actor: String,
    pub(crate) occurred_at: i64,
    pub(crate) reason: String,
    reviewed_by: Option<String>,
    reviewed_at: Option<i64>,
    note: Option<String>,
}

impl TaggedRow for BreakGlassRow {
    const TABLE: &'static str = "break_glass";

    fn key(&self) -> String {
        self.id.clone()
    }
}

impl BreakGlassRow {
    /// Creates the row of a grant that has not been reviewed.
    pub(crate) fn new(break_glass: &BreakGlassGrant) -> Result<Self, Outage> {
        let grant = GrantRow::new(&break_glass.grant)?;
        Ok(Self {
            id: grant.id,
            requester_issuer: grant.requester_issuer,
            requester_subject: grant.requester_subject,
            agent: grant.agent,
            authority: grant.authority,
            until: grant.until,
            actor: grant.actor,
            occurred_at: grant.occurred_at,
            reason: break_glass.reason.to_string(),
            reviewed_by: None,
            reviewed_at: None,
            note: None,
        })
    }

    /// Returns the row after a review. An existing review stays.
    pub(crate) fn after_review(self, review: &Review) -> Self {
        if self.reviewed_at.is_some() {
            return self;
        }
        Self {
            reviewed_by: Some(review.by.clone()),
            reviewed_at: Some(review.at.unix()),
            note: Some(review.note.to_string()),
            ..self
        }
    }

    fn read(self, is_withdrawn: bool) -> Result<BreakGlassGrant, Outage> {
        let context = RowContext { table: "break_glass", row: &self.id };
        let review = match (self.reviewed_by, self.reviewed_at, &self.note) {
            (Some(by), Some(at), Some(note)) => {
                Some(Review { by, at: context.parse_time("reviewed_at", at)?, note: context.parse("note", note)? })
            }
            (None, None, None) => None,
            (Some(_) | None, Some(_) | None, Some(_) | None) => return Err(context.corrupt("reviewed_by")),
        };
        let reason = context.parse("reason", &self.reason)?;
        let grant = GrantRow {
            id: self.id,
            requester_issuer: self.requester_issuer,
            requester_subject: self.requester_subject,
            agent: self.agent,
            authority: self.authority,
            until: self.until,
            actor: self.actor,
            occurred_at: self.occurred_at,
            break_glass: true,
        };
        Ok(BreakGlassGrant { grant: grant.read_of("break_glass")?, reason, is_withdrawn, review })
    }
}

/// `break_glass` with its tag, and whether the grant was withdrawn, which follows from `grants`.
#[derive(FromRow)]
pub(crate) struct StoredBreakGlassRow {
    #[sqlx(flatten)]
    pub(crate) row: Tagged<BreakGlassRow>,
    withdrawn: bool,
}

impl StoredBreakGlassRow {
    pub(crate) fn read(self, sealer: &dyn StoreSealer) -> Result<BreakGlassGrant, Outage> {
        self.row.read(sealer, |row| row.read(self.withdrawn))
    }
}
