//! The catalogue of a resource: its MCP server is asked what tools it has, and what an admin has looked at is accepted.
//!
//! What is known of tools lies beside the resource, so that of one that the file declares it can be accepted too. Each change
//! is one of the registry, and so every replica knows of it before it answers the next request.

use serde_json::{Value, json};

use crate::{
    app::{
        Conflict, Cx, Failure, Service,
        admin::{ATTEMPTS, consistent, log_of},
    },
    domain::{
        audit::{Event, Outcome, Record},
        client::{Resource, Tool},
        id::ClientId,
        registry::{Entry, Kind, Object, Owner, Registry},
        time::Lifetime,
        tool::{Acceptance, Finding, Look, ToolRecord, accept, look, standing},
        uri::ResourceUri,
    },
    ports::{Change, Expected, Listed, Write, Written},
};

/// How it stands with the tools of a resource.
#[derive(Debug)]
pub struct Catalogue {
    /// The resource.
    pub resource: Resource,
    /// Its tools, and what its server lists beside.
    pub tools: Vec<Finding>,
    /// How many tools its server lists that can't be used; none, when it was not asked.
    pub unusable: Option<usize>,
}

impl Catalogue {
    /// What the resource offers under a tool's name.
    #[must_use]
    pub fn offered(&self, finding: &Finding) -> Option<&Tool> {
        self.resource.tools.iter().find(|tool| tool.name == finding.tool)
    }
}

/// Whether what a server says is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Importing {
    /// It is.
    Keep,
    /// Only the difference is shown.
    Show,
}

impl Service {
    /// What is known of the tools of a resource, which is named by its id or its URI.
    pub async fn read_catalogue(&self, name: &str, cx: &Cx) -> Result<Catalogue, Failure> {
        let view = self.0.follower.current(cx.now).await?;
        let resource = named(&view.registry, name)?.clone();
        let records = self.store().tools(&resource.id).await?;
        Ok(Catalogue { tools: standing(&resource, &records), unusable: None, resource })
    }

    /// Asks the server of a resource for its tools, and keeps what it says: a tool of the resource that is seen for the first
    /// time is accepted as it is; what changed or went is not good from then on; what is new is a proposal.
    pub async fn import_catalogue(
        &self,
        by: &str,
        name: &str,
        importing: Importing,
        cx: &Cx,
    ) -> Result<Catalogue, Failure> {
        let view = self.0.follower.current(cx.now).await?;
        let resource = named(&view.registry, name)?;
        let act = match importing {
            Importing::Keep => "import",
            Importing::Show => "diff",
        };
        let record = record(by, resource, json!(act), cx);
        let listed = match self.0.parts.servers.tools(resource).await {
            Ok(listed) => listed,
            Err(fault) => {
                let reason = Some(fault.to_string());
                self.0.journal.note(Record { outcome: Outcome::Failed, reason, ..record });
                return Err(fault.into());
            }
        };
        if importing == Importing::Show {
            let records = self.store().tools(&resource.id).await?;
            let tools = look(resource, &records, &listed.tools, Look::Import(by), cx.now);
            self.0.journal.note(record);
            return Ok(Catalogue { tools, unusable: Some(listed.unusable), resource: resource.clone() });
        }
        self.keep(resource, &listed, Look::Import(by), record, cx).await
    }

    /// Says which resources are to be asked from time to time, and how often: those that want it and were asked before.
    pub async fn catalogues_to_refresh(&self, cx: &Cx) -> Result<Vec<(ClientId, Lifetime)>, Failure> {
        let view = self.0.follower.current(cx.now).await?;
        let wants = |resource: &Resource| Some((resource.id.clone(), resource.catalogue_refresh?));
        let live = view.registry.resources().filter(|r| !r.disabled && view.registry.has_known_tools(&r.id));
        Ok(live.filter_map(wants).collect())
    }

    /// Asks the server of a resource whether its tools are still what they were. Nothing is accepted by that. An answer that
    /// can't be had changes nothing.
    pub async fn refresh_catalogue(&self, id: &ClientId, cx: &Cx) -> Result<bool, Failure> {
        let view = self.0.follower.current(cx.now).await?;
        let resource = view.registry.resource(id).ok_or(Conflict::NotFound("resource"))?;
        let listed = self.0.parts.servers.tools(resource).await?;
        let record = record(REFRESH, resource, json!(REFRESH), cx);
        let catalogue = self.keep(resource, &listed, Look::Refresh, record, cx).await?;
        Ok(catalogue.tools.iter().any(|finding| finding.is_news))
    }

