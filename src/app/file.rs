//! What the configuration file declares, brought into the store at the start.

use std::collections::BTreeMap;

use serde_json::json;

use crate::{
    app::{
        Conflict, Cx, Failure, Service,
        admin::{ATTEMPTS, listed, log_of, put},
        follow::load,
    },
    domain::{
        audit::{Event, Outcome, Record},
        id::ClientId,
        registry::{Entry, Object, OwnedTag, Owner, Registry},
        secret::Secret,
    },
    ports::{Change, Expected, Write, Written},
};

impl Service {
    /// Brings the store to what the configuration file declares: its objects are put, those that an earlier file
    /// declared and this one does not are removed, secrets from files get their tags. Returns whether anything changed.
    /// Two replicas that start at once agree: whoever is second finds nothing to change.
    pub async fn apply_file(
        &self,
        objects: &[Object],
        secrets: &[(ClientId, Secret)],
        cx: &Cx,
    ) -> Result<bool, Failure> {
        for _ in 0..ATTEMPTS {
            let registry = load(self.store()).await?;
            let (changes, entries) = self.file_changes(&registry, objects, secrets);
            if changes.is_empty() {
                return Ok(false);
            }
            Registry::build(0, entries, BTreeMap::new()).map_err(|faults| Conflict::Inconsistent(listed(&faults)))?;
            let log = log_of(&changes, &registry, "file", cx.now);
            let names = changes.iter().map(named).collect::<Vec<_>>();
            let write = Write {
                expected: Some(Expected::Registry(registry.version())),
                changes,
                log,
                audit: vec![Record {
                    admin: Some("file".into()),
                    asked: Some(json!({"changes": names})),
                    request_id: Some(cx.request_id.clone()),
                    ..Record::new(cx.now, Event::RegistryChange, Outcome::Done)
                }],
                ..Write::default()
            };
            if matches!(self.0.journal.commit(write).await?, Written::Done { .. }) {
                self.after_removals(cx).await;
                return Ok(true);
            }
        }
        Err(Conflict::Contended.into())
    }

    fn file_changes(
        &self,
        registry: &Registry,
        objects: &[Object],
        secrets: &[(ClientId, Secret)],
    ) -> (Vec<Change>, Vec<Entry>) {
        let declared =
            |entry: &Entry| objects.iter().any(|o| o.kind() == entry.object.kind() && o.id() == entry.object.id());
        let declares = objects.iter().map(|object| Entry { object: object.clone(), owner: Owner::File });
        let changed =
            declares.clone().filter(|entry| registry.entry(entry.object.kind(), entry.object.id()) != Some(entry));
        let gone = registry.entries().iter().filter(|entry| entry.owner == Owner::File && !declared(entry));
        let removals = gone.clone().map(|e| Change::RemoveObject(e.object.kind(), e.object.id().to_owned()));
        let tags = secrets.iter().filter_map(|(client, secret)| {
            let pepper = &self.0.parts.pepper;
            let fits =
                |owned: &OwnedTag| owned.owner == Owner::File && pepper.matches(client.as_str(), secret, &owned.tag);
            // An object takes the secret of its name with it, also where another kind of object comes in its place.
            let known =
                registry.tag(client).is_some_and(fits) && !gone.clone().any(|e| e.object.id() == client.as_str());
            let tag = || OwnedTag { tag: pepper.tag(client.as_str(), secret), owner: Owner::File };
            (!known).then(|| Change::PutSecret(client.clone(), tag()))
        });
        let not_given = |id: &ClientId| !secrets.iter().any(|(client, _)| client == id);
        let taken = registry.tags().filter(|(client, owned)| owned.owner == Owner::File && not_given(client));
        let taken = taken.map(|(client, _)| Change::RemoveSecret(client.clone()));
        let puts = changed.flat_map(|entry| put(registry, entry));
        let changes = removals.chain(taken).chain(puts).chain(tags).collect();
        let kept = registry.entries().iter().filter(|entry| entry.owner == Owner::Api && !declared(entry)).cloned();
        (changes, kept.chain(declares).collect())
    }
}

fn named(change: &Change) -> String {
    match change {
        Change::PutObject(entry) => format!("put {} {}", entry.object.kind(), entry.object.id()),
        Change::RemoveObject(kind, id) => format!("remove {kind} {id}"),
        Change::PutSecret(client, _) => format!("secret of {client}"),
        Change::RemoveSecret(client) => format!("no secret of {client}"),
        Change::PutKey(key) => format!("key {}", key.dates.kid),
        Change::RemoveKey(kid) => format!("no key {kid}"),
        Change::PutGrant(grant) => format!("grant to {}", grant.agent),
        Change::PutBreakGlass(glass) => format!("break-glass grant to {}", glass.grant.agent),
        Change::Review(id, _) => format!("review of the break-glass grant {id}"),
        Change::RemoveGrant(id) => format!("withdraw the grant {id}"),
        Change::PutTool(record) => format!("tool {} of {}", record.tool, record.resource),
        Change::RemoveTool(resource, tool) => format!("no tool {tool} of {resource}"),
        Change::ForgetTools(resource) => format!("no tools of {resource}"),
        Change::ShutOut(one) => format!("{} {} {}", one.how, one.who.kind(), one.who.id()),
        Change::LetIn(who) => format!("let in {} {}", who.kind(), who.id()),
        Change::TurnTask(id, turn) => format!("task {id} {}", turn.state),
    }
}
