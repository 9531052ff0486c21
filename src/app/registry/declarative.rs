//! The objects and secrets that the configuration file declares, applied to the store.
//!
//! Every replica has a file, and one replica applies it for all of them. The store records which
//! files were applied, so that an old file can't undo a newer one unnoticed, and an application
//! that would end tasks has to be accepted by an operator.

use std::{collections::BTreeMap, fmt};

use serde_json::json;
use thiserror::Error as ThisError;

use crate::{
    app::{
        Error, RequestContext, Service,
        commit::{
            idempotency::{Idempotent, NoResponse, Replay},
            retry::{Completion, Decision},
        },
        registry::changes::{join_inconsistencies, log_entries_for, put_changes},
        replication::follower::load_registry,
    },
    domain::{
        audit::{Event, Outcome, Record},
        configuration::{ConfigurationHistory, FileOrder, FileRelation, FileVersion, StaleFileError, relate_file},
        id::ClientId,
        registry::{Entry, Registry, RegistryObject, Source, StoredSecretTag, diff_entries},
        revocation::{LogAction, NewEntry, Target},
        secret::Secret,
        task::Task,
    },
    ports::{PageRequest, Precondition, StateChange, TaskFilter, WriteSet},
};

/// How many of the tasks that an application would end are named.
const ENDED_TASK_SAMPLE: usize = 10;
/// How many open tasks are read at a time.
const TASK_PAGE_SIZE: u32 = 1000;
/// How many open tasks are read at most, to count those that an application would end.
const MAX_SCANNED_TASKS: usize = 1_000_000;

/// What a configuration file declares.
#[derive(Clone, Copy, Debug)]
pub struct Declaration<'a> {
    /// The objects.
    pub objects: &'a [RegistryObject],
    /// The client secrets.
    pub secrets: &'a [(ClientId, Secret)],
    /// The `generation` of the file.
    pub generation: Option<u64>,
}

/// Who applies a file, and what the operator accepts.
#[derive(Clone, Debug)]
pub struct ApplyOptions {
    /// The actor in audit records.
    pub actor: String,
    /// The replica or the operator, for the history of applied files.
    pub applied_by: String,
    /// Whether an older file is applied.
    pub order: FileOrder,
    /// How many live tasks the application may end.
    pub max_ended_tasks: u64,
    /// Whether the store of another issuer is taken over, as a development server does when its
    /// port changes.
    pub accepts_other_issuer: bool,
}

impl ApplyOptions {
    /// Returns the options of a replica that starts or reloads: nothing is accepted unasked.
    #[must_use]
    pub fn for_replica(name: &str) -> Self {
        Self {
            actor: "file".into(),
            applied_by: format!("replica {name}"),
            order: FileOrder::NewerOnly,
            max_ended_tasks: 0,
            accepts_other_issuer: false,
        }
    }
}

/// The live tasks that a change would end.
#[derive(Clone, Debug, Default)]
pub struct EndedTasks {
    /// How many there are.
    pub count: u64,
    /// Some of them, newest first.
    pub sample: Vec<Task>,
    /// Whether all open tasks were looked at. Otherwise the count is a lower bound.
    pub is_complete: bool,
}

/// A file compared with the store.
#[derive(Debug)]
pub struct FileComparison {
    /// What the file declares.
    pub version: FileVersion,
    /// How the file relates to the file in force.
    pub relation: Result<FileRelation, StaleFileError>,
    /// The differences, one line each: what an application would change.
    pub differences: Vec<String>,
    /// The live tasks that an application would end.
    pub ended_tasks: EndedTasks,
}

/// The reason that a file is not applied.
#[derive(Debug, ThisError)]
pub enum ApplyError {
    /// The store belongs to another issuer.
    #[error(
        "`issuer` is `{configured}`, and the database belongs to `{stored}`, which all its tokens and tasks name; set `issuer` back, or use another database for the new issuer"
    )]
    OtherIssuer {
        /// The issuer of the store.
        stored: String,
        /// The issuer of the file.
        configured: String,
    },
    /// The file is older than the file in force.
    #[error(
        "{reason}; it would undo:{}\ndeploy the newer file, or apply this one with `errand config reload --return-to-older`",
        Lines(.differences)
    )]
    Stale {
        /// How the file is older.
        reason: StaleFileError,
        /// What its application would change.
        differences: Vec<String>,
    },
    /// The application would end live tasks.
    #[error(
        "applying the file ends {} live {}, and {accepted} are accepted:{}\nthe changes are:{}\ncorrect the file, or accept this with `--accept-ending {}`",
        EndedCount(.tasks), plural(.tasks.count, "task"), TaskLines(.tasks), Lines(.differences), .tasks.count
    )]
    EndsTasks {
        /// The tasks.
        tasks: EndedTasks,
        /// How many the operator accepts.
        accepted: u64,
        /// What the application would change.
        differences: Vec<String>,
    },
    /// The declared objects contradict objects that were created over REST.
    #[error("the objects in the configuration file contradict those in the store: {0}")]
    Inconsistent(String),
    /// The store or another part of the server failed.
    #[error(transparent)]
    Service(Error),
}

