//! One file and the environment, read into a [`Config`] that exists only if everything in it holds together.
//!
//! Keys that are not known are refused; secrets come from other files or the environment and never stand in this one;
//! and all mistakes are told in one run, each with its place, its reason and its remedy. `errand.example.toml` has every key.

mod dev;
mod diagnostic;
mod node;
mod sections;
mod store_url;
mod summary;
#[cfg(test)]
mod tests;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use crate::domain::{
    audit::IntrospectionAuditMode,
    grants::break_glass::BreakGlassLimits,
    id::ClientId,
    jose::jwk::SigningAlgorithm,
    keys::RotationSettings,
    registry::RegistryObject,
    secret::Secret,
    settings::{MemoryLimits, TaskLimits, TokenLimits},
    status_list::StatusListSettings,
    uri::IssuerUrl,
};
use node::{Document, Environment, Section};

pub use dev::{DEV_LISTEN, dev_address, dev_folder};
pub use diagnostic::{ConfigError, ConfigErrors};
pub use sections::secrets::EncryptionKey;
pub use store_url::{StoreUrl, StoreUrlParseError};
pub use summary::{summarize, warnings};

/// How this server is set up.
#[derive(Debug)]
pub struct Config {
    /// Our name: `iss` of our tokens, and the URL that clients reach us at.
    pub issuer: IssuerUrl,
    /// The `aud` of transaction tokens.
    pub trust_domain: String,
    /// Where requesters grant what agents need their consent for.
    pub consent_uri: Option<url::Url>,
    /// Where we listen.
    pub listen: SocketAddr,
    /// Our certificate; without one, somebody in front of us ends TLS.
    pub tls: Option<Tls>,
    /// Where health and metrics are, if not at `listen`.
    pub operations_listen: Option<SocketAddr>,
    /// Where everything is kept.
    pub store: Store,
    /// Our signing keys.
    pub keys: Keys,
    /// Lives and depths of tokens.
    pub tokens: TokenLimits,
    /// Lives of tasks.
    pub tasks: TaskLimits,
    /// Lives of grants for an emergency.
    pub break_glass: BreakGlassLimits,
    /// What is recorded.
    pub audit: Audit,
    /// How we log.
    pub log: Log,
    /// How requests are held in bounds.
    pub requests: Requests,
    /// How replicas follow what happens at others.
    pub replicas: Replicas,
    /// How much is kept in memory.
    pub memory: MemoryLimits,
    /// Status lists.
    pub status_list: StatusListSettings,
    /// The objects that the file declares; consistent among themselves.
    pub objects: Vec<RegistryObject>,
    /// The secrets of those of them that have one by file or environment.
    pub secrets: Vec<(ClientId, Secret)>,
    /// The bearer tokens that resources are asked for their tools with.
    pub catalogue_tokens: Vec<(ClientId, Secret)>,
}

/// `[tls]`: a chain and its key, which have been seen to fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// The certificate chain, PEM.
    pub certificate_file: PathBuf,
    /// The private key, PEM.
    pub key_file: PathBuf,
}

/// `[store]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Store {
    /// Which.
    pub url: StoreUrl,
    /// How many connections a replica holds at most.
    pub max_connections: u32,
    /// How many writes share a commit at most.
    pub max_batch: u32,
}

/// `[keys]`
#[derive(Clone, Debug)]
pub struct Keys {
    /// What our tokens are signed with.
    pub algorithm: SigningAlgorithm,
    /// What the signing keys are encrypted with in the store.
    pub encryption_key: EncryptionKey,
    /// When a key follows another.
    pub rotation: RotationSettings,
}

/// `[audit]`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Audit {
    /// Which introspections are recorded.
    pub introspections: IntrospectionAuditMode,
}

/// `[log]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// In which form.
    pub format: LogFormat,
    /// A filter in the syntax of `tracing`: a level, then `target=level` for exceptions.
    pub level: String,
}

/// In which form we log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// A JSON object a line, for machines.
    Json,
    /// For eyes.
    Pretty,
}

/// `[requests]`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Requests {
    /// How long a request may take.
    pub timeout_seconds: u32,
    /// How many requests are in the works at once; one more is answered 503.
    pub queue: u32,
    /// How many may listen to the revocation feed at once.
    pub listeners: u32,
    /// How many of them with one client's API tokens.
    pub listeners_per_client: u32,
}

