//! The catalogue of a resource: its MCP server is asked what tools it has, and what an admin has looked at is accepted.
//!
//! What is known of tools lies beside the resource, so that of one that the file declares it can be accepted too. Each change
//! is one of the registry, and so every replica knows of it before it answers the next request.

use serde_json::{Value, json};

use crate::{
    app::{
        ConflictError, Error, RequestContext, Service,
        registry::objects::{MAX_COMMIT_ATTEMPTS, log_entries_for, validate_registry},
    },
    domain::{
        audit::{Event, Outcome, Record},
        id::ClientId,
        registry::{
            Entry, ObjectKind, Registry, RegistryObject, Source,
            client::{Resource, Tool},
            tool::{Acceptance, RefreshMode, ToolDiff, ToolRecord, accept_definitions, assess_tools, diff_listing},
        },
        time::Lifetime,
        uri::ResourceUri,
    },
    ports::{Precondition, StateChange, ToolListing, WriteOutcome, WriteSet},
};

/// How it stands with the tools of a resource.
#[derive(Debug)]
pub struct Catalogue {
    /// The resource.
    pub resource: Resource,
    /// Its tools, and what its server lists beside.
    pub tools: Vec<ToolDiff>,
    /// How many tools its server lists that can't be used; none, when it was not asked.
    pub unusable: Option<usize>,
}

impl Catalogue {
    /// What the resource offers under a tool's name.
    #[must_use]
    pub fn find_offered_tool(&self, finding: &ToolDiff) -> Option<&Tool> {
        self.resource.tools.iter().find(|tool| tool.name == finding.tool)
    }
}

/// Whether what a server says is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImportMode {
    /// It is.
    Apply,
    /// Only the difference is shown.
    DryRun,
}

impl Service {
    /// What is known of the tools of a resource, which is named by its id or its URI.
    pub async fn read_catalogue(&self, name: &str, cx: &RequestContext) -> Result<Catalogue, Error> {
        let snapshot = self.inner.follower.snapshot(cx.now).await?;
        let resource = find_resource(&snapshot.registry, name)?.clone();
        let records = self.store().list_tools(&resource.id).await?;
        Ok(Catalogue { tools: assess_tools(&resource, &records), unusable: None, resource })
    }

    /// Asks the server of a resource for its tools, and keeps what it says: a tool of the resource that is seen for the first
    /// time is accepted as it is; what changed or went is not good from then on; what is new is a proposal.
    pub async fn import_catalogue(
        &self,
        by: &str,
        name: &str,
        mode: ImportMode,
        cx: &RequestContext,
    ) -> Result<Catalogue, Error> {
        let snapshot = self.inner.follower.snapshot(cx.now).await?;
        let resource = find_resource(&snapshot.registry, name)?;
        let act = match mode {
            ImportMode::Apply => "import",
            ImportMode::DryRun => "diff",
        };
        let record = audit_record(by, resource, json!(act), cx);
        let listed = match self.inner.ports.mcp_servers.list_tools(resource).await {
            Ok(listed) => listed,
            Err(fault) => {
                let reason = Some(fault.to_string());
                self.inner.writer.enqueue_audit(Record { outcome: Outcome::Failed, reason, ..record });
                return Err(fault.into());
            }
        };
        if mode == ImportMode::DryRun {
            let records = self.store().list_tools(&resource.id).await?;
            let tools = diff_listing(resource, &records, &listed.tools, RefreshMode::Import(by), cx.now);
            self.inner.writer.enqueue_audit(record);
            return Ok(Catalogue { tools, unusable: Some(listed.unusable_count), resource: resource.clone() });
        }
        self.store_findings(resource, &listed, RefreshMode::Import(by), record, cx).await
    }

