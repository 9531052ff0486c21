mod errors;

use std::{collections::BTreeSet, fs, path::Path};

use tempfile::TempDir;

use super::*;
use crate::{
    adapters::dev_idp,
    domain::{
        jose::jws::UnverifiedJws,
        registry::{Entry, Registry, Source, issuer::SubjectTokenType},
        time::Timestamp,
        token::foreign_claims::{UserTokenRules, check_user_claims},
    },
    ports::{Entropy, Outage},
};

const KEY: &str = "q83vEjRWeJCrze8SNFZ4kKvN7xI0VniQq83vEjRWeJA=";
const PUBLIC: &str = r#"{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;
const PRIVATE: &str = r#"{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qY","d":"nWGx"}]}"#;
/// A sound key, and one with a modulus of 8 bits.
const WEAK: &str = r#"{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"},{"kty":"RSA","n":"_w","e":"AQAB"}]}"#;

/// Creates a directory with every file that the example and the cases below name.
fn config_dir() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let secret = |n: usize| format!("{n}{}\n", "123456789abcdef".repeat(5));
    fs::create_dir_all(dir.path().join("secrets")).unwrap();
    fs::create_dir_all(dir.path().join("clients")).unwrap();
    for (name, text, mode) in [
        ("secrets/store-url", "postgres://errand:s3cret@db.example.com/errand".to_owned(), 0o600),
        ("secrets/encryption-key", KEY.to_owned(), 0o600),
        ("secrets/reader", secret(1), 0o600),
        ("secrets/files", secret(4), 0o600),
        ("secrets/auditor", secret(2), 0o600),
        ("secrets/open", secret(3), 0o644),
        ("secrets/short", "hunter2".to_owned(), 0o600),
        ("secrets/open-key", KEY.to_owned(), 0o644),
        ("secrets/short-key", "c2hvcnQ=".to_owned(), 0o600),
        ("clients/planner.jwks.json", PUBLIC.to_owned(), 0o644),
        ("clients/ops.jwks.json", PUBLIC.to_owned(), 0o644),
        ("clients/private.jwks.json", PRIVATE.to_owned(), 0o644),
        ("clients/weak.jwks.json", WEAK.to_owned(), 0o644),
        ("clients/twice.jwks.json", r#"{"keys":[],"keys":[]}"#.to_owned(), 0o644),
    ] {
        write(&dir.path().join(name), &text, mode);
    }
    dir
}

fn write(path: &Path, text: &str, mode: u32) {
    fs::write(path, text).unwrap();
    #[cfg(unix)]
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
}

fn variables(name: &str) -> Option<String> {
    (name == "ERRAND_SECRET_FILES").then(|| format!("f{}", "123456789abcdef".repeat(5)))
}

/// Loads a text as a file in `dir`. Returns errors as text, without the path of `dir`.
fn load(dir: &TempDir, text: &str, variables: &dyn Fn(&str) -> Option<String>) -> Result<Config, String> {
    let path = dir.path().join("errand.toml");
    fs::write(&path, text).unwrap();
    let prefix = format!("{}/", dir.path().display());
    Config::load(&path, variables).map_err(|errors| errors.to_string().replace(&prefix, ""))
}

const GOOD: &str = r#"issuer = "https://sts.example.com"
trust_domain = "example.com"
store.url = "sqlite:errand.db"
keys.encryption_key_file = "secrets/encryption-key"

[[issuers]]
issuer = "https://login.example.com"
keys = "discovery"
audiences = ["https://sts.example.com"]
algorithms = ["RS256"]
token_types = ["access_token"]

[[agents]]
id = "planner"
authentication = { method = "private_key_jwt", jwks_file = "clients/planner.jwks.json" }
may_delegate_to = ["reader"]
access = [{ resource = "files", scopes = ["files:read"] }]

[[agents]]
id = "reader"
authentication = { method = "client_secret_basic", secret_file = "secrets/reader" }

[[resources]]
id = "files"
uri = "https://files.example.com/mcp"
authentication = { method = "client_secret_basic" }
tools = [{ name = "read_file", scope = "files:read", effect = "read" }]
"#;

