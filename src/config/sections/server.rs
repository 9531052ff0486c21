//! The sections about the server itself.

use std::{net::SocketAddr, ops::RangeInclusive};

use rustls::{
    crypto::ring::default_provider,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    sign::CertifiedKey,
};
use zeroize::Zeroizing;

use crate::config::{
    Audit, Keys, Log, LogFormat, Replicas, Requests, Store, Tls,
    node::{Node, Section},
    sections::secrets,
    store_url::{StoreUrl, StoreUrlParseError},
};
use crate::domain::{
    grants::break_glass::BreakGlassLimits,
    keys::{JWKS_MAX_AGE_SECONDS, RotationSettings},
    settings::{
        BREAK_GLASS_LIFETIME_CAP, MemoryLimits, TASK_LIFETIME_CAP, TOKEN_LIFETIME_CAP, TaskLimits, TokenLimits,
    },
    status_list::StatusListSettings,
    time::Lifetime,
};

pub(in crate::config) fn read_trust_domain(at: &Node<'_>) -> Option<String> {
    let text = at.string()?;
    let fits = (1..=255).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
    if !fits {
        at.error(
            "not 1 to 255 visible ASCII characters",
            "name the domain whose services trust each other, such as `example.com`",
        );
    }
    fits.then(|| text.to_owned())
}

pub(in crate::config) fn read_address(at: &Node<'_>) -> Option<SocketAddr> {
    at.parse("write an IP address and a port, such as `127.0.0.1:8080`")
}

pub(in crate::config) fn read_tls(root: &mut Section<'_>) -> Option<Tls> {
    let mut section = root.section("tls");
    if !section.is_present() {
        return None;
    }
    let certificate = section.required_node("certificate_file", "\"tls/chain.pem\"");
    let key = section.required_node("key_file", "\"tls/key.pem\"");
    let (certificate, key) = (certificate?, key?);
    secrets::check_permissions(&key);
    let (chain_pem, key_pem) = (secrets::read_file(&certificate), secrets::read_file(&key));
    let (chain_pem, key_pem) = (chain_pem?, key_pem?);
    let chain = CertificateDer::pem_slice_iter(&chain_pem).collect::<Result<Vec<_>, _>>();
    let chain = chain.ok().filter(|chain| !chain.is_empty());
    if chain.is_none() {
        certificate
            .error("holds no certificate in PEM", "name a file with the certificate first, then what it was signed by");
    }
    let private = PrivateKeyDer::from_pem_slice(&key_pem).ok();
    if private.is_none() {
        key.error("holds no private key in PEM", "name a file with the key of the certificate, PKCS #8 for choice");
    }
    if let Err(fault) = CertifiedKey::from_der(chain?, private?, &default_provider()) {
        let reason = match fault {
            rustls::Error::InconsistentKeys(_) => "is not the key of the certificate".to_owned(),
            fault => format!("can't be used: {fault}"),
        };
        key.error(reason, "put the key and the certificate together that were made together");
        return None;
    }
    Some(Tls { certificate_file: certificate.path()?, key_file: key.path()? })
}

pub(in crate::config) fn read_store(root: &mut Section<'_>) -> Option<Store> {
    let mut section = root.section("store");
    let found = section.exclusive(&["url", "url_file"]);
    let max_connections = read_number(&mut section, "max_connections", 10, 1..=1000, "10 are enough for most");
    let max_batch = read_number(&mut section, "max_batch", 256, 1..=4096, "how many writes share a commit at most");
    let name = "ERRAND_STORE_URL";
    let remedy = |fault| match fault {
        StoreUrlParseError::Malformed => "such as `postgres://errand@db.example.com/errand` or `sqlite:./errand.db`",
        StoreUrlParseError::InMemory => "name a file, such as `sqlite:./errand.db`",
    };
    let document = section.location.document;
    let url = if let Some(text) = secrets::read_variable(document, name) {
        let wrong =
            |fault| document.add_environment_error(name, StoreUrlParseError::to_string(&fault), remedy(fault).into());
        StoreUrl::parse(&text).map_err(wrong).ok()
    } else if let Some((key, at)) = found {
        let text = if key == "url" {
            at.string().map(|text| Zeroizing::new(text.to_owned()))
        } else {
            secrets::read_secret(&at)
        };
        let url = StoreUrl::parse(&text?).map_err(|fault| at.error(fault, remedy(fault))).ok();
        if key == "url" && url.as_ref().is_some_and(StoreUrl::has_password) {
            let remedy = format!(
                "put the URL into a file and name it with `url_file`, or into {name}; take this password for leaked"
            );
            at.error("a secret never stands in this file", remedy);
        }
        url.map(|url| url.resolve_relative_to(document.base_dir))
    } else {
        section.location.error("there is no store", format_args!("set `url` or `url_file`, or {name}"));
        None
    };
    Some(Store { url: url?, max_connections, max_batch })
}

