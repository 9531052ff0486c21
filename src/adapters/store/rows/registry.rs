//! What the registry is kept in: objects, secrets, keys, grants, and the versions that changes of them build on.

use std::collections::BTreeMap;

use sqlx::FromRow;

use super::{Place, signed};
use crate::{
    domain::{
        break_glass::{BreakGlass, Review},
        grant::Grant,
        id::ClientId,
        jwk::SigningAlgorithm,
        keys::KeyDates,
        registry::{Entry, Kind, Object, OwnedTag, ShutOut, Who},
        revocation::Seq,
        secret::SecretTag,
        time::Timestamp,
    },
    ports::{Outage, StoredKey},
};

/// `objects`
#[derive(FromRow)]
pub(crate) struct ObjectRow {
    pub(crate) kind: String,
    pub(crate) id: String,
    pub(crate) body: String,
    pub(crate) owner: String,
    pub(crate) since: i64,
}

impl ObjectRow {
    pub(crate) fn of(entry: &Entry, since: Seq) -> Result<Self, Outage> {
        Ok(Self {
            kind: entry.object.kind().as_str().to_owned(),
            id: entry.object.id().to_owned(),
            body: serde_json::to_string(&entry.object).map_err(Outage::during("write an object"))?,
            owner: entry.owner.as_str().to_owned(),
            since: signed(since.number()),
        })
    }

    /// Which object it is, and from where on.
    pub(crate) fn registered(&self) -> Result<((Kind, String), Seq), Outage> {
        let row = format!("{}/{}", self.kind, self.id);
        let place = Place { table: "objects", row: &row };
        let kind = place.word("kind", &self.kind)?;
        Ok(((kind, self.id.clone()), Seq::new(place.number("since", self.since)?)))
    }

    pub(crate) fn read(&self) -> Result<Entry, Outage> {
        let row = format!("{}/{}", self.kind, self.id);
        let place = Place { table: "objects", row: &row };
        let object: Object = place.json("body", &self.body)?;
        // An object that stands under another one's name would be changed and removed as that one.
        if object.kind().as_str() != self.kind || object.id() != self.id {
            return Err(place.corrupt("id"));
        }
        Ok(Entry { object, owner: place.word("owner", &self.owner)? })
    }
}

/// `secrets`
#[derive(FromRow)]
pub(crate) struct SecretRow {
    client: String,
    tag: Vec<u8>,
    owner: String,
}

impl SecretRow {
    pub(crate) fn read_all(rows: Vec<Self>) -> Result<BTreeMap<ClientId, OwnedTag>, Outage> {
        rows.into_iter()
            .map(|row| {
                let place = Place { table: "secrets", row: &row.client };
                let (client, owner) = (place.name("client", &row.client)?, place.word("owner", &row.owner)?);
                Ok((client, OwnedTag { tag: SecretTag::from_bytes(row.tag), owner }))
            })
            .collect()
    }
}

/// `shut_out`
#[derive(FromRow)]
pub(crate) struct ShutOutRow {
    pub(crate) kind: String,
    pub(crate) id: String,
    pub(crate) how: String,
    pub(crate) reason: String,
    pub(crate) done_by: String,
    pub(crate) done_at: i64,
}

impl ShutOutRow {
    pub(crate) fn of(one: &ShutOut) -> Self {
        Self {
            kind: one.who.kind().to_owned(),
            id: one.who.id(),
            how: one.how.as_str().to_owned(),
            reason: one.reason.to_string(),
            done_by: one.by.clone(),
            done_at: one.at.unix(),
        }
    }

