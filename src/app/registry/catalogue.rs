//! Tool catalogues: the tools that the MCP server of a resource lists, and the definitions that an
//! admin accepted.
//!
//! Tool records are stored apart from the resource, so that tools of a resource from the
//! configuration file can be accepted too. Each change is a change of the registry, so every
//! replica applies it before it answers the next request.

use serde_json::{Value, json};

use crate::{
    app::{
        Actor, ConflictError, Error, LogicError, RequestContext, Service,
        commit::{
            approval::{Approval, apply_approval},
            idempotency::{Idempotent, NoResponse, Replay},
            retry::{Completion, Decision},
        },
        four_eyes::act_of,
        registry::changes::{log_entries_for, validate_registry},
    },
    domain::{
        audit::{Event, Outcome, Record},
        four_eyes::put_needs_approval,
        id::{ClientId, TaskId, TokenId},
        registry::{
            Entry, ObjectKind, Registry, RegistryObject, Source,
            client::{Resource, Tool},
            tool::{Acceptance, RefreshMode, ToolDiff, ToolRecord, accept_definitions, assess_tools, diff_listing},
        },
        secret::Secret,
        time::Lifetime,
        token::{TaskTokenClaims, TokenKind},
        uri::ResourceUri,
    },
    ports::{
        Outage, Precondition, StateChange, TokenRecord, ToolListing, ToolListingError, UnusableTool, WriteOutcome,
        WriteSet,
    },
};

/// The tool catalogue of a resource.
#[derive(Debug)]
pub struct Catalogue {
    /// The resource.
    pub resource: Resource,
    /// Its tools, and other tools that its server lists.
    pub tools: Vec<ToolDiff>,
    /// The listed tools that are not usable. `None` if the server was not queried.
    pub unusable: Option<Vec<UnusableTool>>,
}

impl Catalogue {
    /// Returns the resource's own entry for a tool.
    #[must_use]
    pub fn find_offered_tool(&self, diff: &ToolDiff) -> Option<&Tool> {
        self.resource.tools.iter().find(|tool| tool.name == diff.tool)
    }
}

/// What a change of tool records writes: the changes, the result, what the audit record says, and
/// the approval of a second person.
type ToolChanges<T> = (Vec<StateChange>, T, Value, Option<Approval>);

/// Whether an import is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImportMode {
    /// The import is stored.
    Apply,
    /// Only the difference is returned.
    DryRun,
}

impl Service {
    /// Returns the catalogue of a resource, named by its id or its URI.
    pub async fn read_catalogue(&self, name: &str, cx: &RequestContext) -> Result<Catalogue, Error> {
        let snapshot = self.inner.follower.snapshot(cx.now).await?;
        let resource = find_resource(&snapshot.registry, name)?.clone();
        let records = self.store().list_tools(&resource.id).await?;
        Ok(Catalogue { tools: assess_tools(&resource, &records), unusable: None, resource })
    }

    /// Lists the tools of a resource's server and stores the result.
    ///
    /// A registered tool that is listed for the first time is accepted. A tool that changed or
    /// disappeared becomes unavailable. A tool that is not registered is a proposal.
    pub async fn import_catalogue(
        &self,
        by: &str,
        name: &str,
        mode: ImportMode,
        cx: &RequestContext,
    ) -> Result<Catalogue, Error> {
        let snapshot = self.inner.follower.snapshot(cx.now).await?;
        let resource = find_resource(&snapshot.registry, name)?;
        let operation = match mode {
            ImportMode::Apply => "import",
            ImportMode::DryRun => "diff",
        };
        let record = audit_record(by, resource, json!(operation), cx);
        let listing = match self.list_server_tools(resource, cx).await? {
            Ok(listing) => listing,
            Err(error) => {
                let reason = Some(error.to_string());
                self.inner.writer.commit_record(Record { outcome: Outcome::Failed, reason, ..record }).await?;
                return Err(error.into());
            }
        };
        if mode == ImportMode::DryRun {
            let records = self.store().list_tools(&resource.id).await?;
            let tools = diff_listing(resource, &records, &listing.tools, RefreshMode::Import(by), cx.now);
            self.inner.writer.commit_record(record).await?;
            return Ok(Catalogue { tools, unusable: Some(listing.unusable.clone()), resource: resource.clone() });
        }
        self.store_findings(resource, &listing, RefreshMode::Import(by), record, cx).await
    }

