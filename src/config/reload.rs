//! What a running server can take from a changed configuration file, and what needs a restart.

use super::{Config, EncryptionKey, Fetch, Keys, Proxy};
use crate::domain::{id::ClientId, secret::Secret};

/// Returns the keys that differ between the configuration of a running server and a newly read
/// one, and that take effect only after a restart. Everything else takes effect by a reload.
#[must_use]
pub fn keys_that_need_restart(running: &Config, read: &Config) -> Vec<&'static str> {
    // Every field has a line here, so that a new setting is decided on.
    let Config {
        issuer,
        trust_domain,
        generation: _,
        consent_uri: _,
        listen,
        tls,
        operations_listen,
        store,
        keys,
        tokens: _,
        tasks: _,
        break_glass: _,
        four_eyes: _,
        audit: _,
        log,
        tracing,
        limits,
        requests,
        admission: _,
        quotas: _,
        retention: _,
        replicas,
        memory,
        status_list,
        fetch,
        objects: _,
        secrets: _,
        catalogue_tokens,
    } = read;
    let differs = [
        ("issuer", *issuer != running.issuer),
        ("trust_domain", *trust_domain != running.trust_domain),
        ("listen", *listen != running.listen),
        ("tls", tls.is_some() != running.tls.is_some()),
        ("operations_listen", *operations_listen != running.operations_listen),
        ("store", *store != running.store),
        ("keys", !are_same_keys(keys, &running.keys)),
        ("log.format", log.format != running.log.format),
        ("tracing", *tracing != running.tracing),
        ("limits", *limits != running.limits),
        ("requests", *requests != running.requests),
        ("replicas", *replicas != running.replicas),
        ("memory", *memory != running.memory),
        ("status_list.ttl", status_list.ttl != running.status_list.ttl),
        ("fetch", !are_same_fetches(fetch, &running.fetch)),
        ("resources.catalogue_token", !have_same_tokens(catalogue_tokens, &running.catalogue_tokens)),
    ];
    differs.into_iter().filter(|(_, differs)| *differs).map(|(key, _)| key).collect()
}

fn are_same_keys(one: &Keys, other: &Keys) -> bool {
    let Keys { algorithm, encryption_key, previous_encryption_keys, rotation } = one;
    let previous = previous_encryption_keys.iter().map(EncryptionKey::expose);
    *algorithm == other.algorithm
        && *rotation == other.rotation
        && encryption_key.expose() == other.encryption_key.expose()
        && previous.eq(other.previous_encryption_keys.iter().map(EncryptionKey::expose))
}

fn are_same_fetches(one: &Fetch, other: &Fetch) -> bool {
    fn parts(proxy: &Proxy) -> (&str, &[String], Option<&str>) {
        (proxy.url.as_str(), &proxy.no_proxy, proxy.credentials.as_ref().map(Secret::expose))
    }
    one.networks == other.networks
        && one.ca_pem == other.ca_pem
        && one.proxy.as_ref().map(parts) == other.proxy.as_ref().map(parts)
}

fn have_same_tokens(one: &[(ClientId, Secret)], other: &[(ClientId, Secret)]) -> bool {
    let is_same = |((id, token), (other_id, other)): (&(ClientId, Secret), &(ClientId, Secret))| {
        id == other_id && token.expose() == other.expose()
    };
    one.len() == other.len() && one.iter().zip(other).all(is_same)
}
