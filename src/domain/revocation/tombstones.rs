//! What is held, by name. There may be millions of tokens and tasks among it, so each of them takes 24 bytes of a table and
//! nothing else, and the table is many small ones: none takes long to grow, or to be gone through.

use std::collections::HashMap;

use uuid::Uuid;

use super::{LogPosition, Standing, Target};
use crate::domain::{
    id::{ClientId, GrantId, TaskId, TokenId},
    requester::Requester,
    uri::{IssuerUrl, ResourceUri},
};

/// What is held against a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tombstone {
    /// The place of the last entry about it.
    pub(super) seq: LogPosition,
    /// What it makes of a token; never [`Standing::Live`].
    pub(super) standing: Standing,
}

/// A name as it stands in a token: what a [`Target`] is in an entry.
#[derive(Clone, Copy, Debug)]
pub(super) enum KeyRef<'a> {
    Token(TokenId),
    Task(TaskId),
    Grant(GrantId),
    Requester(&'a Requester),
    Agent(&'a ClientId),
    Credentials(&'a ClientId),
    Resource(&'a ResourceUri),
    Issuer(&'a IssuerUrl),
}

/// All names that something is held against.
#[derive(Debug, Default)]
pub(super) struct TombstoneTable {
    tokens: ShardedIdMap,
    tasks: ShardedIdMap,
    grants: ShardedIdMap,
    requesters: TextMap,
    agents: TextMap,
    credentials: TextMap,
    resources: TextMap,
    issuers: TextMap,
}

type TextMap = HashMap<Box<str>, PackedTombstone>;

impl TombstoneTable {
    pub(super) fn len(&self) -> usize {
        let texts = [&self.requesters, &self.agents, &self.credentials, &self.resources, &self.issuers];
        self.tokens.len + self.tasks.len + self.grants.len + texts.into_iter().map(HashMap::len).sum::<usize>()
    }

    /// What is held against a name.
    pub(super) fn find(&self, name: KeyRef<'_>) -> Option<Tombstone> {
        let text = |texts: &TextMap, name: &str| texts.get(name).copied();
        let packed = match name {
            KeyRef::Token(id) => self.tokens.get(id.uuid()),
            KeyRef::Task(id) => self.tasks.get(id.uuid()),
            KeyRef::Grant(id) => self.grants.get(id.uuid()),
            // Its text has to be put together, so not for nothing.
            KeyRef::Requester(_) if self.requesters.is_empty() => None,
            KeyRef::Requester(requester) => match Target::for_requester(requester) {
                Target::Requester(key) => text(&self.requesters, &key),
                _ => None,
            },
            KeyRef::Agent(id) => text(&self.agents, id.as_str()),
            KeyRef::Credentials(id) => text(&self.credentials, id.as_str()),
            KeyRef::Resource(uri) => text(&self.resources, uri.as_str()),
            KeyRef::Issuer(url) => text(&self.issuers, url.as_str()),
        };
        packed.map(PackedTombstone::unpack)
    }

    /// What is held against the target of an entry.
    pub(super) fn entry_for(&self, target: &Target) -> Option<Tombstone> {
        let packed = match target {
            Target::Token(id) => self.tokens.get(id.uuid()),
            Target::Task(id) => self.tasks.get(id.uuid()),
            Target::Grant(id) => self.grants.get(id.uuid()),
            Target::Requester(key) => self.requesters.get(key.as_str()).copied(),
            Target::Agent(id) => self.agents.get(id.as_str()).copied(),
            Target::Credentials(id) => self.credentials.get(id.as_str()).copied(),
            Target::Resource(uri) => self.resources.get(uri.as_str()).copied(),
            Target::Issuer(url) => self.issuers.get(url.as_str()).copied(),
            Target::Registry | Target::Keys => None,
        };
        packed.map(PackedTombstone::unpack)
    }

    /// Holds this against a target, in place of what was held.
    pub(super) fn insert(&mut self, target: &Target, held: Tombstone) {
        let packed = PackedTombstone::pack(held);
        let put = |texts: &mut TextMap, name: &str| _ = texts.insert(name.into(), packed);
        match target {
            Target::Token(id) => self.tokens.insert(id.uuid(), packed),
            Target::Task(id) => self.tasks.insert(id.uuid(), packed),
            Target::Grant(id) => self.grants.insert(id.uuid(), packed),
            Target::Requester(key) => put(&mut self.requesters, key),
            Target::Agent(id) => put(&mut self.agents, id.as_str()),
            Target::Credentials(id) => put(&mut self.credentials, id.as_str()),
            Target::Resource(uri) => put(&mut self.resources, uri.as_str()),
            Target::Issuer(url) => put(&mut self.issuers, url.as_str()),
            Target::Registry | Target::Keys => {}
        }
    }

    /// Holds nothing against a target any more.
    pub(super) fn remove(&mut self, target: &Target) {
        match target {
            Target::Token(id) => self.tokens.remove(id.uuid()),
            Target::Task(id) => self.tasks.remove(id.uuid()),
            Target::Grant(id) => self.grants.remove(id.uuid()),
            Target::Requester(key) => _ = self.requesters.remove(key.as_str()),
            Target::Agent(id) => _ = self.agents.remove(id.as_str()),
            Target::Credentials(id) => _ = self.credentials.remove(id.as_str()),
            Target::Resource(uri) => _ = self.resources.remove(uri.as_str()),
            Target::Issuer(url) => _ = self.issuers.remove(url.as_str()),
            Target::Registry | Target::Keys => {}
        }
    }

    /// Drops what stands at `last` or before it in the log: in the `n`th part of the table, of [`PARTS`].
    pub(super) fn evict(&mut self, n: usize, last: LogPosition) {
        let is_kept = |packed: &PackedTombstone| packed.unpack().seq > last;
        for ids in [&mut self.tokens, &mut self.tasks, &mut self.grants] {
            ids.retain(n, is_kept);
        }
        // There are few of these.
        if n == 0 {
            let named = [&mut self.requesters, &mut self.agents, &mut self.credentials];
            for texts in named.into_iter().chain([&mut self.resources, &mut self.issuers]) {
                texts.retain(|_, packed| is_kept(packed));
            }
        }
    }
}

/// Place and standing in eight bytes: a place fits into 63 bits, for that is what the stores count with.
#[derive(Clone, Copy, Debug)]
struct PackedTombstone(u64);

impl PackedTombstone {
    fn pack(held: Tombstone) -> Self {
        Self(held.seq.number() << 1 | u64::from(held.standing == Standing::Suspended))
    }

    fn unpack(self) -> Tombstone {
        let standing = if self.0 & 1 == 1 { Standing::Suspended } else { Standing::Revoked };
        Tombstone { seq: LogPosition::new(self.0 >> 1), standing }
    }
}

/// How many small tables there are.
pub(super) const SHARD_COUNT: usize = 256;

/// Ids, by their last byte: that one is random.
#[derive(Debug, Default)]
struct ShardedIdMap {
    shards: Vec<HashMap<Uuid, PackedTombstone>>,
    len: usize,
}

impl ShardedIdMap {
    fn shard_index(id: Uuid) -> usize {
        id.as_bytes().last().copied().map_or(0, usize::from)
    }

    fn get(&self, id: Uuid) -> Option<PackedTombstone> {
        self.shards.get(Self::shard_index(id))?.get(&id).copied()
    }

    fn insert(&mut self, id: Uuid, packed: PackedTombstone) {
        if self.shards.is_empty() {
            self.shards.resize_with(SHARD_COUNT, HashMap::new);
        }
        if let Some(part) = self.shards.get_mut(Self::shard_index(id)) {
            self.len += usize::from(part.insert(id, packed).is_none());
        }
    }

    fn remove(&mut self, id: Uuid) {
        if let Some(part) = self.shards.get_mut(Self::shard_index(id)) {
            self.len -= usize::from(part.remove(&id).is_some());
        }
    }

    fn retain(&mut self, n: usize, is_kept: impl Fn(&PackedTombstone) -> bool) {
        if let Some(part) = self.shards.get_mut(n) {
            let before = part.len();
            part.retain(|_, packed| is_kept(packed));
            self.len -= before - part.len();
            // What a burst took is given back after it.
            if part.len() < part.capacity() / 4 {
                part.shrink_to_fit();
            }
        }
    }
}