    pub(crate) fn read(self) -> Result<ShutOut, Outage> {
        let row = format!("{}/{}", self.kind, self.id);
        let place = Place { table: "shut_out", row: &row };
        Ok(ShutOut {
            who: Who::parse(&self.kind, &self.id).ok_or_else(|| place.corrupt("id"))?,
            how: place.word("how", &self.how)?,
            reason: place.name("reason", &self.reason)?,
            by: self.done_by,
            at: place.time("done_at", self.done_at)?,
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
        let place = Place { table: "versions", row: &name };
        let row = rows.iter().find(|row| row.name == name).ok_or_else(|| place.corrupt("version"))?;
        place.number("version", row.version)
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
    pub(crate) fn of(key: &StoredKey) -> Self {
        Self {
            kid: key.dates.kid.to_string(),
            algorithm: key.dates.algorithm.as_str().to_owned(),
            created: key.dates.created.unix(),
            activates: key.dates.activates.unix(),
            retires: key.dates.retires.map(Timestamp::unix),
            gone: key.dates.gone.map(Timestamp::unix),
            public_jwk: key.public_jwk.clone(),
            sealed: key.sealed.clone(),
        }
    }

    pub(crate) fn read(self) -> Result<StoredKey, Outage> {
        let place = Place { table: "signing_keys", row: &self.kid };
        let dates = KeyDates {
            kid: place.name("kid", &self.kid)?,
            algorithm: SigningAlgorithm::parse(&self.algorithm).ok_or_else(|| place.corrupt("algorithm"))?,
            created: place.time("created", self.created)?,
            activates: place.time("activates", self.activates)?,
            retires: self.retires.map(|at| place.time("retires", at)).transpose()?,
            gone: self.gone.map(|at| place.time("gone", at)).transpose()?,
        };
        Ok(StoredKey { dates, public_jwk: self.public_jwk, sealed: self.sealed })
    }
}

/// `grants`
#[derive(FromRow)]
pub(crate) struct GrantRow {
    id: String,
    pub(crate) requester_issuer: String,
    pub(crate) requester_subject: String,
    pub(crate) agent: String,
    pub(crate) authority: Option<String>,
    pub(crate) until: i64,
    pub(crate) done_by: String,
    pub(crate) done_at: i64,
    pub(crate) break_glass: bool,
}

impl GrantRow {
    pub(crate) fn of(grant: &Grant) -> Result<Self, Outage> {
        let authority = grant.authority.as_ref().map(serde_json::to_string).transpose();
        Ok(Self {
            id: grant.id.to_string(),
            requester_issuer: grant.requester.issuer.to_string(),
            requester_subject: grant.requester.subject.to_string(),
            agent: grant.agent.to_string(),
            authority: authority.map_err(Outage::during("write a grant"))?,
            until: grant.until.unix(),
            done_by: grant.by.clone(),
            done_at: grant.at.unix(),
            break_glass: grant.break_glass,
        })
    }

    pub(crate) fn read(self) -> Result<Grant, Outage> {
        let place = Place { table: "grants", row: &self.id };
        Ok(Grant {
            id: place.name("id", &self.id)?,
            requester: place.requester(&self.requester_issuer, &self.requester_subject)?,
            agent: place.name("agent", &self.agent)?,
            authority: self.authority.as_ref().map(|text| place.json("authority", text)).transpose()?,
            until: place.time("until", self.until)?,
            by: self.done_by,
            at: place.time("done_at", self.done_at)?,
            break_glass: self.break_glass,
        })
    }
}

/// `break_glass`: what the grant said, and the review of what was done with it.
#[derive(FromRow)]
pub(crate) struct BreakGlassRow {
    #[sqlx(flatten)]
    grant: GrantRow,
    reason: String,
    withdrawn: bool,
    reviewed_by: Option<String>,
    reviewed_at: Option<i64>,
    note: Option<String>,
}

impl BreakGlassRow {
    pub(crate) fn read(self) -> Result<BreakGlass, Outage> {
        let grant = self.grant.read()?;
        let id = grant.id.to_string();
        let place = Place { table: "break_glass", row: &id };
        let review = match (self.reviewed_by, self.reviewed_at, &self.note) {
            (Some(by), Some(at), Some(note)) => {
                Some(Review { by, at: place.time("reviewed_at", at)?, note: place.name("note", note)? })
            }
            (None, None, None) => None,
            (Some(_) | None, Some(_) | None, Some(_) | None) => return Err(place.corrupt("reviewed_by")),
        };
        Ok(BreakGlass { grant, reason: place.name("reason", &self.reason)?, withdrawn: self.withdrawn, review })
    }
}