/// `[replicas]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replicas {
    /// What this one is called; the machine's name, if it is not said.
    pub name: Option<String>,
    /// For how long a replica answers from memory without hearing from the store.
    pub lease_ms: u32,
    /// How often it renews that.
    pub heartbeat_ms: u32,
}

impl Config {
    /// Reads the file at `path`; what it names, too.
    pub fn load(path: &Path, environment: &dyn Fn(&str) -> Option<String>) -> Result<Self, ConfigErrors> {
        let file = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|fault| ConfigError {
            file: file.clone(),
            position: None,
            key: String::new(),
            reason: format!("cannot be read: {fault}"),
            remedy: "name the configuration file; errand.example.toml is one to start from".to_owned(),
        })?;
        Self::parse(&file, path.parent().unwrap_or(Path::new("")), &text, environment)
    }

    /// Reads a text that is called `file` in messages and whose relative paths start at `base`.
    fn parse(file: &str, base: &Path, text: &str, environment: Environment<'_>) -> Result<Self, ConfigErrors> {
        let document = Document::new(file, base, text, environment);
        let config = parse_document(&document);
        let mistakes = document.into_errors();
        // A config without mistakes is whole: whatever could not be read has been told.
        match config {
            Some(config) if mistakes.is_empty() => Ok(config),
            _ => Err(ConfigErrors::sorted(mistakes)),
        }
    }
}

fn parse_document(document: &Document<'_>) -> Option<Config> {
    let table = document.parse()?;
    let mut root = document.top_level(&table);
    let issuer = root.required("issuer", "\"https://sts.example.com\"", |at| {
        at.parse::<IssuerUrl>("write the URL that clients reach Errand at; https, unless it is on this machine")
    });
    let trust_domain = root.required("trust_domain", "\"example.com\"", |at| sections::server::read_trust_domain(&at));
    let consent_uri = root.optional("consent_uri", |at| {
        at.parse::<url::Url>(
            "write the URL of the page where requesters make grants, such as `https://portal.example.com/grants`",
        )
    });
    let listen = root.optional("listen", |at| sections::server::read_address(&at)).unwrap_or(DEV_LISTEN);
    let operations_listen = root.optional("operations_listen", |at| {
        let address = sections::server::read_address(&at)?;
        if address == listen {
            at.error("is the same as `listen`", "choose another port, or leave it out to have both at one");
        }
        Some(address)
    });
    let tls = sections::server::read_tls(&mut root);
    let store = sections::server::read_store(&mut root);
    let tokens = sections::server::read_tokens(&mut root);
    let tasks = sections::server::read_tasks(&mut root);
    let break_glass = sections::server::read_break_glass(&mut root);
    let keys = sections::server::read_keys(&mut root, &tokens);
    let audit = sections::server::read_audit(&mut root);
    let log = sections::server::read_log(&mut root);
    let requests = sections::server::read_requests(&mut root);
    let replicas = sections::server::read_replicas(&mut root, requests);
    let memory = sections::server::read_memory(&mut root);
    let status_list = sections::server::read_status_list(&mut root);
    let declared = sections::registry::read_registry(&mut root, issuer.as_ref());
    check_trust_domain(&root, trust_domain.as_deref(), issuer.as_ref(), &declared.objects);
    Some(Config {
        issuer: issuer?,
        trust_domain: trust_domain?,
        consent_uri,
        listen,
        tls,
        operations_listen,
        store: store?,
        keys: keys?,
        tokens,
        tasks,
        break_glass,
        audit,
        log,
        requests,
        replicas,
        memory,
        status_list,
        objects: declared.objects,
        secrets: declared.secrets,
        catalogue_tokens: declared.catalogue_tokens,
    })
}

/// A token for the whole trust domain must not pass for one for us or for a resource.
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
    let named = resources.chain(issuer.map(IssuerUrl::as_str)).find(|uri| domain == Some(*uri));
    if let Some(uri) = named {
        let remedy = "name the domain, such as `example.com`: a token for all of it must not pass for one for this";
        root.location_of("trust_domain").error(format_args!("`{uri}` is an audience of its own"), remedy);
    }
}

/// A variable of the process's environment. The one place that reads it.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the place: config.rs reads the environment, and nobody else")]
pub fn env_var(name: &str) -> Option<String> {
    std::env::var(name).ok()
}
