//! What becomes of each write of a batch: the part of `commit` that is the same in every store. An adapter asks its
//! tables what [`Asked`] says, [`Plan::of`] judges, and the adapter carries the plan out. No I/O here.
//!
//! Guards are judged one write after the other, as if each were a batch of its own. A write whose guards say no leaves
//! no trace, so what was taken in advance for it (its one-time ids, its idempotency key) is given back in the same
//! transaction: that needs no savepoint, and costs nothing when all is well.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::{
    adapters::store::rows::{AnswerRow, LogRow, OnceRow, TaskRow, TokenRow, TurnsRow, VersionRow, digest_of, signed},
    domain::{
        audit::Record,
        id::TaskId,
        revocation::{NewEntry, Seq},
        time::Timestamp,
    },
    ports::{Change, Expected, Idempotency, Like, Outage, Write, Written},
};

/// The version of the registry, in the table `versions`.
pub(crate) const REGISTRY: &str = "registry";
/// The version of the keys.
pub(crate) const KEYS: &str = "keys";

/// What the guards of a batch need from the tables.
#[derive(Debug)]
pub(crate) struct Asked {
    /// Whether the versions are to be read, and locked until the end.
    pub(crate) versions: bool,
    /// Idempotency keys to be taken, if they are free: sorted, so that two batches wait for each other in one order only.
    pub(crate) keys: Vec<AnswerRow>,
    /// One-time ids to be taken, if they are free: sorted.
    pub(crate) once: Vec<OnceRow>,
    /// Tasks whose turns are to be read, and locked until the end: sorted.
    pub(crate) tasks: Vec<String>,
    /// Grants to be counted that are not over at a time. Whoever adds one holds the lock of the versions.
    pub(crate) room: HashMap<Like, Timestamp>,
}

impl Asked {
    pub(crate) fn by(batch: &[Write]) -> Self {
        let mut keys = BTreeMap::new();
        let mut once = BTreeMap::<String, i64>::new();
        for write in batch {
            if let Some(request) = &write.idempotency {
                let row = AnswerRow::of(request, None);
                keys.entry(row.digest.clone()).or_insert(row);
            }
            for row in write.once.iter().map(OnceRow::of) {
                // Whoever of the batch gets it, it is kept as long as any of them asked.
                let keep_until = once.entry(row.digest).or_default();
                *keep_until = row.keep_until.max(*keep_until);
            }
        }
        let expected = batch.iter().filter_map(|write| write.expected.as_ref());
        let turned = batch.iter().flat_map(|write| &write.changes).filter_map(|change| match change {
            Change::TurnTask(id, _) => Some(*id),
            Change::PutObject(_)
            | Change::RemoveObject(..)
            | Change::PutSecret(..)
            | Change::RemoveSecret(_)
            | Change::PutKey(_)
            | Change::RemoveKey(_)
            | Change::PutGrant(_)
            | Change::RemoveGrant(_)
            | Change::ShutOut(_)
            | Change::PutBreakGlass(_)
            | Change::Review(..)
            | Change::LetIn(_)
            | Change::PutTool(_)
            | Change::RemoveTool(..)
            | Change::ForgetTools(_) => None,
        });
        let tasks = expected.clone().flat_map(|expected| match expected {
            Expected::Task(id, _) => vec![*id],
            Expected::Tasks(tasks) => tasks.iter().map(|(id, _)| *id).collect(),
            Expected::Registry(_) | Expected::Keys(_) | Expected::Room(_) => Vec::new(),
        });
        let mut room = HashMap::<Like, Timestamp>::new();
        for expected in expected.clone() {
            if let Expected::Room(one) = expected {
                // Whoever asks as of the earliest time counts the most.
                let now = room.entry(one.like.clone()).or_insert(one.now);
                *now = one.now.min(*now);
            }
        }
        let builds_on_version = expected
            .clone()
            .any(|expected| matches!(expected, Expected::Registry(_) | Expected::Keys(_) | Expected::Room(_)));
        Self {
            tasks: tasks.chain(turned).collect::<BTreeSet<_>>().iter().map(TaskId::to_string).collect(),
            versions: builds_on_version
                || batch.iter().flat_map(|write| &write.changes).any(|change| version_of(change).is_some()),
            keys: keys.into_values().collect(),
            once: once.into_iter().map(|(digest, keep_until)| OnceRow { digest, keep_until }).collect(),
            room,
        }
    }
}

/// What the tables said.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// The versions, if they were asked for.
    pub(crate) versions: Vec<VersionRow>,
    /// The idempotency keys that were free, and are taken now.
    pub(crate) keys: Vec<String>,
    /// What was answered under those that were not.
    pub(crate) before: Vec<AnswerRow>,
    /// The one-time ids that were free, and are taken now.
    pub(crate) once: Vec<String>,
    /// The tasks that are there, with their turns.
    pub(crate) tasks: Vec<TurnsRow>,
    /// How many grants there are.
    pub(crate) grants: HashMap<Like, i64>,
}