pub(in crate::config) fn read_tokens(root: &mut Section<'_>) -> TokenLimits {
    let mut section = root.section("tokens");
    let default = TokenLimits::default();
    let cap = TOKEN_LIFETIME_CAP.as_seconds();
    let why = "seconds; no token lives longer than 15 minutes";
    TokenLimits {
        lifetime: read_lifetime(&mut section, "lifetime", default.lifetime, 10..=cap, why),
        api_token_lifetime: read_lifetime(
            &mut section,
            "api_token_lifetime",
            default.api_token_lifetime,
            10..=cap,
            why,
        ),
        max_chain: section
            .optional("max_chain", |at| at.integer(1..=8, "how many agents may stand in `act`; 4 is usual"))
            .and_then(|length| usize::try_from(length).ok())
            .unwrap_or(default.max_chain),
        leeway: read_lifetime(
            &mut section,
            "leeway",
            default.leeway,
            0..=60,
            "seconds; mend the clocks if they differ by more",
        ),
        max_assertion_lifetime: read_lifetime(
            &mut section,
            "max_assertion_lifetime",
            default.max_assertion_lifetime,
            10..=3600,
            "seconds; an assertion is used at once, so minutes are enough",
        ),
    }
}

pub(in crate::config) fn read_tasks(root: &mut Section<'_>) -> TaskLimits {
    let mut section = root.section("tasks");
    let default = TaskLimits::default();
    let why = "seconds; no task takes longer than 24 hours";
    let cap = TASK_LIFETIME_CAP.as_seconds();
    let max_lifetime = read_lifetime(&mut section, "max_lifetime", default.max_lifetime, 10..=cap, why);
    let why = "seconds; not longer than `max_lifetime`";
    let usual = default.lifetime.min(max_lifetime);
    TaskLimits {
        lifetime: read_lifetime(&mut section, "lifetime", usual, 10..=max_lifetime.as_seconds(), why),
        max_lifetime,
    }
}

pub(in crate::config) fn read_break_glass(root: &mut Section<'_>) -> BreakGlassLimits {
    let mut section = root.section("break_glass");
    let why = "seconds; no grant for an emergency lasts longer than 4 hours";
    let (usual, cap) = (BreakGlassLimits::default().max_lifetime, BREAK_GLASS_LIFETIME_CAP.as_seconds());
    BreakGlassLimits { max_lifetime: read_lifetime(&mut section, "max_lifetime", usual, 10..=cap, why) }
}

pub(in crate::config) fn read_keys(root: &mut Section<'_>, tokens: &TokenLimits) -> Option<Keys> {
    const SECONDS_PER_DAY: u32 = 24 * 3600;
    let mut section = root.section("keys");
    let algorithm = section.optional("algorithm", |at| at.parse_keyword()).unwrap_or_default();
    let file = section.get("encryption_key_file");
    let encryption_key = secrets::read_encryption_key(&section.location, file.as_ref());
    let mut section = section.section("rotation");
    let default = RotationSettings::default();
    let why = "seconds; longer than resources cache our keys, so that none meets a signature of a key it has not seen";
    let publish_ahead = read_lifetime(
        &mut section,
        "publish_ahead",
        default.publish_ahead,
        JWKS_MAX_AGE_SECONDS + 60..=7 * SECONDS_PER_DAY,
        why,
    );
    let why =
        "seconds; a retired key stays published for longer than the longest token lives (15 minutes) and the leeway";
    let least = TOKEN_LIFETIME_CAP.saturating_add(tokens.leeway).as_seconds() + 1;
    let keep_retired =
        read_lifetime(&mut section, "keep_retired", default.keep_retired, least..=90 * SECONDS_PER_DAY, why);
    let why = "seconds; longer than `publish_ahead`, at least an hour";
    let least = publish_ahead.as_seconds().max(3599) + 1;
    let every = read_lifetime(&mut section, "every", default.every, least..=400 * SECONDS_PER_DAY, why);
    Some(Keys {
        algorithm,
        encryption_key: encryption_key?,
        rotation: RotationSettings { every, publish_ahead, keep_retired },
    })
}

pub(in crate::config) fn read_audit(root: &mut Section<'_>) -> Audit {
    let mut section = root.section("audit");
    Audit { introspections: section.optional("introspections", |at| at.parse_keyword()).unwrap_or_default() }
}

