//! Objects of the registry: issuers, agents, resources, admins.

use serde_json::json;

use crate::{
    app::{
        ApiCaller, ConflictError, Error, RequestContext, Service,
        commit::idempotency::Idempotent,
        registry::changes::{Protected, put_changes, validate_registry},
    },
    domain::{
        audit::{Event, Outcome, Record},
        four_eyes::put_needs_approval,
        keys::RotationReason,
        registry::{
            Entry, ObjectKind, RegistryObject, Source, client::Resource, collides_with_issuer, network_outside,
        },
    },
    ports::StateChange,
};

impl Service {
    /// Creates or replaces an object. Returns whether it is new.
    pub async fn put_object(
        &self,
        admin: &ApiCaller,
        object: &RegistryObject,
        cx: &RequestContext,
    ) -> Result<bool, Error> {
        let (kind, id) = (object.kind(), object.id().to_owned());
        let entry = Entry { object: object.clone(), source: Source::Api };
        let record = Record {
            requested: Some(json!({"put": object})),
            resource: Some(format!("{kind} {id}")),
            ..Record::new(cx.now, Event::RegistryChange, Outcome::Done)
        };
        let request = Idempotent::without_key();
        let change = self.change_registry(admin, record, &request, cx, |registry| {
            let settings = self.settings();
            if let Some(error) = collides_with_issuer(object, &settings.issuer, &settings.trust_domain) {
                return Err(ConflictError::Inconsistent(error.to_string()));
            }
            if let Some(network) = network_outside(object, &settings.fetch_networks) {
                return Err(ConflictError::Inconsistent(format!(
                    "{kind} `{id}`: allowed_networks: {network} is not within `networks` of `[fetch]` in the configuration file; add it there first"
                )));
            }
            let old = registry.entry(kind, &id);
            if old.is_some_and(|old| old.source == Source::File) {
                return Err(ConflictError::ManagedByFile);
            }
            let others = registry.entries().iter().filter(|e| !(e.object.kind() == kind && e.object.id() == id));
            validate_registry(others.cloned().chain([entry.clone()]).collect(), (kind, &id))?;
            let protected = put_needs_approval(registry, object).then(|| Protected::new(old.map(|old| &old.object)));
            Ok((put_changes(registry, entry.clone()), old.is_none(), protected))
        });
        let is_new = change.await?;
        if object.is_disabled() {
            self.clean_up_removed(cx).await;
        }
        if let RegistryObject::Resource(Resource { signing_algorithm: Some(_), .. }) = object {
            // The resource may be the first with this algorithm. Its key must exist before a token
            // is requested.
            self.rotate_keys(&admin.identity(), RotationReason::Age, cx).await?;
        }
        Ok(is_new)
    }

    /// Removes an object, its secret, and the grants that name it. Tokens that it takes part in are
    /// revoked, and its tasks end.
    pub async fn remove_object(
        &self,
        admin: &ApiCaller,
        kind: ObjectKind,
        id: &str,
        cx: &RequestContext,
    ) -> Result<(), Error> {
        let record = Record {
            requested: Some(json!({"remove": {"kind": kind, "id": id}})),
            resource: Some(format!("{kind} {id}")),
            ..Record::new(cx.now, Event::RegistryChange, Outcome::Done)
        };
        self.change_registry(admin, record, &Idempotent::without_key(), cx, |registry| {
            let old = registry.entry(kind, id).ok_or(ConflictError::NotFound(kind.as_str()))?;
            if old.source == Source::File {
                return Err(ConflictError::ManagedByFile);
            }
            let others = registry.entries().iter().filter(|e| !(e.object.kind() == kind && e.object.id() == id));
            validate_registry(others.cloned().collect(), (kind, id))?;
            Ok((vec![StateChange::RemoveObject(kind, id.to_owned())], (), None))
        })
        .await?;
        self.clean_up_removed(cx).await;
        Ok(())
    }
}
