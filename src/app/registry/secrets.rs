//! Client secrets.

use serde_json::json;

use crate::{
    app::{
        ApiCaller, ConflictError, Error, RequestContext, Service, commit::idempotency::Idempotent,
        registry::changes::Protected,
    },
    domain::{
        audit::{Event, Outcome, Record},
        encode_base64url,
        four_eyes::secret_digest,
        id::ClientId,
        registry::{ObjectKind, Source, StoredSecretTag, client::Client},
        secret::Secret,
    },
    ports::StateChange,
};

/// A new client secret. It is shown once; only its tag is stored.
#[derive(Debug)]
pub struct NewSecret {
    /// The client.
    pub client: ClientId,
    /// 256 bits, base64url.
    pub secret: Secret,
}

impl Service {
    /// Creates a secret for a client that authenticates with one. The old secret becomes invalid.
    ///
    /// A repeated request creates no second secret. A secret from the configuration file is
    /// replaced there: the next start would restore it.
    pub async fn create_secret(
        &self,
        admin: &ApiCaller,
        client: &ClientId,
        key: Option<String>,
        cx: &RequestContext,
    ) -> Result<NewSecret, Error> {
        let request = Idempotent::new(admin.identity(), key, format!("secret of {client}"), cx);
        let secret = Secret::new(encode_base64url(&self.inner.ports.entropy.random_bytes32()?));
        let tag = StoredSecretTag { tag: self.inner.ports.pepper.tag(client.as_str(), &secret), source: Source::Api };
        let record = Record {
            resource: Some(format!("client {client}")),
            ..Record::new(cx.now, Event::SecretChange, Outcome::Done)
        };
        self.change_registry(admin, record, &request, cx, |registry| {
            let registered = registry.client(client).ok_or(ConflictError::NotFound("client"))?;
            if !registered.authentication().uses_secret() {
                let text = "the client does not authenticate with a secret; register it with `client_secret_basic`";
                return Err(ConflictError::Inconsistent(text.into()));
            }
            if registry.secret_tag(client).is_some_and(|stored| stored.source == Source::File) {
                return Err(ConflictError::ManagedByFile);
            }
            let protected = matches!(registered, Client::Admin(_)).then(|| {
                let entry = registry.entry(ObjectKind::Admin, client.as_str()).map(|entry| &entry.object);
                let replaced = registry.secret_tag(client).map(|stored| secret_digest(&stored.tag));
                Protected { current: Some(json!({"admin": entry, "replaced_secret": replaced})) }
            });
            Ok((vec![StateChange::PutSecret(client.clone(), tag.clone())], (), protected))
        })
        .await?;
        Ok(NewSecret { client: client.clone(), secret })
    }
}