    /// Returns the resources whose catalogue is refreshed periodically, and the interval of each. A
    /// catalogue is refreshed once it has been imported.
    pub async fn refreshable_catalogues(&self, cx: &RequestContext) -> Result<Vec<(ClientId, Lifetime)>, Error> {
        let snapshot = self.inner.follower.snapshot(cx.now).await?;
        let interval = |resource: &Resource| Some((resource.id.clone(), resource.catalogue_refresh?));
        let live = snapshot.registry.resources().filter(|r| !r.disabled && snapshot.registry.has_known_tools(&r.id));
        Ok(live.filter_map(interval).collect())
    }

    /// Compares the listed tools of a resource's server with the catalogue. Returns whether a tool
    /// changed. A refresh accepts no tool, and a failed listing changes nothing.
    pub async fn refresh_catalogue(&self, id: &ClientId, cx: &RequestContext) -> Result<bool, Error> {
        let snapshot = self.inner.follower.snapshot(cx.now).await?;
        let resource = snapshot.registry.resource(id).ok_or(ConflictError::NotFound("resource"))?;
        let listing = self.list_server_tools(resource, cx).await??;
        let record = audit_record(REFRESH_ACTOR, resource, json!(REFRESH_ACTOR), cx);
        let catalogue = self.store_findings(resource, &listing, RefreshMode::Refresh, record, cx).await?;
        Ok(catalogue.tools.iter().any(|diff| diff.has_changed))
    }

    /// Accepts reviewed tool definitions. A tool that is not registered is added to the resource as
    /// the admin specifies.
    ///
    /// For another definition than the accepted one, an admin needs a second person.
    pub async fn accept_tools(
        &self,
        actor: Actor<'_>,
        name: &str,
        acceptances: &[Acceptance],
        cx: &RequestContext,
    ) -> Result<Catalogue, Error> {
        let by = &actor.identity();
        let snapshot = self.inner.follower.snapshot(cx.now).await?;
        let digests = acceptances.iter().map(|a| json!({"name": a.name, "digest": a.digest, "tool": a.tool}));
        let requested = json!({"accept": digests.collect::<Vec<_>>()});
        let resource = find_resource(&snapshot.registry, name)?;
        let record = audit_record(by, resource, requested, cx);
        let acted = record.clone();
        self.change_tools(&resource.id, record, cx, |registry, resource, records| {
            let (accepted, tools) =
                accept_definitions(resource, records, acceptances, by, cx.now).map_err(ConflictError::from)?;
            let replaced = replaced_definitions(records, &accepted);
            let mut resource = resource.clone();
            let mut changes = Vec::new();
            let mut weakened = None;
            if !tools.is_empty() {
                // The entry as declared, without the effect of blocks.
                let id = resource.id.to_string();
                let declared = registry.entry(ObjectKind::Resource, &id).filter(|entry| entry.source == Source::Api);
                let Some(Entry { object: RegistryObject::Resource(declared), .. }) = declared else {
                    return Err(ConflictError::ManagedByFile.into());
                };
                let mut extended = declared.clone();
                extended.tools.extend(tools.iter().cloned());
                resource.tools.extend(tools);
                let entry = Entry { object: RegistryObject::Resource(extended), source: Source::Api };
                weakened = put_needs_approval(registry, &entry.object).then_some(declared);
                let is_it = |e: &&Entry| e.object.kind() == ObjectKind::Resource && e.object.id() == id;
                let others = registry.entries().iter().filter(|e| !is_it(e)).cloned();
                validate_registry(others.chain([entry.clone()]).collect(), (ObjectKind::Resource, &id))?;
                changes.push(StateChange::PutObject(Box::new(entry)));
            }
            let approval = match actor {
                Actor::Admin(admin) if !replaced.is_empty() || weakened.is_some() => {
                    let current = json!({"definitions": replaced, "resource": weakened});
                    self.find_approval(admin, registry, &act_of(&acted, Some(&current))?, cx)?
                }
                Actor::Admin(_) | Actor::Host(_) => None,
            };
            let mut updated = records.to_vec();
            for record in accepted {
                updated.retain(|old| old.tool != record.tool);
                updated.push(record.clone());
                changes.push(StateChange::PutTool(Box::new(record)));
            }
            let catalogue = Catalogue { tools: assess_tools(&resource, &updated), unusable: None, resource };
            Ok((changes, catalogue, Value::Null, approval))
        })
        .await
    }