    /// Says which resources are to be asked from time to time, and how often: those that want it and were asked before.
    pub async fn refreshable_catalogues(&self, cx: &RequestContext) -> Result<Vec<(ClientId, Lifetime)>, Error> {
        let snapshot = self.inner.follower.snapshot(cx.now).await?;
        let wants = |resource: &Resource| Some((resource.id.clone(), resource.catalogue_refresh?));
        let live = snapshot.registry.resources().filter(|r| !r.disabled && snapshot.registry.has_known_tools(&r.id));
        Ok(live.filter_map(wants).collect())
    }

    /// Asks the server of a resource whether its tools are still what they were. Nothing is accepted by that. An answer that
    /// can't be had changes nothing.
    pub async fn refresh_catalogue(&self, id: &ClientId, cx: &RequestContext) -> Result<bool, Error> {
        let snapshot = self.inner.follower.snapshot(cx.now).await?;
        let resource = snapshot.registry.resource(id).ok_or(ConflictError::NotFound("resource"))?;
        let listed = self.inner.ports.mcp_servers.list_tools(resource).await?;
        let record = audit_record(REFRESH_ACTOR, resource, json!(REFRESH_ACTOR), cx);
        let catalogue = self.store_findings(resource, &listed, RefreshMode::Refresh, record, cx).await?;
        Ok(catalogue.tools.iter().any(|finding| finding.has_changed))
    }

    /// Accepts definitions that were looked at. A tool that is not in the catalogue goes into it, where the admin says how.
    pub async fn accept_tools(
        &self,
        by: &str,
        name: &str,
        acceptances: &[Acceptance],
        cx: &RequestContext,
    ) -> Result<Catalogue, Error> {
        let snapshot = self.inner.follower.snapshot(cx.now).await?;
        let digests = acceptances.iter().map(|a| json!({"name": a.name, "digest": a.digest, "tool": a.tool}));
        let asked = json!({"accept": digests.collect::<Vec<_>>()});
        let meant = find_resource(&snapshot.registry, name)?;
        let record = audit_record(by, meant, asked, cx);
        self.change_tools(&meant.id, record, cx, |registry, resource, records| {
            let (accepted, tools) = accept_definitions(resource, records, acceptances, by, cx.now)?;
            let mut resource = resource.clone();
            let mut changes = Vec::new();
            if !tools.is_empty() {
                // As it was declared: whoever is shut out is so beside it.
                let id = resource.id.to_string();
                let declared = registry.entry(ObjectKind::Resource, &id).filter(|entry| entry.source == Source::Api);
                let Some(Entry { object: RegistryObject::Resource(declared), .. }) = declared else {
                    return Err(ConflictError::ManagedByFile);
                };
                let mut declared = declared.clone();
                declared.tools.extend(tools.iter().cloned());
                resource.tools.extend(tools);
                let entry = Entry { object: RegistryObject::Resource(declared), source: Source::Api };
                let is_it = |e: &&Entry| e.object.kind() == ObjectKind::Resource && e.object.id() == id;
                let others = registry.entries().iter().filter(|e| !is_it(e)).cloned();
                validate_registry(others.chain([entry.clone()]).collect(), (ObjectKind::Resource, &id))?;
                changes.push(StateChange::PutObject(Box::new(entry)));
            }
            let mut now = records.to_vec();
            for record in accepted {
                now.retain(|old| old.tool != record.tool);
                now.push(record.clone());
                changes.push(StateChange::PutTool(Box::new(record)));
            }
            Ok((changes, Catalogue { tools: assess_tools(&resource, &now), unusable: None, resource }, Value::Null))
        })
        .await
    }