/// How the transaction is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Goes {
    /// It is committed.
    On,
    /// It is rolled back: nothing in it happens.
    Back,
}

/// Whether the fault is in what was to be written, or in what is stored about it, and not in the store: then the other
/// writes of the batch may well go through without the one that has it. `is_about_data` knows the database's codes.
pub(crate) fn is_refusal(outage: &Outage, is_about_data: fn(&str) -> bool) -> bool {
    match outage.source.downcast_ref::<sqlx::Error>() {
        // Our own: rows that can't be written as text, stored ones that can't be read.
        None => true,
        Some(sqlx::Error::Database(said)) => said.code().is_some_and(|code| is_about_data(&code)),
        Some(fault) => {
            matches!(fault, sqlx::Error::Encode(_) | sqlx::Error::Decode(_) | sqlx::Error::ColumnDecode { .. })
        }
    }
}

enum Verdict<'a> {
    Go,
    Replayed,
    Moved,
    Before(AnswerRow),
    /// The write at this place of the same batch had the same idempotency key, and is done.
    BeforeHere(usize, &'a Idempotency),
}

/// What is to be done, in the order in which locks are taken.
pub(crate) struct Plan<'a> {
    batch: &'a [Write],
    verdicts: Vec<Verdict<'a>>,
    last: Seq,
    /// Idempotency keys to be given back.
    pub(crate) free_keys: Vec<String>,
    /// One-time ids to be given back.
    pub(crate) free_once: Vec<String>,
    /// Versions that move on, with what they move on to.
    pub(crate) versions: Vec<VersionRow>,
}

impl<'a> Plan<'a> {
    /// Judges the writes. When several guards of one say no, the answer is `Replayed` before `Before` before `Moved`:
    /// who replays a credential learns nothing, and a request that comes again finds its first answer, although what
    /// it builds on was moved by itself.
    pub(crate) fn of(batch: &'a [Write], found: Found) -> Result<Self, Outage> {
        let mut free_once = found.once.into_iter().collect::<BTreeSet<_>>();
        let mut free_keys = found.keys.into_iter().collect::<BTreeSet<_>>();
        let before = found.before.into_iter().map(|row| (row.digest.clone(), row)).collect::<HashMap<_, _>>();
        let mut answered_here = HashMap::<String, (usize, &'a Idempotency)>::new();
        let mut versions = BTreeMap::new();
        if !found.versions.is_empty() {
            for name in [KEYS, REGISTRY] {
                versions.insert(name, VersionRow::find(&found.versions, name)?);
            }
        }
        let read = versions.clone();
        let mut turns = found.tasks.iter().map(TurnsRow::read).collect::<Result<BTreeMap<_, _>, _>>()?;
        let mut grants = found.grants;
        let mut verdicts = Vec::with_capacity(batch.len());
        for (n, write) in batch.iter().enumerate() {
            let once = write.once.iter().map(|id| digest_of(&id.party, &id.id)).collect::<BTreeSet<_>>();
            let key = write.idempotency.as_ref().map(|request| (digest_of(&request.caller, &request.key), request));
            if !once.is_subset(&free_once) {
                verdicts.push(Verdict::Replayed);
                continue;
            }
            if let Some((key, _)) = &key {
                if let Some(row) = before.get(key) {
                    verdicts.push(Verdict::Before(row.clone()));
                    continue;
                }
                if let Some((first, request)) = answered_here.get(key) {
                    verdicts.push(Verdict::BeforeHere(*first, request));
                    continue;
                }
                if !free_keys.contains(key) {
                    let source = "an idempotency key was swept while it was looked up; ask again";
                    return Err(Outage { during: "look up an idempotency key", source: source.into() });
                }
            }
            let stands = match &write.expected {
                None => true,
                Some(Expected::Registry(version)) => versions.get(REGISTRY) == Some(version),
                Some(Expected::Room(room)) => {
                    let is_room = grants.get(&room.like).is_some_and(|many| *many < i64::from(room.most));
                    versions.get(REGISTRY) == Some(&room.registry) && is_room
                }
                Some(Expected::Keys(version)) => versions.get(KEYS) == Some(version),
                Some(Expected::Task(id, version)) => turns.get(id) == Some(version),
                Some(Expected::Tasks(tasks)) => tasks.iter().all(|(id, version)| turns.get(id) == Some(version)),
            };
            if !stands {
                verdicts.push(Verdict::Moved);
                continue;
            }
            free_once.retain(|id| !once.contains(id));
            if let Some((key, request)) = key {
                free_keys.remove(&key);
                answered_here.insert(key, (n, request));
            }
            if let Some(Expected::Room(room)) = &write.expected {
                grants.entry(room.like.clone()).and_modify(|many| *many = many.saturating_add(1));
            }
            for name in write.changes.iter().filter_map(version_of).collect::<BTreeSet<_>>() {
                versions.entry(name).and_modify(|version| *version = version.saturating_add(1));
            }
            for change in &write.changes {
                if let Change::TurnTask(id, _) = change {
                    turns.entry(*id).and_modify(|turns| *turns = turns.saturating_add(1));
                }
            }
            verdicts.push(Verdict::Go);
        }
        let moved = versions.into_iter().filter(|(name, version)| read.get(name) != Some(version));
        Ok(Self {
            batch,
            verdicts,
            last: Seq::default(),
            free_keys: free_keys.into_iter().collect(),
            free_once: free_once.into_iter().collect(),
            versions: moved.map(|(name, v)| VersionRow { name: name.to_owned(), version: signed(v) }).collect(),
        })
    }

    /// Whether nothing happens at all.
    pub(crate) fn is_empty(&self) -> bool {
        self.going().next().is_none()
    }

    /// Tasks to be opened.
    pub(crate) fn tasks(&self) -> Result<Vec<TaskRow>, Outage> {
        self.going().filter_map(|write| write.task.as_ref()).map(TaskRow::of).collect()
    }

    /// Tokens to be recorded.
    pub(crate) fn tokens(&self) -> Result<Vec<TokenRow>, Outage> {
        self.going().filter_map(|write| write.token.as_ref()).map(TokenRow::of).collect()
    }

    /// Rare changes, in their order.
    pub(crate) fn changes(&self) -> impl Iterator<Item = &'a Change> {
        self.going().flat_map(|write| &write.changes)
    }