fn plural(count: u64, noun: &str) -> String {
    if count == 1 { noun.to_owned() } else { format!("{noun}s") }
}

/// Displays lines, each on a line of its own.
struct Lines<'a>(&'a [String]);

impl fmt::Display for Lines<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const MAX_LINES: usize = 50;
        for line in self.0.iter().take(MAX_LINES) {
            write!(f, "\n  {line}")?;
        }
        match self.0.len().saturating_sub(MAX_LINES) {
            0 => Ok(()),
            more => write!(f, "\n  and {more} more"),
        }
    }
}

struct EndedCount<'a>(&'a EndedTasks);

impl fmt::Display for EndedCount<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bound = if self.0.is_complete { "" } else { "at least " };
        write!(f, "{bound}{}", self.0.count)
    }
}

/// Displays the sample of tasks, each on a line of its own.
struct TaskLines<'a>(&'a EndedTasks);

impl fmt::Display for TaskLines<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for task in &self.0.sample {
            let (purpose, requester) = (task.purpose.to_string(), &task.requester);
            let (subject, agent) = (requester.subject.to_string(), &task.root_agent);
            write!(f, "\n  task {} of {agent} for {subject:?} of {}: {purpose:?}", task.id, requester.issuer)?;
        }
        match self.0.count.saturating_sub(self.0.sample.len() as u64) {
            0 => Ok(()),
            more => write!(f, "\n  and {more} more"),
        }
    }
}

/// What one attempt to apply a file found.
struct Attempt {
    comparison: FileComparison,
    write: WriteSet,
}

impl Service {
    /// Returns the version of a declaration, which identifies it among the applied files.
    #[must_use]
    pub fn file_version(&self, declaration: Declaration<'_>) -> FileVersion {
        let Declaration { objects, secrets, generation } = declaration;
        FileVersion::of_declaration(objects, secrets, generation, &self.inner.ports.pepper)
    }

    /// Returns which files were applied to the store.
    pub async fn configuration_history(&self) -> Result<ConfigurationHistory, Error> {
        Ok(self.store().load_configuration_history().await?)
    }

    /// Checks that the store belongs to the configured issuer, or to none yet.
    pub async fn check_issuer(&self) -> Result<(), ApplyError> {
        let history = self.configuration_history().await.map_err(ApplyError::Service)?;
        self.check_issuer_of(&history)
    }