#[test]
fn valid_file_is_read() {
    let dir = config_dir();
    let config = load(&dir, GOOD, &|_| None).unwrap();
    assert_eq!(config.listen.address, DEV_LISTEN);
    assert_eq!(config.tokens, TokenLimits::default());
    assert_eq!(config.store.url.expose(), format!("sqlite://{}/errand.db", dir.path().display()));
    assert_eq!(config.objects.len(), 4);
    let secrets = config.secrets.iter().map(|(id, secret)| (id.as_str(), secret.expose())).collect::<Vec<_>>();
    assert_eq!(secrets, [("reader", format!("1{}", "123456789abcdef".repeat(5)).as_str())]);
    assert!(!format!("{config:?}").contains("123456789abcdef"));
}

#[test]
fn listeners_and_traces_are_read() {
    let dir = config_dir();
    let with = |lines: &str| load(&dir, &format!("{lines}\n{GOOD}"), &|_| None);
    let default = with("").unwrap();
    assert_eq!((default.operations_listen, default.tracing), ("127.0.0.1:9090".parse().ok(), None));
    let short = with("listen = \"0.0.0.0:80\"").unwrap();
    assert_eq!((short.listen.address, short.listen.trusted_proxies), ("0.0.0.0:80".parse().unwrap(), Vec::new()));
    let same = with("listen = \"0.0.0.0:80\"\noperations_listen = \"0.0.0.0:80\"").unwrap();
    assert_eq!(same.operations_listen, None, "the public listener serves health and metrics");
    let table = "listen = { address = \"[::]:80\", trusted_proxies = [\"10.0.0.0/8\", \"::1/128\"], forwarded_header = \"forwarded\" }";
    let listen = with(table).unwrap().listen;
    assert_eq!((listen.address, listen.forwarded_header), ("[::]:80".parse().unwrap(), ForwardedHeader::Forwarded));
    assert_eq!(listen.trusted_proxies, ["10.0.0.0/8", "::1/128"].map(|network| network.parse().unwrap()));
    let traced = with("tracing = { endpoint = \"http://collector:4318/v1/traces\", sample_percent = 5 }").unwrap();
    let tracing = traced.tracing.unwrap();
    assert_eq!((tracing.endpoint.as_str(), tracing.sample_percent), ("http://collector:4318/v1/traces", 5));
    assert!(tracing.follow_caller && tracing.service_name == "errand");
    for (lines, error) in [
        ("tracing = {}", "tracing.endpoint: is missing"),
        ("tracing = { endpoint = \"grpc://x\" }", "is not an http or https URL"),
        ("tracing = { endpoint = \"http://x\", sample_percent = 101 }", "is not between 0 and 100"),
        ("limits = { connections = 100, connections_per_peer = 101 }", "at most `connections`"),
        ("limits = { keep_alive_seconds = 4 }", "is not between 5 and 3600"),
        ("limits = { in_progress = { token = 0 } }", "limits.in_progress.token"),
    ] {
        let found = with(lines).unwrap_err();
        assert!(found.contains(error), "{lines}: {found}");
    }
}

#[test]
fn catalogue_token_is_stored_separately() {
    let dir = config_dir();
    write(&dir.path().join("secrets/catalogue-token"), " s3cret.token==\n", 0o600);
    for (line, name) in [
        ("catalogue_token_file = \"secrets/catalogue-token\"", "none"),
        ("catalogue_token_env = \"CATALOGUE\"", "CATALOGUE"),
    ] {
        let text = GOOD.replace("id = \"files\"", &format!("id = \"files\"\n{line}"));
        let config = load(&dir, &text, &|variable| (variable == name).then(|| "s3cret.token==".to_owned())).unwrap();
        let tokens =
            config.catalogue_tokens.iter().map(|(id, token)| (id.as_str(), token.expose())).collect::<Vec<_>>();
        assert_eq!(tokens, [("files", "s3cret.token==")]);
        assert!(!format!("{config:?}").contains("s3cret"));
        assert!(
            !serde_json::to_string(&config.objects).unwrap().contains("s3cret"),
            "the token is part of the stored objects"
        );
    }
}

