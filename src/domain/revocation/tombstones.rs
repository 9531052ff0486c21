//! Compact table of tombstones. It may hold millions of tokens and tasks, so each takes only 24
//! bytes of a hash table. The table is sharded, so that growing or scanning a shard takes little
//! time.

use std::collections::HashMap;

use uuid::Uuid;

use super::{LogPosition, Standing, Target, delegation_key};
use crate::domain::{
    id::{ClientId, GrantId, TaskId, TokenId},
    requester::Requester,
    uri::{IssuerUrl, ResourceUri},
};

/// The tombstone of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tombstone {
    /// The position of the last entry about the key.
    pub(super) seq: LogPosition,
    /// The resulting standing of a token; never [`Standing::Live`].
    pub(super) standing: Standing,
}

/// A revocation key as a token carries it: the counterpart of a [`Target`].
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
    /// By its [key](super::tool_key).
    Tool(&'a str),
    BreakGlass(&'a ResourceUri),
    Delegation(&'a ClientId, &'a Requester),
}

/// All tombstones, by kind of key.
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
    tools: TextMap,
    break_glass: TextMap,
    delegations: TextMap,
}

type TextMap = HashMap<Box<str>, PackedTombstone>;

impl TombstoneTable {
    pub(super) fn len(&self) -> usize {
        let maps = [&self.requesters, &self.agents, &self.credentials, &self.resources, &self.issuers];
        let maps = maps.into_iter().chain([&self.tools, &self.break_glass, &self.delegations]);
        self.tokens.len + self.tasks.len + self.grants.len + maps.map(HashMap::len).sum::<usize>()
    }

    /// Returns whether there is a tombstone of a tool.
    pub(super) fn has_tools(&self) -> bool {
        !self.tools.is_empty()
    }

    /// Returns the tombstone of a key.
    pub(super) fn find(&self, key: KeyRef<'_>) -> Option<Tombstone> {
        let text = |map: &TextMap, key: &str| map.get(key).copied();
        let packed = match key {
            KeyRef::Token(id) => self.tokens.get(id.uuid()),
            KeyRef::Task(id) => self.tasks.get(id.uuid()),
            KeyRef::Grant(id) => self.grants.get(id.uuid()),
            // Avoids building the text of the key if the map is empty.
            KeyRef::Requester(_) if self.requesters.is_empty() => None,
            KeyRef::Requester(requester) => match Target::for_requester(requester) {
                Target::Requester(key) => text(&self.requesters, &key),
                _ => None,
            },
            KeyRef::Agent(id) => text(&self.agents, id.as_str()),
            KeyRef::Credentials(id) => text(&self.credentials, id.as_str()),
            KeyRef::Resource(uri) => text(&self.resources, uri.as_str()),
            KeyRef::Issuer(url) => text(&self.issuers, url.as_str()),
            KeyRef::Tool(key) => text(&self.tools, key),
            KeyRef::BreakGlass(uri) => text(&self.break_glass, uri.as_str()),
            KeyRef::Delegation(..) if self.delegations.is_empty() => None,
            KeyRef::Delegation(agent, requester) => text(&self.delegations, &delegation_key(agent, requester)),
        };
        packed.map(PackedTombstone::unpack)
    }