    async fn store_findings(
        &self,
        queried: &Resource,
        listed: &ToolListing,
        mode: RefreshMode<'_>,
        record: Record,
        cx: &RequestContext,
    ) -> Result<Catalogue, Error> {
        self.change_tools(&queried.id, record, cx, |_, resource, records| {
            // It is another server by now: nobody was asked there.
            if resource.uri != queried.uri {
                return Err(ConflictError::ConcurrentUpdate);
            }
            let tools = diff_listing(resource, records, &listed.tools, mode, cx.now);
            let news = tools.iter().filter(|finding| finding.has_changed);
            let change = |finding: &ToolDiff| match &finding.record {
                Some(record) => StateChange::PutTool(Box::new(record.clone())),
                None => StateChange::RemoveTool(resource.id.clone(), finding.tool.clone()),
            };
            let changes_seen = news.clone().map(|f| {
                let seen = f.record.as_ref().and_then(|record| record.observed.as_ref()).map(|seen| &seen.digest);
                json!({"name": f.tool, "was": f.previous_state, "state": f.state, "seen": seen})
            });
            let changes_seen = Value::Array(changes_seen.collect());
            let changes = news.map(change).collect();
            Ok((
                changes,
                Catalogue { tools, unusable: Some(listed.unusable_count), resource: resource.clone() },
                changes_seen,
            ))
        })
        .await
    }

    /// Changes what is known of the tools of a resource, on what it builds on: if somebody was quicker, it is made anew on
    /// what they left. The plan's last part is what the record says came of it.
    async fn change_tools<T>(
        &self,
        id: &ClientId,
        record: Record,
        cx: &RequestContext,
        plan: impl Fn(&Registry, &Resource, &[ToolRecord]) -> Result<(Vec<StateChange>, T, Value), ConflictError>,
    ) -> Result<T, Error> {
        for _ in 0..MAX_COMMIT_ATTEMPTS {
            let snapshot = self.inner.follower.snapshot(cx.now).await?;
            let registry = &snapshot.registry;
            // Read after the registry: if they are newer than it is, the registry has moved on, and nothing is written.
            let records = self.store().list_tools(id).await?;
            let planned = registry
                .resource(id)
                .ok_or(ConflictError::NotFound("resource"))
                .and_then(|resource| plan(registry, resource, &records));
            let (changes, result, granted) = match planned {
                Ok(planned) => planned,
                Err(conflict) => return Err(self.record_refusal_after_barrier(record, conflict).await),
            };
            let by = record.admin.clone().unwrap_or_default();
            let is_refresh_without_news = changes.is_empty() && by == REFRESH_ACTOR;
            if is_refresh_without_news {
                return Ok(result);
            }
            let granted = Some(granted).filter(|value| !value.is_null());
            let log = if changes.is_empty() { Vec::new() } else { log_entries_for(&changes, registry, &by, cx.now) };
            let write = WriteSet {
                precondition: Some(Precondition::RegistryVersion(registry.version())),
                state_changes: changes,
                log_entries: log,
                audit_records: vec![Record { granted, ..record.clone() }],
                ..WriteSet::default()
            };
            if matches!(self.inner.writer.commit(write).await?, WriteOutcome::Committed { .. }) {
                return Ok(result);
            }
        }
        Err(self.record_refusal(record, ConflictError::ConcurrentUpdate))
    }
}

/// Who looks from time to time.
const REFRESH_ACTOR: &str = "refresh";

fn audit_record(by: &str, resource: &Resource, asked: Value, cx: &RequestContext) -> Record {
    Record {
        admin: Some(by.to_owned()),
        resource: Some(resource.uri.to_string()),
        requested: Some(asked),
        request_id: Some(cx.request_id.clone()),
        ..Record::new(cx.now, Event::CatalogueChange, Outcome::Done)
    }
}

/// The resource with this id, or at this URI.
fn find_resource<'a>(registry: &'a Registry, name: &str) -> Result<&'a Resource, ConflictError> {
    let by_id = name.parse::<ClientId>().ok().and_then(|id| registry.resource(&id));
    let by_uri = || name.parse::<ResourceUri>().ok().and_then(|uri| registry.resource_at(&uri));
    by_id.or_else(by_uri).ok_or(ConflictError::NotFound("resource"))
}