    /// How many places of the log are wanted.
    pub(crate) fn entries(&self) -> u64 {
        self.going().map(|write| write.log.len() as u64).sum()
    }

    /// Gives the entries their places: the last ones up to `last`, where the head of the log is now.
    pub(crate) fn log(&mut self, last: Seq) -> Vec<LogRow> {
        self.last = last;
        self.places()
            .iter()
            .flatten()
            .flat_map(|(entries, first)| (*first..).zip(entries.iter()))
            .map(|(seq, entry)| LogRow::of(entry, Seq::new(seq)))
            .collect()
    }

    /// What to answer when a request comes again.
    pub(crate) fn answers(&self) -> Vec<AnswerRow> {
        let places = self.places();
        let requests = self.batch.iter().zip(&places).filter(|(_, place)| place.is_some());
        requests
            .filter_map(|(write, place)| write.idempotency.as_ref().map(|request| (request, place)))
            .map(|(request, place)| AnswerRow::of(request, place.and_then(last_of)))
            .collect()
    }

    /// Audit records, in their order.
    pub(crate) fn records(&self) -> impl Iterator<Item = &'a Record> {
        self.going().flat_map(|write| &write.audit)
    }

    /// What becomes of each write, when it is durable.
    pub(crate) fn written(&self) -> Result<Vec<Written>, Outage> {
        let seqs = self.places().into_iter().map(|place| place.and_then(last_of)).collect::<Vec<_>>();
        let seq_of = |n: usize| seqs.get(n).copied().flatten();
        let verdicts = self.verdicts.iter().zip(&seqs);
        verdicts
            .map(|(verdict, seq)| match verdict {
                Verdict::Go => Ok(Written::Done { seq: *seq }),
                Verdict::Replayed => Ok(Written::Replayed),
                Verdict::Moved => Ok(Written::Moved),
                Verdict::Before(row) => row.clone().read(),
                Verdict::BeforeHere(first, request) => AnswerRow::of(request, seq_of(*first)).read(),
            })
            .collect()
    }

    fn going(&self) -> impl Iterator<Item = &'a Write> {
        let pairs = self.batch.iter().zip(&self.verdicts);
        pairs.filter(|(_, verdict)| matches!(verdict, Verdict::Go)).map(|(write, _)| write)
    }

    /// For every write that happens: its entries and the place of the first one.
    fn places(&self) -> Vec<Option<(&'a [NewEntry], u64)>> {
        let mut next = self.last.number().saturating_sub(self.entries()).saturating_add(1);
        let pairs = self.batch.iter().zip(&self.verdicts);
        pairs
            .map(|(write, verdict)| {
                matches!(verdict, Verdict::Go).then(|| {
                    let first = next;
                    next = next.saturating_add(write.log.len() as u64);
                    (write.log.as_slice(), first)
                })
            })
            .collect()
    }
}

fn last_of((entries, first): (&[NewEntry], u64)) -> Option<Seq> {
    let beyond_first = (entries.len() as u64).checked_sub(1)?;
    Some(Seq::new(first.saturating_add(beyond_first)))
}

/// Which version a change moves on.
fn version_of(change: &Change) -> Option<&'static str> {
    match change {
        Change::PutObject(_)
        | Change::RemoveObject(..)
        | Change::PutSecret(..)
        | Change::RemoveSecret(_)
        | Change::ShutOut(_)
        | Change::LetIn(_)
        | Change::PutTool(_)
        | Change::RemoveTool(..)
        | Change::ForgetTools(_) => Some(REGISTRY),
        Change::PutKey(_) | Change::RemoveKey(_) => Some(KEYS),
        Change::PutGrant(_)
        | Change::RemoveGrant(..)
        | Change::PutBreakGlass(_)
        | Change::Review(..)
        | Change::TurnTask(..) => None,
    }
}