    /// Returns the tombstone of the target of an entry.
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
            Target::Tool(..) => self.tools.get(target.key().as_str()).copied(),
            Target::BreakGlass(uri) => self.break_glass.get(uri.as_str()).copied(),
            Target::Delegation(..) => self.delegations.get(target.key().as_str()).copied(),
            Target::AllAgents
            | Target::Evidence(_)
            | Target::Registry
            | Target::Keys
            | Target::Configuration
            | Target::IssuerKey(_)
            | Target::IssuerKeySet(_) => None,
        };
        packed.map(PackedTombstone::unpack)
    }

    /// Sets the tombstone of a target, replacing an earlier one.
    pub(super) fn insert(&mut self, target: &Target, tombstone: Tombstone) {
        let packed = PackedTombstone::pack(tombstone);
        let insert_text = |map: &mut TextMap, key: &str| _ = map.insert(key.into(), packed);
        match target {
            Target::Token(id) => self.tokens.insert(id.uuid(), packed),
            Target::Task(id) => self.tasks.insert(id.uuid(), packed),
            Target::Grant(id) => self.grants.insert(id.uuid(), packed),
            Target::Requester(key) => insert_text(&mut self.requesters, key),
            Target::Agent(id) => insert_text(&mut self.agents, id.as_str()),
            Target::Credentials(id) => insert_text(&mut self.credentials, id.as_str()),
            Target::Resource(uri) => insert_text(&mut self.resources, uri.as_str()),
            Target::Issuer(url) => insert_text(&mut self.issuers, url.as_str()),
            Target::Tool(..) => insert_text(&mut self.tools, &target.key()),
            Target::BreakGlass(uri) => insert_text(&mut self.break_glass, uri.as_str()),
            Target::Delegation(..) => insert_text(&mut self.delegations, &target.key()),
            Target::AllAgents
            | Target::Evidence(_)
            | Target::Registry
            | Target::Keys
            | Target::Configuration
            | Target::IssuerKey(_)
            | Target::IssuerKeySet(_) => {}
        }
    }

    /// Removes the tombstone of a target.
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
            Target::Tool(..) => _ = self.tools.remove(target.key().as_str()),
            Target::BreakGlass(uri) => _ = self.break_glass.remove(uri.as_str()),
            Target::Delegation(..) => _ = self.delegations.remove(target.key().as_str()),
            Target::AllAgents
            | Target::Evidence(_)
            | Target::Registry
            | Target::Keys
            | Target::Configuration
            | Target::IssuerKey(_)
            | Target::IssuerKeySet(_) => {}
        }
    }

    /// Evicts tombstones at or before `last` in the log, from shard `n` of [`SHARD_COUNT`].
    pub(super) fn evict(&mut self, n: usize, last: LogPosition) {
        let is_kept = |packed: &PackedTombstone| packed.unpack().seq > last;
        for ids in [&mut self.tokens, &mut self.tasks, &mut self.grants] {
            ids.retain(n, is_kept);
        }
        // These maps are small.
        if n == 0 {
            let small_maps = [&mut self.requesters, &mut self.agents, &mut self.credentials];
            let small_maps = small_maps.into_iter().chain([&mut self.resources, &mut self.issuers]);
            for map in small_maps.chain([&mut self.tools, &mut self.break_glass, &mut self.delegations]) {
                map.retain(|_, packed| is_kept(packed));
            }
        }
    }
}

/// Position and standing in eight bytes. A position fits into 63 bits, because the stores count
/// with signed integers.
#[derive(Clone, Copy, Debug)]
struct PackedTombstone(u64);

impl PackedTombstone {
    fn pack(tombstone: Tombstone) -> Self {
        Self(tombstone.seq.number() << 1 | u64::from(tombstone.standing == Standing::Suspended))
    }

    fn unpack(self) -> Tombstone {
        let standing = if self.0 & 1 == 1 { Standing::Suspended } else { Standing::Revoked };
        Tombstone { seq: LogPosition::new(self.0 >> 1), standing }
    }
}

/// The number of shards.
pub(super) const SHARD_COUNT: usize = 256;

/// Ids, sharded by their last byte, which is random.
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
        if let Some(shard) = self.shards.get_mut(Self::shard_index(id)) {
            self.len += usize::from(shard.insert(id, packed).is_none());
        }
    }

    fn remove(&mut self, id: Uuid) {
        if let Some(shard) = self.shards.get_mut(Self::shard_index(id)) {
            self.len -= usize::from(shard.remove(&id).is_some());
        }
    }

    fn retain(&mut self, n: usize, is_kept: impl Fn(&PackedTombstone) -> bool) {
        if let Some(shard) = self.shards.get_mut(n) {
            let before = shard.len();
            shard.retain(|_, packed| is_kept(packed));
            self.len -= before - shard.len();
            // Memory that a burst required is released after it.
            if shard.len() < shard.capacity() / 4 {
                shard.shrink_to_fit();
            }
        }
    }
}
