//! Configuration: one TOML file and the environment, parsed into a consistent [`Config`].
//!
//! Unknown keys are rejected. Secrets come from separate files or from the environment, never from
//! the configuration file itself. One run reports every error with its position, its reason and its
//! remedy. `errand.example.toml` documents every key.

mod dev;
mod diagnostic;
mod document;
mod example;
mod format;
mod node;
mod reload;
mod sections;
mod store_url;
mod summary;
#[cfg(test)]
mod tests;
mod warnings;

use std::{ffi::OsString, net::SocketAddr, path::Path};

use crate::domain::{
    four_eyes::FourEyes,
    grants::break_glass::BreakGlassLimits,
    id::ClientId,
    registry::RegistryObject,
    secret::Secret,
    settings::{AdmissionLimits, MemoryLimits, Quotas, Retention, TaskLimits, TokenLimits},
    status_list::StatusListSettings,
    uri::IssuerUrl,
};
use document::{Document, Environment};
use node::Section;

pub use dev::{DEV_LISTEN, dev_address, dev_folder};
pub use diagnostic::{ConfigError, ConfigErrors};
pub use reload::keys_that_need_restart;
pub use sections::{
    audit::Audit,
    fetch::{Fetch, Proxy},
    keys::Keys,
    limits::{InProgress, Limits},
    listen::{ForwardedHeader, Listen},
    log::{Log, LogFormat},
    replicas::{REPLICA_NAME_VARIABLE, Replicas, is_replica_name},
    requests::Requests,
    secrets::EncryptionKey,
    store::StoreConfig,
    tls::TlsConfig,
    tracing::Tracing,
};
pub use store_url::{StoreUrl, StoreUrlParseError};
pub use summary::summarize;
pub use warnings::warnings;

/// A complete, validated configuration.
#[derive(Debug)]
pub struct Config {
    /// Errand's issuer identifier: `iss` of its tokens and the URL at which clients reach it.
    pub issuer: IssuerUrl,
    /// `aud` of transaction tokens.
    pub trust_domain: String,
    /// Number of this version of the file; the operator increases it with each change.
    pub generation: Option<u64>,
    /// URL of the page where requesters make grants.
    pub consent_uri: Option<url::Url>,
    /// The public listener, and the proxies in front of it.
    pub listen: Listen,
    /// Certificate and private key; without them, a proxy terminates TLS.
    pub tls: Option<TlsConfig>,
    /// Address of the listener for health and metrics. `None` if the public listener serves them.
    pub operations_listen: Option<SocketAddr>,
    /// Store connection.
    pub store: StoreConfig,
    /// Signing keys.
    pub keys: Keys,
    /// Lifetimes of tokens and length of actor chains.
    pub tokens: TokenLimits,
    /// Lifetimes of tasks.
    pub tasks: TaskLimits,
    /// Lifetimes of break-glass grants.
    pub break_glass: BreakGlassLimits,
    /// `[four_eyes]`
    pub four_eyes: FourEyes,
    /// Audit settings.
    pub audit: Audit,
    /// Log settings.
    pub log: Log,
    /// Export of traces.
    pub tracing: Option<Tracing>,
    /// Limits of connections, and of requests in progress.
    pub limits: Limits,
    /// Request limits.
    pub requests: Requests,
    /// Limits of each caller.
    pub admission: AdmissionLimits,
    /// Quotas in the store.
    pub quotas: Quotas,
    /// `[retention]`
    pub retention: Retention,
    /// Lease and heartbeat of this replica.
    pub replicas: Replicas,
    /// Limits of in-memory caches.
    pub memory: MemoryLimits,
    /// Status list settings.
    pub status_list: StatusListSettings,
    /// How documents of other parties are fetched.
    pub fetch: Fetch,
    /// The declared registry objects, consistent with each other.
    pub objects: Vec<RegistryObject>,
    /// The client secrets that the file names by file or environment variable.
    pub secrets: Vec<(ClientId, Secret)>,
    /// The bearer tokens for fetching tool catalogues, by resource.
    pub catalogue_tokens: Vec<(ClientId, Secret)>,
}

impl Config {
    /// Reads the file at `path` and the files that it names.
    pub fn load(path: &Path, environment: &dyn Fn(&str) -> Option<String>) -> Result<Self, ConfigErrors> {
        let file = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|error| ConfigError {
            file: file.clone(),
            position: None,
            key: String::new(),
            reason: format!("can't read the file: {error}"),
            remedy: "name an existing configuration file; errand.example.toml is a template".to_owned(),
        })?;
        Self::parse(&file, path.parent().unwrap_or(Path::new("")), &text, environment)
    }

    /// Parses a text that messages call `file` and whose relative paths start at `base`.
    fn parse(file: &str, base: &Path, text: &str, environment: Environment<'_>) -> Result<Self, ConfigErrors> {
        let document = Document::new(file, base, text, environment);
        let config = parse_document(&document);
        let errors = document.into_errors();
        // Without errors the configuration is complete: every value that could not be read was
        // reported.
        match config {
            Some(config) if errors.is_empty() => Ok(config),
            _ => Err(ConfigErrors::sorted(errors)),
        }
    }
}