pub(in crate::config) fn read_log(root: &mut Section<'_>) -> Log {
    let mut section = root.section("log");
    let level = section.optional("level", |at| {
        let text = at.string()?;
        let bad = text.split(',').find(|directive| !is_valid_directive(directive));
        if let Some(bad) = bad {
            let remedy = "write one of off, error, warn, info, debug, trace, and `target=level` after it if needed, such as `info,errand=debug`";
            at.error(format_args!("`{}` is no log level", bad.escape_debug()), remedy);
        }
        bad.is_none().then(|| text.to_owned())
    });
    Log {
        format: section.optional("format", |at| at.parse_keyword()).unwrap_or(LogFormat::Json),
        level: level.unwrap_or_else(|| "info".to_owned()),
    }
}

/// `tracing-subscriber` takes any word for the name of a module, and logs all of it; so a misspelt level is told here.
fn is_valid_directive(directive: &str) -> bool {
    let (target, level) = directive.trim().split_once('=').unwrap_or(("errand", directive.trim()));
    let named =
        !target.is_empty() && target.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b':' | b'-'));
    named && ["off", "error", "warn", "info", "debug", "trace"].contains(&level)
}

pub(in crate::config) fn read_requests(root: &mut Section<'_>) -> Requests {
    let mut section = root.section("requests");
    Requests {
        timeout_seconds: read_number(
            &mut section,
            "timeout_seconds",
            10,
            1..=120,
            "seconds; clients give up after some ten",
        ),
        queue: read_number(&mut section, "queue", 1024, 1..=65536, "how many requests are in the works at once"),
        listeners: read_number(&mut section, "listeners", 1000, 1..=65536, "each is a connection that stays open"),
        listeners_per_client: read_number(
            &mut section,
            "listeners_per_client",
            100,
            1..=65536,
            "one for each process of an MCP server that checks offline",
        ),
    }
}

pub(in crate::config) fn read_replicas(root: &mut Section<'_>, requests: Requests) -> Replicas {
    let mut section = root.section("replicas");
    let name = section.optional("name", |at| {
        let text = at.string()?;
        let fits = (1..=100).contains(&text.chars().count()) && !text.chars().any(char::is_control);
        if !fits {
            at.error(
                "not 1 to 100 characters",
                "name this replica as you call it, or leave it out for the machine's name",
            );
        }
        fits.then(|| text.to_owned())
    });
    // Whoever takes something back while a replica is dead waits for its lease, and must still get an answer.
    let most = requests.timeout_seconds.saturating_mul(1000).saturating_sub(250).min(30_000);
    let why = "milliseconds; shorter than `timeout_seconds` in `[requests]` by a quarter of a second: a revocation waits for a dead replica as long as this";
    let lease_ms = read_number(&mut section, "lease_ms", 2000.min(most), 100..=most, why);
    let why = "milliseconds; at most a third of `lease_ms`, so that a lost renewal does no harm";
    let heartbeat_ms = read_number(&mut section, "heartbeat_ms", lease_ms / 4, 20..=lease_ms / 3, why);
    Replicas { name, lease_ms, heartbeat_ms }
}

pub(in crate::config) fn read_memory(root: &mut Section<'_>) -> MemoryLimits {
    let mut section = root.section("memory");
    let default = MemoryLimits::default();
    let why = "how many tokens are known again; 0 for none";
    let verified_tokens = read_number(&mut section, "verified_tokens", default.verified_tokens, 0..=16_777_216, why);
    let why = "MiB; a token takes some five to ten KiB";
    let megabytes = read_number(&mut section, "verified_megabytes", default.verified_megabytes, 1..=65_536, why);
    MemoryLimits { verified_tokens, verified_megabytes: megabytes }
}

pub(in crate::config) fn read_status_list(root: &mut Section<'_>) -> StatusListSettings {
    let mut section = root.section("status_list");
    let default = StatusListSettings::default();
    let enabled = section.optional("enabled", |at| at.boolean()).unwrap_or(default.enabled);
    let why = "seconds; a token that was taken back is good for up to twice as long to who goes by a list";
    StatusListSettings { enabled, ttl: read_lifetime(&mut section, "ttl", default.ttl, 2..=300, why) }
}

fn read_number(
    section: &mut Section<'_>,
    key: &'static str,
    default: u32,
    range: RangeInclusive<u32>,
    why: &str,
) -> u32 {
    section.optional(key, |at| at.integer(range, why)).unwrap_or(default)
}

fn read_lifetime(
    section: &mut Section<'_>,
    key: &'static str,
    default: Lifetime,
    range: RangeInclusive<u32>,
    why: &str,
) -> Lifetime {
    section.optional(key, |at| at.integer(range, why)).map_or(default, Lifetime::seconds)
}