    fn check_issuer_of(&self, history: &ConfigurationHistory) -> Result<(), ApplyError> {
        let settings = self.settings();
        let configured = settings.issuer.as_str();
        match &history.issuer {
            Some(stored) if stored != configured => {
                Err(ApplyError::OtherIssuer { stored: stored.clone(), configured: configured.to_owned() })
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Compares a file with the store. Nothing is changed.
    pub async fn compare_declared(
        &self,
        declaration: Declaration<'_>,
        cx: &RequestContext,
    ) -> Result<FileComparison, ApplyError> {
        let options = ApplyOptions::for_replica("");
        self.plan_application(declaration, &options, cx).await.map(|attempt| attempt.comparison)
    }

    /// Applies a configuration file to the store: puts the declared objects, removes objects that
    /// only an earlier file declared, and stores the tags of secrets. Returns what has changed.
    ///
    /// Replicas that start at the same time agree: the second one finds nothing to change.
    pub async fn apply_declared(
        &self,
        declaration: Declaration<'_>,
        options: &ApplyOptions,
        cx: &RequestContext,
    ) -> Result<Vec<String>, ApplyError> {
        let request = Idempotent::<NoResponse>::without_key();
        let completion = self.commit_with_retry(&request, None, |_| async {
            let attempt = match self.plan_application(declaration, options, cx).await {
                Ok(attempt) => attempt,
                Err(ApplyError::Service(error)) => return Err(error),
                Err(refused) => return Ok(Decision::Answer(Err(refused))),
            };
            let FileComparison { relation, differences, ended_tasks, .. } = attempt.comparison;
            if attempt.write.state_changes.is_empty() {
                return Ok(Decision::Answer(Ok(Vec::new())));
            }
            if let (Err(reason), FileOrder::NewerOnly) = (relation, options.order) {
                return Ok(Decision::Answer(Err(ApplyError::Stale { reason, differences })));
            }
            if ended_tasks.count > options.max_ended_tasks {
                let (tasks, accepted) = (ended_tasks, options.max_ended_tasks);
                return Ok(Decision::Answer(Err(ApplyError::EndsTasks { tasks, accepted, differences })));
            }
            Ok(Decision::Write(Box::new(attempt.write), Ok(differences)))
        });
        let applied = match completion.await.map_err(ApplyError::Service)? {
            Completion::Done(applied, _) => applied?,
            Completion::Replayed(Replay { response, .. }) => match response {},
            Completion::Refused(conflict) => return Err(ApplyError::Service(conflict.into())),
        };
        for change in &applied {
            tracing::info!(change, by = options.applied_by, "configuration file applied");
        }
        if !applied.is_empty() {
            self.clean_up_removed(cx).await;
        }
        Ok(applied)
    }

    /// Plans the write that applies a file to the store as it is now.
    async fn plan_application(
        &self,
        declaration: Declaration<'_>,
        options: &ApplyOptions,
        cx: &RequestContext,
    ) -> Result<Attempt, ApplyError> {
        let service_error = |outage| ApplyError::Service(Error::Unavailable(outage));
        // The registry is read first: a later application of a file then changes its version, and
        // the write is decided again.
        let registry = load_registry(self.store()).await.map_err(service_error)?;
        let history = self.store().load_configuration_history().await.map_err(service_error)?;
        if !options.accepts_other_issuer {
            self.check_issuer_of(&history)?;
        }
        let version = self.file_version(declaration);
        let (mut changes, entries) = self.diff_declared(&registry, declaration.objects, declaration.secrets);
        let relation = match relate_file(&version, &history, options.order) {
            // Another version of the program computes another digest for the same file, and an
            // older file that undoes nothing is not one.
            Err(StaleFileError::AppliedBefore { .. }) if changes.is_empty() => Ok(FileRelation::InForce),
            relation => relation,
        };
        if let Err(errors) = Registry::build(0, entries.clone(), BTreeMap::new()) {
            return Err(ApplyError::Inconsistent(join_inconsistencies(&errors)));
        }
        let objects = diff_entries(registry.entries(), &entries);
        let secrets = changes.iter().filter(|change| {
            matches!(change, StateChange::PutSecret(..) | StateChange::RemoveSecret(_) | StateChange::ClearTools(_))
        });
        let differences = objects.iter().map(ToString::to_string).chain(secrets.map(describe_change)).collect();
        let descriptions = changes.iter().map(describe_change).collect::<Vec<_>>();
        let ended = log_entries_for(&changes, &registry, &options.actor, cx.now);
        let ended_tasks = self.find_ended_tasks(&ended, cx).await.map_err(ApplyError::Service)?;
        let issuer = self.settings().issuer.clone();
        if history.issuer.as_deref() != Some(issuer.as_str()) {
            changes.push(StateChange::RecordIssuer(issuer));
        }
        if relation.as_ref().ok() != Some(&FileRelation::InForce) {
            changes.push(StateChange::RecordFile(history.next(version.clone(), cx.now, options.applied_by.clone())));
        }
        let returns_to_older = relation.as_ref().ok() == Some(&FileRelation::AcceptedOlder);
        let write = WriteSet {
            precondition: Some(Precondition::RegistryVersion(registry.version())),
            log_entries: log_entries_for(&changes, &registry, &options.actor, cx.now),
            state_changes: changes,
            audit_records: vec![Record {
                admin: Some(options.actor.clone()),
                requested: Some(json!({
                    "changes": descriptions,
                    "file": {"digest": version.digest, "generation": version.generation},
                    "applied_by": options.applied_by,
                    "returns_to_older": returns_to_older,
                    "ended_tasks": ended_tasks.count,
                })),
                request_id: Some(cx.request_id.clone()),
                source: cx.source_text(),
                ..Record::new(cx.now, Event::RegistryChange, Outcome::Done)
            }],
            ..WriteSet::default()
        };
        Ok(Attempt { comparison: FileComparison { version, relation, differences, ended_tasks }, write })
    }

    /// Returns the live tasks that these log entries end.
    async fn find_ended_tasks(&self, entries: &[NewEntry], cx: &RequestContext) -> Result<EndedTasks, Error> {
        let ends = |entry: &&NewEntry| entry.verb == LogAction::Revoke && entry.target.changed_state().is_none();
        let targets = entries.iter().filter(ends).map(|entry| &entry.target).collect::<Vec<&Target>>();
        let mut found = EndedTasks { is_complete: true, ..EndedTasks::default() };
        if targets.is_empty() {
            return Ok(found);
        }
        let filter = TaskFilter { only_open: true, ..TaskFilter::default() };
        let (mut page, mut scanned) = (PageRequest { cursor: None, limit: TASK_PAGE_SIZE }, 0_usize);
        loop {
            let tasks = self.store().list_tasks(&filter, &page).await?;
            scanned = scanned.saturating_add(tasks.items.len());
            for task in tasks.items {
                let is_ended = targets.iter().any(|target| task.is_ended_by(target));
                if is_ended && !task.deadline.has_passed(cx.now) {
                    found.count = found.count.saturating_add(1);
                    if found.sample.len() < ENDED_TASK_SAMPLE {
                        found.sample.push(task);
                    }
                }
            }
            page.cursor = tasks.next;
            found.is_complete = page.cursor.is_none();
            if found.is_complete || scanned >= MAX_SCANNED_TASKS {
                return Ok(found);
            }
        }
    }

    /// Returns the changes from the stored registry to the declared one, and the entries after
    /// these changes.
    fn diff_declared(
        &self,
        registry: &Registry,
        objects: &[RegistryObject],
        secrets: &[(ClientId, Secret)],
    ) -> (Vec<StateChange>, Vec<Entry>) {
        let declared =
            |entry: &Entry| objects.iter().any(|o| o.kind() == entry.object.kind() && o.id() == entry.object.id());
        let declares = objects.iter().map(|object| Entry { object: object.clone(), source: Source::File });
        let changed =
            declares.clone().filter(|entry| registry.entry(entry.object.kind(), entry.object.id()) != Some(entry));
        let removed = registry.entries().iter().filter(|entry| entry.source == Source::File && !declared(entry));
        let removals = removed.clone().map(|e| StateChange::RemoveObject(e.object.kind(), e.object.id().to_owned()));
        let tags = secrets.iter().filter_map(|(client, secret)| {
            let pepper = &self.inner.ports.pepper;
            let matches = |stored: &StoredSecretTag| {
                stored.source == Source::File && pepper.matches(client.as_str(), secret, &stored.tag)
            };
            // Removing an object also removes the secret of its id, even if an object of another
            // kind takes the id.
            let is_current = registry.secret_tag(client).is_some_and(matches)
                && !removed.clone().any(|e| e.object.id() == client.as_str());
            let tag = || StoredSecretTag { tag: pepper.tag(client.as_str(), secret), source: Source::File };
            (!is_current).then(|| StateChange::PutSecret(client.clone(), tag()))
        });
        let is_undeclared = |id: &ClientId| !secrets.iter().any(|(client, _)| client == id);
        let dropped =
            registry.secret_tags().filter(|(client, stored)| stored.source == Source::File && is_undeclared(client));
        let dropped = dropped.map(|(client, _)| StateChange::RemoveSecret(client.clone()));
        let puts = changed.flat_map(|entry| put_changes(registry, entry));
        let changes = removals.chain(dropped).chain(puts).chain(tags).collect();
        let kept = registry.entries().iter().filter(|entry| entry.source == Source::Api && !declared(entry)).cloned();
        (changes, kept.chain(declares).collect())
    }
}

/// Describes a change in the audit record.
fn describe_change(change: &StateChange) -> String {
    match change {
        StateChange::PutObject(entry) => format!("put {} {}", entry.object.kind(), entry.object.id()),
        StateChange::RemoveObject(kind, id) => format!("remove {kind} {id}"),
        StateChange::PutSecret(client, _) => format!("put a secret of {client}"),
        StateChange::RemoveSecret(client) => format!("remove the secret of {client}"),
        StateChange::PutKey(key) => format!("put key {}", key.schedule.kid),
        StateChange::RemoveKey(kid) => format!("remove key {kid}"),
        StateChange::PutSealedKey(key) => format!("put sealed key {}", key.name),
        StateChange::SealNewStore => "seal the new store".into(),
        StateChange::PutCheckpoint(checkpoint) => format!("put audit checkpoint {}", checkpoint.number),
        StateChange::PutGrant(grant) => format!("grant to {}", grant.agent),
        StateChange::PutBreakGlass(glass) => format!("break-glass grant to {}", glass.grant.agent),
        StateChange::ReviewBreakGlass(id, _) => format!("review of the break-glass grant {id}"),
        StateChange::RemoveGrant(id) => format!("withdraw the grant {id}"),
        StateChange::PutTool(record) => format!("put tool {} of {}", record.tool, record.resource),
        StateChange::RemoveTool(resource, tool) => format!("remove tool {tool} of {resource}"),
        StateChange::ClearTools(resource) => format!("remove the tools of {resource}"),
        StateChange::RecordIssuer(issuer) => format!("record the issuer {issuer}"),
        StateChange::RecordFile(file) => format!("record the configuration file {}", file.version.short_digest()),
        StateChange::Block(block) => format!("{} {} {}", block.kind, block.subject.kind(), block.subject.id()),
        StateChange::Unblock(subject) => format!("unblock {} {}", subject.kind(), subject.id()),
        StateChange::TransitionTask(id, transition) => format!("task {id} {}", transition.state),
    }
}