fn parse_document(document: &Document<'_>) -> Option<Config> {
    let table = document.parse()?;
    let mut root = Section::top_level(document, &table);
    let issuer = root.required("issuer", "\"https://sts.example.com\"", |node| read_own_issuer(&node));
    let trust_domain = root.required("trust_domain", "\"example.com\"", |node| read_trust_domain(&node));
    let generation = root.optional("generation", |node| {
        node.integer(0..=u32::MAX, "the number of this version of the file; increase it with each change")
    });
    let consent_uri = root.optional("consent_uri", |node| {
        node.parse::<url::Url>(
            "write the URL of the page where requesters make grants, such as `https://portal.example.com/grants`",
        )
    });
    let listen = sections::listen::read_listen(&mut root);
    let operations_listen = sections::listen::read_operations_listen(&mut root, listen.address);
    let tls = sections::tls::read_tls(&mut root);
    let store = sections::store::read_store(&mut root);
    let tokens = sections::tokens::read_tokens(&mut root);
    let tasks = sections::tasks::read_tasks(&mut root);
    let break_glass = sections::tasks::read_break_glass(&mut root);
    let four_eyes = sections::four_eyes::read_four_eyes(&mut root);
    let keys = sections::keys::read_keys(&mut root, &tokens);
    let audit = sections::audit::read_audit(&mut root);
    let log = sections::log::read_log(&mut root);
    let tracing = sections::tracing::read_tracing(&mut root);
    let (admission, limits) = sections::limits::read_limits(&mut root);
    let requests = sections::requests::read_requests(&mut root);
    let quotas = sections::limits::read_quotas(&mut root);
    let retention = sections::retention::read_retention(&mut root);
    let replicas = sections::replicas::read_replicas(&mut root, requests);
    let memory = sections::memory::read_memory(&mut root);
    let status_list = sections::status_list::read_status_list(&mut root);
    let fetch = sections::fetch::read_fetch(&mut root);
    let declared = sections::registry::read_registry(&mut root, issuer.as_ref());
    check_trust_domain(&root, trust_domain.as_deref(), issuer.as_ref(), &declared.objects);
    Some(Config {
        issuer: issuer?,
        trust_domain: trust_domain?,
        generation: generation.map(u64::from),
        consent_uri,
        listen,
        tls,
        operations_listen,
        store: store?,
        keys: keys?,
        tokens,
        tasks,
        break_glass,
        four_eyes,
        audit,
        log,
        tracing,
        limits,
        requests,
        admission,
        quotas,
        retention,
        replicas,
        memory,
        status_list,
        fetch,
        objects: declared.objects,
        secrets: declared.secrets,
        catalogue_tokens: declared.catalogue_tokens,
    })
}

/// Reads Errand's own issuer. Clients send tokens to it, so http is for loopback addresses only.
fn read_own_issuer(node: &node::Node<'_>) -> Option<IssuerUrl> {
    let remedy = "write the URL at which clients reach Errand: https, or http on a loopback address";
    let issuer = node.parse::<IssuerUrl>(remedy)?;
    if !issuer.is_secure() {
        node.error(format_args!("`{issuer}`: https is required; http is allowed for loopback addresses only"), remedy);
        return None;
    }
    if let Some(bare) = issuer.as_str().strip_suffix('/') {
        let reason = "ends in a slash, and clients compare the issuer as a string (RFC 8414 section 2)";
        node.error(reason, format_args!("write `{}`", bare.trim_end_matches('/')));
    }
    Some(issuer)
}

fn read_trust_domain(node: &node::Node<'_>) -> Option<String> {
    let text = node.string()?;
    let is_valid = (1..=255).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
    if !is_valid {
        node.error(
            "must be 1 to 255 visible ASCII characters",
            "name the domain whose services trust each other, such as `example.com`",
        );
    }
    is_valid.then(|| text.to_owned())
}

/// The environment variable that overrides the address of `listen`.
pub const LISTEN_VARIABLE: &str = "ERRAND_LISTEN";
/// The environment variable that overrides `operations_listen`.
pub const OPERATIONS_LISTEN_VARIABLE: &str = "ERRAND_OPERATIONS_LISTEN";

/// Rejects a trust domain that equals the issuer or a resource: a transaction token is valid in the
/// whole trust domain and must not pass for a token with a single audience.
fn check_trust_domain(
    root: &Section<'_>,
    domain: Option<&str>,
    issuer: Option<&IssuerUrl>,
    objects: &[RegistryObject],
) {
    let resources = objects.iter().filter_map(|object| match object {
        RegistryObject::Resource(resource) => Some(resource.uri.as_str()),
        RegistryObject::Issuer(_) | RegistryObject::Agent(_) | RegistryObject::Admin(_) => None,
    });
    let conflict = resources.chain(issuer.map(IssuerUrl::as_str)).find(|uri| domain == Some(*uri));
    if let Some(uri) = conflict {
        let remedy = "name a domain, such as `example.com`: a token for all of it must not pass for one for this URL";
        root.location_of("trust_domain").error(format_args!("`{uri}` is already the audience of other tokens"), remedy);
    }
}

/// Returns the arguments of this process, the program first.
#[must_use]
pub fn program_arguments() -> Vec<OsString> {
    std::env::args_os().collect()
}

/// Returns an environment variable of this process.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "the only place that reads the environment")]
pub fn env_var(name: &str) -> Option<String> {
    std::env::var(name).ok()
}