#[test]
fn all_errors_are_reported_at_once() {
    let dir = config_dir();
    let text = GOOD
        .replace("https://sts", "http://sts")
        .replace("sqlite:", "mysql:")
        .replace("secrets/reader", "secrets/none")
        .replace("\"files:read\", effect", "\"files read\", efect")
        .replace("[\"reader\"]", "[\"writer\", \"scribe\"]");
    insta::assert_snapshot!(load(&dir, &text, &|_| None).unwrap_err(), @r#"
    errand.toml:1:10: issuer: `http://sts.example.com`: https is required; http is allowed for loopback addresses only (write the URL at which clients reach Errand: https, or http on a loopback address)
    errand.toml:3:13: store.url: must be a URL that begins with `postgres:`, `postgresql:` or `sqlite:` (for example, `postgres://errand@db.example.com/errand` or `sqlite:./errand.db`)
    errand.toml:16:19: agents[0].may_delegate_to of `planner`: agent `writer` does not exist (name other `[[agents]]`, and in `access` what `[[resources]]` declares)
    errand.toml:16:19: agents[0].may_delegate_to of `planner`: agent `scribe` does not exist (name other `[[agents]]`, and in `access` what `[[resources]]` declares)
    errand.toml:21:66: agents[1].authentication.secret_file of `reader`: can't read the named file: No such file or directory (os error 2) (name an existing file that Errand may read; relative paths start at the directory of this file)
    errand.toml:27:10: resources[0].tools[0].effect of `files`: is missing (for example, `effect = "read"`)
    errand.toml:27:40: resources[0].tools[0].scope of `files`: `files read`: not a scope list: 1 to 64 scope tokens, one space between them (RFC 6749 section 3.3) (write one scope, such as `files:read`)
    errand.toml:27:54: resources[0].tools[0].efect of `files`: unknown key (did you mean `effect`?)
    "#);
}

#[test]
fn environment_overrides_file() {
    let dir = config_dir();
    let text = GOOD.replace("secret_file = \"secrets/reader\"", "secret_env = \"READER\"");
    let set = |name: &str| match name {
        "ERRAND_STORE_URL" => Some("postgres://errand:s3cret@db/errand".to_owned()),
        "ERRAND_ENCRYPTION_KEY" => {
            Some(crate::domain::encode_base64url(&std::array::from_fn::<u8, 32, _>(|n| n.to_le_bytes()[0])))
        }
        "READER" => variables("ERRAND_SECRET_FILES"),
        _ => None,
    };
    let config = load(&dir, &text, &set).unwrap();
    assert_eq!(config.store.url.expose(), "postgres://errand:s3cret@db/errand");
    assert_eq!(config.keys.encryption_key.expose()[31], 31);
    assert_eq!(config.secrets[0].1.expose(), set("READER").unwrap());
    assert!(!format!("{config:?}").contains("s3cret"));

    let set = |name: &str| match name {
        "ERRAND_STORE_URL" | "ERRAND_ENCRYPTION_KEY" => Some("hunter2".to_owned()),
        "READER" => Some(String::new()),
        _ => None,
    };
    insta::assert_snapshot!(load(&dir, &text, &set).unwrap_err(), @r#"
    errand.toml:21:65: agents[1].authentication.secret_env of `reader`: the environment variable `READER` is not set (set the variable; generate one with `openssl rand -hex 32`)
    environment: ERRAND_STORE_URL: must be a URL that begins with `postgres:`, `postgresql:` or `sqlite:` (for example, `postgres://errand@db.example.com/errand` or `sqlite:./errand.db`)
    environment: ERRAND_ENCRYPTION_KEY: the key is not base64 (generate one with `openssl rand -base64 32`)
    "#);
}

#[test]
fn mismatched_tls_files_are_rejected() {
    let dir = config_dir();
    let pair = || {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate =
            rcgen::CertificateParams::new(["sts.example.com".to_owned()]).unwrap().self_signed(&key).unwrap();
        (certificate.pem(), key.serialize_pem())
    };
    let ((certificate, key), (_, other)) = (pair(), pair());
    for (name, text, mode) in [
        ("chain.pem", &certificate, 0o644),
        ("key.pem", &key, 0o600),
        ("other.pem", &other, 0o600),
        ("open.pem", &key, 0o644),
    ] {
        write(&dir.path().join(name), text, mode);
    }
    let with = |chain: &str, key: &str| {
        let text = format!("{GOOD}\n[tls]\ncertificate_file = \"{chain}\"\nkey_file = \"{key}\"\n");
        load(&dir, &text, &|_| None)
    };
    let tls = with("chain.pem", "key.pem").unwrap().tls.unwrap();
    assert_eq!(tls.key_file, dir.path().join("key.pem"));
    for (chain, key, error) in [
        (
            "chain.pem",
            "other.pem",
            "errand.toml:31:12: tls.key_file: does not match the certificate (name the private key that belongs to the certificate)",
        ),
        (
            "chain.pem",
            "open.pem",
            "errand.toml:31:12: tls.key_file: open.pem has mode 0644: users other than its owner can read it (run `chmod 600 open.pem`, and treat its content as leaked)",
        ),
        (
            "key.pem",
            "key.pem",
            "errand.toml:30:20: tls.certificate_file: contains no PEM certificate (name a file with the server's certificate first, followed by the certificates of its issuers)",
        ),
        (
            "chain.pem",
            "chain.pem",
            "errand.toml:31:12: tls.key_file: chain.pem has mode 0644: users other than its owner can read it (run `chmod 600 chain.pem`, and treat its content as leaked)\nerrand.toml:31:12: tls.key_file: contains no PEM private key (name a file with the private key of the certificate, preferably in PKCS #8)",
        ),
        (
            "none.pem",
            "key.pem",
            "errand.toml:30:20: tls.certificate_file: can't read none.pem: No such file or directory (os error 2) (name an existing file that Errand may read; relative paths start at the directory of this file)",
        ),
    ] {
        assert_eq!(with(chain, key).unwrap_err(), error, "\n--- {chain} {key}");
    }
}

#[test]
fn missing_file_is_reported() {
    let error = Config::load(Path::new("no/such/errand.toml"), &|_| None).unwrap_err().to_string();
    assert_eq!(
        error,
        "no/such/errand.toml: can't read the file: No such file or directory (os error 2) (name an existing configuration file; errand.example.toml is a template)"
    );
}

const EXAMPLE: &str = include_str!("../../errand.example.toml");

#[test]
fn example_is_valid_and_states_defaults() {
    let dir = config_dir();
    let config = load(&dir, EXAMPLE, &variables).unwrap();
    let is_default =
        |line: &str| line.strip_prefix('#').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_lowercase()));
    let explicit = EXAMPLE.lines().map(|line| if is_default(line) { line.trim_start_matches('#') } else { line });
    let explicit = explicit.collect::<Vec<_>>().join("\n");
    assert!(explicit.matches("lifetime = 300").count() == 2, "the defaults are uncommented");
    assert_eq!(format!("{config:?}"), format!("{:?}", load(&dir, &explicit, &variables).unwrap()));
    insta::assert_snapshot!(summarize(&config), @r#"
    Errand at https://sts.example.com
      trust domain    example.com
      listener        127.0.0.1:8080 (plain HTTP, for a proxy that terminates TLS)
      proxies         127.0.0.1/32 report source addresses in X-Forwarded-For
      health, metrics 127.0.0.1:9090
      store           postgres://errand:***@db.example.com/errand (10 connections, 4 more for lists of at most 5 s)
      signing keys    ES256; rotated every 30 d, published 15 min ahead, kept 1 h after
      tokens          5 min; API tokens 15 min; at most 4 agents in the chain; leeway 30 s; assertions 5 min
      tasks           1 h, at most 1 d
      four eyes       not in effect (operators that this file declares: 1)
      audit           introspections: changes; evaluations: changes
      log             json, info
      traces          not exported
      connections     at most 10000, 1000 per peer; kept alive 75 s, headers within 5 s
      unread          at most 128 MiB of responses; 16 KiB must be read within 30 s
      incomplete      at most 64 MiB of requests
      refusals        at most 200/s to one source address
      in progress     at most 512 token requests, 512 introspections, 512 evaluations, 128 revocations, 128 of self-service, 128 revocations by admins, 64 of administration, 256 documents
      each caller     exchange 100/s, burst 500, 64 in progress; introspection 5000/s, burst 10000, 256 in progress; evaluation 5000/s, burst 10000, 256 in progress; tasks 100/s, burst 500, 64 in progress; requester 20/s, burst 100, 16 in progress; admin 200/s, burst 1000, 64 in progress; feed 100/s, burst 500, 200 in progress
      quotas          10000 open tasks of an agent, 1000 of a requester, 1000 live tokens of a task
      retention       records of tokens 90 d, tasks 90 d, idempotency keys 1 d, one-time ids 0 s after their end
      replicas        named after the host; lease 2000 ms, heartbeat every 500 ms
      requests        timeout 10 s, at most 1024 queued writes, 2 lists per client at a time
      memory          at most 32768 verified tokens and 128 MiB
      status lists    referenced by task tokens; TTL 10 s

    issuer https://login.example.com
      keys            discovery; RS256
      accepts         access tokens for https://sts.example.com
      scope           the scope of the user token limits grants
      entitlement     users whose `groups` contains `files-readers`: files:read at files
      entitlement     users whose `groups` contains `files-editors`: files:read, files:write, tool delete_file with path {"prefix":"/drafts/"} at files

    agent planner
      authentication  private_key_jwt, 1 key, ES256, EdDSA, RS256, PS256
      known as        planner-web, planner-mobile at https://login.example.com
      access          files:read, tool write_file with path {"prefix":"/reports/"}, text {"any":true} at files
      delegates to    reader: files:read, tool write_file with path {"prefix":"/reports/q3/"}, text {"any":true} at files, no further delegation

    agent reader
      authentication  client_secret_basic, secret from file or environment
      known as        no client of an issuer; acts on delegation or on a grant only
      access          files:read at files

    resource files at https://files.example.com/mcp
      authentication  client_secret_basic, secret from file or environment
      tools           files:delete: delete_file (DESTRUCTIVE)
      tools           files:read: read_file (read)
      tools           files:write: write_file (write)
      discovery       files:list: list tools and resources
      catalogue       compared every 3600 s

    admin ops
      role            operator: changes the registry, revokes, rotates keys, reads everything
      authentication  private_key_jwt, 1 key, ES256, EdDSA, RS256, PS256

    admin auditor
      role            auditor: reads everything, changes nothing
      authentication  client_secret_basic, secret from file or environment

    WARNINGS: settings that weaken security or look unintended
      ! store: the connection does not require TLS; add `?sslmode=verify-full` to the URL
    "#);
}

#[test]
fn summary_says_whether_acts_need_two_operators() {
    let dir = config_dir();
    let admin = |id: &str, role: &str| {
        format!(
            "\n[[admins]]\nid = \"{id}\"\nrole = \"{role}\"\nauthentication = {{ method = \"client_secret_basic\" }}\n"
        )
    };
    let (boss, watch) = (admin("boss", "operator"), admin("watch", "auditor"));
    for (setting, more, rule, want) in [
        ("", "", FourEyes::WithTwoOperators, "not in effect (operators that this file declares: 1)"),
        ("", &*watch, FourEyes::WithTwoOperators, "not in effect (operators that this file declares: 1)"),
        ("", &*boss, FourEyes::WithTwoOperators, "in effect (operators that this file declares: 2)"),
        (
            "required = true",
            "",
            FourEyes::Always,
            "required, and impossible over REST (operators that this file declares: 1)",
        ),
        ("required = true", &*boss, FourEyes::Always, "required (operators that this file declares: 2)"),
        ("required = false", &*boss, FourEyes::Never, "not required"),
    ] {
        let text = EXAMPLE.replace("# required = true", setting) + more;
        let config = load(&dir, &text, &variables).unwrap();
        assert_eq!(config.four_eyes, rule, "{setting}");
        let text = summarize(&config);
        assert!(text.contains(&format!("four eyes       {want}\n")), "{setting} {more}: {text}");
    }
}

#[test]
fn example_has_every_key() {
    let dir = config_dir();
    // Together the two texts reach every branch of the parser.
    let other = format!("{}\n[tls]\n", GOOD.replace("\"discovery\"", "{}"));
    let requested = [EXAMPLE, &other].into_iter().flat_map(|text| {
        let document = Document::new("errand.example.toml", dir.path(), text, &variables);
        parse_document(&document);
        document.requested_keys()
    });
    // The comments of `[agents.authentication]` apply to the other clients too.
    let normalize = |key: String| {
        key.replace("resources.authentication", "agents.authentication")
            .replace("admins.authentication", "agents.authentication")
    };
    let requested = requested.map(normalize).collect::<BTreeSet<_>>();
    let documented = example_keys().into_iter().map(normalize).collect::<BTreeSet<_>>();
    assert!(requested.len() > 80, "{}", requested.len());
    let missing = requested.difference(&documented).collect::<Vec<_>>();
    assert!(missing.is_empty(), "errand.example.toml does not document {missing:?}");
}

/// Returns the keys of the example, including those in comments.
fn example_keys() -> BTreeSet<String> {
    fn collect_keys(path: &str, value: &toml::Value, keys: &mut BTreeSet<String>) {
        keys.insert(path.to_owned());
        match value {
            toml::Value::Table(table) => {
                for (key, value) in table {
                    collect_keys(&format!("{path}.{key}"), value, keys);
                }
            }
            toml::Value::Array(items) => items.iter().for_each(|item| collect_keys(path, item, keys)),
            _ => {}
        }
    }
    let (mut keys, mut header) = (BTreeSet::new(), String::new());
    for line in EXAMPLE.lines() {
        let line = line.trim_start_matches('#').trim();
        if line.starts_with('[') {
            header = format!("{}.", line.trim_matches(['[', ']']));
            keys.insert(line.trim_matches(['[', ']']).to_owned());
        } else if let Ok(table) = line.parse::<toml::Table>() {
            table.iter().for_each(|(key, value)| collect_keys(&format!("{header}{key}"), value, &mut keys));
        }
    }
    keys
}

/// The recipes of the guide are entries of a configuration file as they are.
#[test]
fn recipes_for_identity_providers_are_valid() {
    let dir = config_dir();
    let guide = include_str!("../../docs/guides/identity-providers.md");
    let recipes = guide.split("```toml\n").skip(1).filter_map(|block| block.split("```").next());
    let mut count = 0;
    for recipe in recipes {
        // Beside another issuer, subjects need a prefix.
        let recipe = recipe
            .replacen("[[issuers]]\n", "[[issuers]]\nsubject_prefix = \"recipe:\"\n", 1)
            .replace("https://login.example.com\"", "https://login.example.org\"");
        let has_rules = ["algorithms", "token_types"].map(|key| recipe.contains(key));
        let more = if has_rules == [true; 2] {
            ""
        } else {
            "algorithms = [\"RS256\"]\ntoken_types = [\"access_token\"]\naudiences = [\"x\"]\n"
        };
        let config = load(&dir, &format!("{GOOD}\n{recipe}{more}"), &|_| None);
        let config = config.unwrap_or_else(|errors| panic!("{recipe}: {errors}"));
        let unexpected = warnings(&config).into_iter().filter(|warning| warning.contains("looks for a claim named"));
        assert_eq!(unexpected.collect::<Vec<_>>(), Vec::<String>::new());
        count += 1;
    }
    for provider in [
        "Entra ID, v1",
        "Entra ID, v2",
        "Okta",
        "Auth0",
        "Keycloak",
        "Google",
        "Cognito",
        "Zitadel",
        "AD FS",
        "XSUAA",
        "IdentityServer",
        "Clerk",
        "Dex",
    ] {
        let is_heading = |line: &str| line.starts_with("### ") && line.contains(provider);
        assert!(guide.lines().any(is_heading), "{provider}");
    }
    assert!(count >= 13, "{count}");
}

#[test]
fn risky_settings_are_warned_about() {
    let dir = config_dir();
    let text = GOOD
        .replace(
            "trust_domain =",
            "listen = { address = \"0.0.0.0:80\", trusted_proxies = [\"0.0.0.0/0\"] }\noperations_listen = \"0.0.0.0:80\"\ntrust_domain =",
        )
        .replace("sqlite:errand.db", "postgres://errand@db/errand")
        .replace("planner.jwks.json\"", "planner.jwks.json\", assertion_audience = \"token_endpoint_too\"");
    let more = r#"keys = "discovery"
other_audiences = "accept"
subject_scopes = "ignore"
allowed_networks = ["10.0.0.0/8"]
entitlements = [{ to = "everyone", resource = "files", scopes = ["files:read"] }, { to = "everyone", scopes = ["files:raed"] }]"#;
    let text = text.replace("keys = \"discovery\"", more);
    let text = text.replace("id = \"files\"", "id = \"files\"\nallowed_networks = [\"10.1.0.0/16\"]");
    let config = load(&dir, &text, &|_| None).unwrap();
    let warnings = warnings(&config);
    assert!(warnings.iter().all(|warning| summarize(&config).contains(warning)));
    insta::assert_snapshot!(warnings.join("\n"), @r#"
    listen: 0.0.0.0:80 serves plain HTTP; only a proxy that terminates TLS may reach it
    operations_listen: is the same as `listen`; clients can read health and metrics there
    listen: trusted_proxies: 0.0.0.0/0 trusts every client to report its own source address
    store: the connection does not require TLS; add `?sslmode=verify-full` to the URL
    https://login.example.com: subject_scopes = "ignore": the scope of user tokens has no effect; entitlements and the agents' ceilings decide
    https://login.example.com: other_audiences = "accept": a token that is also valid for another service can be exchanged here
    https://login.example.com: allowed_networks: its keys may be fetched from 10.0.0.0/8
    https://login.example.com: entitlements: every user is entitled to files:read at files
    https://login.example.com: entitlements: every user is entitled to files:raed at every resource
    https://login.example.com: entitlements: no matching resource in this file has files:raed
    planner: assertion_audience = "token_endpoint_too": an assertion that another server obtained from it could be used here
    planner: no `known_as` and no agent in this file delegates to it: no user token can name it, so that it opens a task only on a recorded grant
    files: allowed_networks: its tool catalogue may be fetched from 10.1.0.0/16
    "#);
}

#[test]
fn dangling_edges_are_warned_about() {
    let dir = config_dir();
    let text = GOOD
        .replace(
            "may_delegate_to = [\"reader\"]",
            "may_delegate_to = [{ agent = \"reader\", depth = 3, access = [{ resource = \"files\", scopes = [\"files:read\"] }] }]",
        );
    let gateway = "[[agents]]\nid = \"gateway\"\nkind = \"broker\"\nauthentication = { method = \"client_secret_basic\" }\n\n[[resources]]";
    let config = load(&dir, &text.replace("[[resources]]", gateway), &|_| None).unwrap();
    insta::assert_snapshot!(warnings(&config).join("\n"), @r#"
    planner: may_delegate_to reader: reader does not have access to files, so access to it can't be delegated
    planner: no `known_as` and no agent in this file delegates to it: no user token can name it, so that it opens a task only on a recorded grant
    gateway: is a broker, but no agent in this file may delegate to it
    "#);
    let summary = summarize(&config);
    assert!(
        summary.contains("delegates to    reader: files:read at files, further delegation to at most 2 agents\n"),
        "{summary}"
    );
    assert!(summary.contains("\nbroker gateway\n"), "{summary}");
}

/// The REST API and the file use the same form.
#[test]
fn file_accepts_api_object_form() {
    let dir = config_dir();
    let objects = load(&dir, EXAMPLE, &variables).unwrap().objects;
    let server = GOOD.split_once("keys.").unwrap().0;
    let mut table = server.parse::<toml::Table>().unwrap();
    for object in &objects {
        let body = serde_json::to_value(object).unwrap()["body"].take();
        let list = table.entry(format!("{}s", object.kind())).or_insert(toml::Value::Array(Vec::new()));
        list.as_array_mut().unwrap().push(toml::Value::try_from(body).unwrap());
    }
    let set = |name: &str| (name == "ERRAND_ENCRYPTION_KEY").then(|| KEY.to_owned());
    assert_eq!(load(&dir, &toml::to_string(&table).unwrap(), &set).unwrap().objects, objects);
}

struct FixedEntropy;

impl Entropy for FixedEntropy {
    fn random_bytes32(&self) -> Result<[u8; 32], Outage> {
        static COUNTER: std::sync::atomic::AtomicU8 = std::sync::atomic::AtomicU8::new(1);
        let call = COUNTER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Ok(std::array::from_fn(|n| call.wrapping_mul(31).wrapping_add(n.to_le_bytes()[0])))
    }

    fn new_uuid(&self) -> uuid::Uuid {
        uuid::Uuid::nil()
    }
}

#[test]
fn dev_server_needs_no_file() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config::dev(dir.path(), DEV_LISTEN, &FixedEntropy).unwrap();
    assert_eq!(config.issuer.as_str(), "http://127.0.0.1:8080");
    assert_eq!(config.secrets.len(), 5);
    assert!(config.store.url.expose().ends_with("/errand-dev.db"));
    assert_eq!(warnings(&config), ["files: allowed_networks: its tool catalogue may be fetched from 127.0.0.0/8"]);
    let entries = config.objects.iter().map(|object| Entry { object: object.clone(), source: Source::File }).collect();
    let registry = Registry::build(1, entries, std::collections::BTreeMap::new()).unwrap();
    #[cfg(unix)]
    for entry in fs::read_dir(dev_folder(dir.path())).unwrap() {
        use std::os::unix::fs::PermissionsExt;
        let entry = entry.unwrap();
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{:?}", entry.path());
    }

    let user = dev_idp::UserTokenClaims { sub: "alice", scope: Some("files:read"), client: "planner" };
    let now = Timestamp::from_unix(1_795_200_000);
    let token = dev_idp::issue_user_token(&dev_folder(dir.path()), user, now, FixedEntropy.new_uuid()).unwrap();
    let issuer = registry.issuer("http://127.0.0.1:8080/dev-idp").unwrap();
    let claims = UnverifiedJws::parse(&token).unwrap().into_payload();
    let rules = UserTokenRules {
        issuer,
        kind: SubjectTokenType::AccessToken,
        agent_client_ids: &[],
        foreign_prefixes: Vec::new(),
        leeway: config.tokens.leeway,
    };
    let user = check_user_claims(claims, &rules, now).unwrap();
    assert_eq!(user.client.as_deref(), Some("planner"));

    let restarted = Config::dev(dir.path(), "127.0.0.1:8081".parse().unwrap(), &FixedEntropy).unwrap();
    assert_eq!(restarted.issuer.as_str(), "http://127.0.0.1:8081");
    assert_eq!(config.keys.encryption_key.expose(), restarted.keys.encryption_key.expose());
    let secrets = |config: &Config| config.secrets.iter().map(|(_, s)| s.expose().to_owned()).collect::<Vec<_>>();
    assert_eq!(secrets(&config), secrets(&restarted));

    let error = Config::dev(dir.path(), "0.0.0.0:8080".parse().unwrap(), &FixedEntropy).unwrap_err().to_string();
    assert_eq!(
        error,
        "--dev: listen: `0.0.0.0:8080` is not a loopback address with a port (--dev serves this machine only; write a configuration file to serve others)"
    );
}