    /// Lists the tools of a resource's server. A server that requires a token, for which the
    /// operator configured none, gets one of this server that allows listing only.
    async fn list_server_tools(
        &self,
        resource: &Resource,
        cx: &RequestContext,
    ) -> Result<Result<ToolListing, ToolListingError>, Error> {
        let servers = &self.inner.ports.mcp_servers;
        match servers.list_tools(resource, None).await {
            Err(error) if error.is_unauthorized() && !servers.has_token(&resource.id) => {
                let token = self.issue_catalogue_token(resource, cx).await?;
                Ok(servers.list_tools(resource, Some(token)).await)
            }
            listing => Ok(listing),
        }
    }

    /// Issues a token for listing the tools of a resource. Its record is durable before it leaves.
    async fn issue_catalogue_token(&self, resource: &Resource, cx: &RequestContext) -> Result<Secret, Error> {
        let snapshot = self.inner.follower.snapshot(cx.now).await?;
        let entropy = &self.inner.ports.entropy;
        let ids = (TokenId::new(entropy.new_uuid()), TaskId::new(entropy.new_uuid()));
        let claims = TaskTokenClaims::for_catalogue(&self.settings().issuer, &resource.uri, ids, snapshot.seq, cx.now)
            .map_err(Outage::during("name the client of the catalogue"))?;
        let payload = serde_json::to_vec(&claims).map_err(Outage::during("write the claims"))?;
        let algorithm = self.select_signing_algorithm(resource.signing_algorithm, cx);
        let token = self.inner.ports.signer.sign(algorithm, TokenKind::Access.typ(), &payload, cx.now)?;
        let record = Record {
            client: Some(claims.client_id.clone()),
            token: Some(claims.jti),
            resource: Some(claims.aud.clone()),
            granted: Some(json!({
                "kind": TokenKind::Access,
                "authorization_details": claims.authorization_details,
                "expires": claims.exp,
            })),
            request_id: Some(cx.request_id.clone()),
            source: cx.source_text(),
            ..Record::new(cx.now, Event::TokenIssue, Outcome::Done)
        };
        let write = WriteSet {
            audit_records: vec![record],
            token: Some(TokenRecord {
                id: claims.jti,
                kind: TokenKind::Access,
                task: None,
                grant: None,
                break_glass: false,
                requester: None,
                client: claims.client_id.clone(),
                agents: Vec::new(),
                audience: claims.aud,
                lineage: Vec::new(),
                authority: claims.authorization_details,
                issued: cx.now,
                expires: claims.exp,
                rev: claims.rev,
                status_index: None,
                evidence: None,
            }),
            ..WriteSet::default()
        };
        match self.inner.writer.commit(write).await? {
            WriteOutcome::Committed { .. } => Ok(Secret::new(token)),
            _ => Err(LogicError::ImpossibleOutcome("not committed").into()),
        }
    }

    /// Stores the difference between a listing and the catalogue.
    async fn store_findings(
        &self,
        queried: &Resource,
        listing: &ToolListing,
        mode: RefreshMode<'_>,
        record: Record,
        cx: &RequestContext,
    ) -> Result<Catalogue, Error> {
        self.change_tools(&queried.id, record, cx, |_, resource, records| {
            // The resource has moved to another server, and this listing is from the old one.
            if resource.uri != queried.uri {
                return Err(ConflictError::ConcurrentUpdate.into());
            }
            let tools = diff_listing(resource, records, &listing.tools, mode, cx.now);
            let changed = tools.iter().filter(|diff| diff.has_changed);
            let change = |diff: &ToolDiff| match &diff.record {
                Some(record) => StateChange::PutTool(Box::new(record.clone())),
                None => StateChange::RemoveTool(resource.id.clone(), diff.tool.clone()),
            };
            let summary = changed.clone().map(|diff| {
                let observed = diff.record.as_ref().and_then(|record| record.observed.as_ref());
                let digest = observed.map(|observed| &observed.digest);
                json!({"name": diff.tool, "previous_state": diff.previous_state, "state": diff.state, "digest": digest})
            });
            let summary = Value::Array(summary.collect());
            let changes = changed.map(change).collect();
            let catalogue = Catalogue { tools, unusable: Some(listing.unusable.clone()), resource: resource.clone() };
            Ok((changes, catalogue, summary, None))
        })
        .await
    }