    /// Accepts definitions that were looked at. A tool that is not in the catalogue goes into it, where the admin says how.
    pub async fn accept_tools(
        &self,
        by: &str,
        name: &str,
        acceptances: &[Acceptance],
        cx: &Cx,
    ) -> Result<Catalogue, Failure> {
        let view = self.0.follower.current(cx.now).await?;
        let digests = acceptances.iter().map(|a| json!({"name": a.name, "digest": a.digest, "tool": a.tool}));
        let asked = json!({"accept": digests.collect::<Vec<_>>()});
        let meant = named(&view.registry, name)?;
        let record = record(by, meant, asked, cx);
        self.change_tools(&meant.id, record, cx, |registry, resource, records| {
            let (accepted, tools) = accept(resource, records, acceptances, by, cx.now)?;
            let mut resource = resource.clone();
            let mut changes = Vec::new();
            if !tools.is_empty() {
                // As it was declared: whoever is shut out is so beside it.
                let id = resource.id.to_string();
                let declared = registry.entry(Kind::Resource, &id).filter(|entry| entry.owner == Owner::Api);
                let Some(Entry { object: Object::Resource(declared), .. }) = declared else {
                    return Err(Conflict::OwnedByFile);
                };
                let mut declared = declared.clone();
                declared.tools.extend(tools.iter().cloned());
                resource.tools.extend(tools);
                let entry = Entry { object: Object::Resource(declared), owner: Owner::Api };
                let is_it = |e: &&Entry| e.object.kind() == Kind::Resource && e.object.id() == id;
                let others = registry.entries().iter().filter(|e| !is_it(e)).cloned();
                consistent(others.chain([entry.clone()]).collect(), (Kind::Resource, &id))?;
                changes.push(Change::PutObject(Box::new(entry)));
            }
            let mut now = records.to_vec();
            for record in accepted {
                now.retain(|old| old.tool != record.tool);
                now.push(record.clone());
                changes.push(Change::PutTool(Box::new(record)));
            }
            Ok((changes, Catalogue { tools: standing(&resource, &now), unusable: None, resource }, Value::Null))
        })
        .await
    }

    async fn keep(
        &self,
        asked: &Resource,
        listed: &Listed,
        how: Look<'_>,
        record: Record,
        cx: &Cx,
    ) -> Result<Catalogue, Failure> {
        self.change_tools(&asked.id, record, cx, |_, resource, records| {
            // It is another server by now: nobody was asked there.
            if resource.uri != asked.uri {
                return Err(Conflict::Contended);
            }
            let tools = look(resource, records, &listed.tools, how, cx.now);
            let news = tools.iter().filter(|finding| finding.is_news);
            let change = |finding: &Finding| match &finding.record {
                Some(record) => Change::PutTool(Box::new(record.clone())),
                None => Change::RemoveTool(resource.id.clone(), finding.tool.clone()),
            };
            let told = news.clone().map(|f| {
                let seen = f.record.as_ref().and_then(|record| record.seen.as_ref()).map(|seen| &seen.digest);
                json!({"name": f.tool, "was": f.was, "state": f.is, "seen": seen})
            });
            let told = Value::Array(told.collect());
            let changes = news.map(change).collect();
            Ok((changes, Catalogue { tools, unusable: Some(listed.unusable), resource: resource.clone() }, told))
        })
        .await
    }

    /// Changes what is known of the tools of a resource, on what it builds on: if somebody was quicker, it is made anew on
    /// what they left. The plan's last part is what the record says came of it.
    async fn change_tools<T>(
        &self,
        id: &ClientId,
        record: Record,
        cx: &Cx,
        plan: impl Fn(&Registry, &Resource, &[ToolRecord]) -> Result<(Vec<Change>, T, Value), Conflict>,
    ) -> Result<T, Failure> {
        for _ in 0..ATTEMPTS {
            let view = self.0.follower.current(cx.now).await?;
            let registry = &view.registry;
            // Read after the registry: if they are newer than it is, the registry has moved on, and nothing is written.
            let records = self.store().tools(id).await?;
            let planned = registry
                .resource(id)
                .ok_or(Conflict::NotFound("resource"))
                .and_then(|resource| plan(registry, resource, &records));
            let (changes, result, granted) = match planned {
                Ok(planned) => planned,
                Err(conflict) => return Err(self.refused_as_it_is(record, conflict).await),
            };
            let by = record.admin.clone().unwrap_or_default();
            let is_refresh_without_news = changes.is_empty() && by == REFRESH;
            if is_refresh_without_news {
                return Ok(result);
            }
            let granted = Some(granted).filter(|value| !value.is_null());
            let log = if changes.is_empty() { Vec::new() } else { log_of(&changes, registry, &by, cx.now) };
            let write = Write {
                expected: Some(Expected::Registry(registry.version())),
                changes,
                log,
                audit: vec![Record { granted, ..record.clone() }],
                ..Write::default()
            };
            if matches!(self.0.journal.commit(write).await?, Written::Done { .. }) {
                return Ok(result);
            }
        }
        Err(self.refused(record, Conflict::Contended))
    }
}

/// Who looks from time to time.
const REFRESH: &str = "refresh";

fn record(by: &str, resource: &Resource, asked: Value, cx: &Cx) -> Record {
    Record {
        admin: Some(by.to_owned()),
        resource: Some(resource.uri.to_string()),
        asked: Some(asked),
        request_id: Some(cx.request_id.clone()),
        ..Record::new(cx.now, Event::CatalogueChange, Outcome::Done)
    }
}

/// The resource with this id, or at this URI.
fn named<'a>(registry: &'a Registry, name: &str) -> Result<&'a Resource, Conflict> {
    let by_id = name.parse::<ClientId>().ok().and_then(|id| registry.resource(&id));
    let by_uri = || name.parse::<ResourceUri>().ok().and_then(|uri| registry.resource_at(&uri));
    by_id.or_else(by_uri).ok_or(Conflict::NotFound("resource"))
}