    /// Changes the tool records of a resource as `plan` decides on the current registry and
    /// records. `plan` returns the changes, the result, what the audit record says of them, and the
    /// approval of a second person.
    async fn change_tools<T>(
        &self,
        id: &ClientId,
        record: Record,
        cx: &RequestContext,
        plan: impl Fn(&Registry, &Resource, &[ToolRecord]) -> Result<ToolChanges<T>, Error>,
    ) -> Result<T, Error> {
        let by = record.admin.clone().unwrap_or_default();
        let request = Idempotent::<NoResponse>::without_key();
        let completion = self.commit_with_retry(&request, None, |_| async {
            let snapshot = self.inner.follower.snapshot(cx.now).await?;
            let registry = &snapshot.registry;
            // Read after the registry. If the records are newer, the registry version has moved on,
            // and the write fails.
            let records = self.store().list_tools(id).await?;
            let resource = registry.resource(id).ok_or(ConflictError::NotFound("resource"))?;
            let (changes, result, granted, approval) = plan(registry, resource, &records)?;
            let is_refresh_without_changes = changes.is_empty() && by == REFRESH_ACTOR;
            if is_refresh_without_changes {
                return Ok(Decision::Answer(result));
            }
            let log_entries =
                if changes.is_empty() { Vec::new() } else { log_entries_for(&changes, registry, &by, cx.now) };
            let granted = Some(granted).filter(|value| !value.is_null());
            let mut write = WriteSet {
                precondition: Some(Precondition::RegistryVersion(registry.version())),
                state_changes: changes,
                log_entries,
                audit_records: vec![Record { granted, ..record.clone() }],
                ..WriteSet::default()
            };
            apply_approval(&mut write, approval);
            Ok(Decision::Write(Box::new(write), result))
        });
        match completion.await? {
            Completion::Done(result, _) => Ok(result),
            Completion::Replayed(Replay { response, .. }) => match response {},
            Completion::Refused(conflict) => Err(self.record_refusal_after_barrier(record, conflict).await),
        }
    }
}

/// The actor of periodic refreshes in log entries and audit records.
const REFRESH_ACTOR: &str = "refresh";

/// Returns the digest of each accepted definition that another one replaces.
fn replaced_definitions(records: &[ToolRecord], accepted: &[ToolRecord]) -> Vec<Value> {
    let digest = |record: &ToolRecord| record.accepted.as_ref().map(|accepted| accepted.digest.clone());
    let replaced = accepted.iter().filter_map(|new| {
        let old = records.iter().find(|old| old.tool == new.tool).and_then(digest)?;
        (Some(&old) != digest(new).as_ref()).then(|| json!({"name": new.tool, "digest": old}))
    });
    replaced.collect()
}

fn audit_record(by: &str, resource: &Resource, requested: Value, cx: &RequestContext) -> Record {
    Record {
        admin: Some(by.to_owned()),
        resource: Some(resource.uri.to_string()),
        requested: Some(requested),
        request_id: Some(cx.request_id.clone()),
        source: cx.source_text(),
        ..Record::new(cx.now, Event::CatalogueChange, Outcome::Done)
    }
}

/// Returns the resource with this id, or at this URI or alias.
fn find_resource<'a>(registry: &'a Registry, name: &str) -> Result<&'a Resource, ConflictError> {
    let by_id = name.parse::<ClientId>().ok().and_then(|id| registry.resource(&id));
    let by_uri = || name.parse::<ResourceUri>().ok().and_then(|uri| registry.find_resource(&uri));
    by_id.or_else(by_uri).ok_or(ConflictError::NotFound("resource"))
}
