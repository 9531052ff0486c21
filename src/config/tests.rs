mod mistakes;

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

/// A folder with everything that the example and the cases below name.
fn config_dir() -> TempDir {
    let house = tempfile::tempdir().unwrap();
    let secret = |n: usize| format!("{n}{}\n", "123456789abcdef".repeat(5));
    fs::create_dir_all(house.path().join("secrets")).unwrap();
    fs::create_dir_all(house.path().join("clients")).unwrap();
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
        ("clients/twice.jwks.json", r#"{"keys":[],"keys":[]}"#.to_owned(), 0o644),
    ] {
        write(&house.path().join(name), &text, mode);
    }
    house
}

fn write(path: &Path, text: &str, mode: u32) {
    fs::write(path, text).unwrap();
    #[cfg(unix)]
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
}

fn variables(name: &str) -> Option<String> {
    (name == "ERRAND_SECRET_FILES").then(|| format!("f{}", "123456789abcdef".repeat(5)))
}

/// Loads a text as a file in the house; mistakes as text, without the house's own path.
fn load(house: &TempDir, text: &str, variables: &dyn Fn(&str) -> Option<String>) -> Result<Config, String> {
    let path = house.path().join("errand.toml");
    fs::write(&path, text).unwrap();
    let house = house.path().display().to_string();
    Config::load(&path, variables).map_err(|mistakes| mistakes.to_string().replace(&format!("{house}/"), ""))
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
    let house = config_dir();
    let config = load(&house, GOOD, &|_| None).unwrap();
    assert_eq!(config.listen, DEV_LISTEN);
    assert_eq!(config.tokens, TokenLimits::default());
    assert_eq!(config.store.url.expose(), format!("sqlite://{}/errand.db", house.path().display()));
    assert_eq!(config.objects.len(), 4);
    let secrets = config.secrets.iter().map(|(id, secret)| (id.as_str(), secret.expose())).collect::<Vec<_>>();
    assert_eq!(secrets, [("reader", format!("1{}", "123456789abcdef".repeat(5)).as_str())]);
    assert!(!format!("{config:?}").contains("123456789abcdef"));
}

#[test]
fn catalogue_token_is_stored_separately() {
    let house = config_dir();
    write(&house.path().join("secrets/shop"), " s3cret.token==\n", 0o600);
    for (line, name) in
        [("catalogue_token_file = \"secrets/shop\"", "none"), ("catalogue_token_env = \"SHOP\"", "SHOP")]
    {
        let text = GOOD.replace("id = \"files\"", &format!("id = \"files\"\n{line}"));
        let config = load(&house, &text, &|asked| (asked == name).then(|| "s3cret.token==".to_owned())).unwrap();
        let tokens =
            config.catalogue_tokens.iter().map(|(id, token)| (id.as_str(), token.expose())).collect::<Vec<_>>();
        assert_eq!(tokens, [("files", "s3cret.token==")]);
        assert!(!format!("{config:?}").contains("s3cret"));
        assert!(!serde_json::to_string(&config.objects).unwrap().contains("s3cret"), "no part of what is stored");
    }
}

#[test]
fn all_errors_are_reported_at_once() {
    let house = config_dir();
    let text = GOOD
        .replace("https://sts", "http://sts")
        .replace("sqlite:", "mysql:")
        .replace("secrets/reader", "secrets/none")
        .replace("\"files:read\", effect", "\"files read\", efect")
        .replace("[\"reader\"]", "[\"writer\", \"scribe\"]");
    insta::assert_snapshot!(load(&house, &text, &|_| None).unwrap_err(), @r#"
    errand.toml:1:10: issuer: `http://sts.example.com`: https is needed (http is for loopback addresses only) (write the URL that clients reach Errand at; https, unless it is on this machine)
    errand.toml:3:13: store.url: not a URL that begins with `postgres:`, `postgresql:` or `sqlite:` (such as `postgres://errand@db.example.com/errand` or `sqlite:./errand.db`)
    errand.toml:16:19: agents[0].may_delegate_to of `planner`: agent `writer` does not exist (name other `[[agents]]`)
    errand.toml:16:19: agents[0].may_delegate_to of `planner`: agent `scribe` does not exist (name other `[[agents]]`)
    errand.toml:21:66: agents[1].authentication.secret_file of `reader`: cannot read the file that is named here: No such file or directory (os error 2) (name a file that exists and that Errand may read; relative paths start at this file's folder)
    errand.toml:27:10: resources[0].tools[0].effect of `files`: is missing (such as `effect = "read"`)
    errand.toml:27:40: resources[0].tools[0].scope of `files`: `files read`: not a scope list: 1 to 64 scope tokens, one space between them (RFC 6749 section 3.3) (write one scope, such as `files:read`)
    errand.toml:27:54: resources[0].tools[0].efect of `files`: is not known here (`effect` is)
    "#);
}

#[test]
fn environment_overrides_file() {
    let house = config_dir();
    let text = GOOD.replace("secret_file = \"secrets/reader\"", "secret_env = \"READER\"");
    let set = |name: &str| match name {
        "ERRAND_STORE_URL" => Some("postgres://errand:s3cret@db/errand".to_owned()),
        "ERRAND_ENCRYPTION_KEY" => {
            Some(crate::domain::encode_base64url(&std::array::from_fn::<u8, 32, _>(|n| n.to_le_bytes()[0])))
        }
        "READER" => variables("ERRAND_SECRET_FILES"),
        _ => None,
    };
    let config = load(&house, &text, &set).unwrap();
    assert_eq!(config.store.url.expose(), "postgres://errand:s3cret@db/errand");
    assert_eq!(config.keys.encryption_key.expose()[31], 31);
    assert_eq!(config.secrets[0].1.expose(), set("READER").unwrap());
    assert!(!format!("{config:?}").contains("s3cret"));

    let set = |name: &str| match name {
        "ERRAND_STORE_URL" | "ERRAND_ENCRYPTION_KEY" => Some("hunter2".to_owned()),
        "READER" => Some(String::new()),
        _ => None,
    };
    insta::assert_snapshot!(load(&house, &text, &set).unwrap_err(), @r#"
    errand.toml:21:65: agents[1].authentication.secret_env of `reader`: the variable `READER` is not set (set it; make one with `openssl rand -hex 32`)
    environment: ERRAND_STORE_URL: not a URL that begins with `postgres:`, `postgresql:` or `sqlite:` (such as `postgres://errand@db.example.com/errand` or `sqlite:./errand.db`)
    environment: ERRAND_ENCRYPTION_KEY: the key is not base64 (make one with `openssl rand -base64 32`)
    "#);
}

#[test]
fn mismatched_tls_files_are_rejected() {
    let house = config_dir();
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
        write(&house.path().join(name), text, mode);
    }
    let with = |chain: &str, key: &str| {
        let text = format!("{GOOD}\n[tls]\ncertificate_file = \"{chain}\"\nkey_file = \"{key}\"\n");
        load(&house, &text, &|_| None)
    };
    let tls = with("chain.pem", "key.pem").unwrap().tls.unwrap();
    assert_eq!(tls.key_file, house.path().join("key.pem"));
    for (chain, key, want) in [
        (
            "chain.pem",
            "other.pem",
            "errand.toml:31:12: tls.key_file: is not the key of the certificate (put the key and the certificate together that were made together)",
        ),
        (
            "chain.pem",
            "open.pem",
            "errand.toml:31:12: tls.key_file: open.pem has mode 0644: others than its owner can read it (chmod 600 open.pem, and take what is in it for leaked)",
        ),
        (
            "key.pem",
            "key.pem",
            "errand.toml:30:20: tls.certificate_file: holds no certificate in PEM (name a file with the certificate first, then what it was signed by)",
        ),
        (
            "chain.pem",
            "chain.pem",
            "errand.toml:31:12: tls.key_file: chain.pem has mode 0644: others than its owner can read it (chmod 600 chain.pem, and take what is in it for leaked)\nerrand.toml:31:12: tls.key_file: holds no private key in PEM (name a file with the key of the certificate, PKCS #8 for choice)",
        ),
        (
            "none.pem",
            "key.pem",
            "errand.toml:30:20: tls.certificate_file: cannot read none.pem: No such file or directory (os error 2) (name a file that exists and that Errand may read; relative paths start at this file's folder)",
        ),
    ] {
        assert_eq!(with(chain, key).unwrap_err(), want, "\n--- {chain} {key}");
    }
}

#[test]
fn missing_file_is_reported() {
    let got = Config::load(Path::new("no/such/errand.toml"), &|_| None).unwrap_err().to_string();
    assert_eq!(
        got,
        "no/such/errand.toml: cannot be read: No such file or directory (os error 2) (name the configuration file; errand.example.toml is one to start from)"
    );
}

const EXAMPLE: &str = include_str!("../../errand.example.toml");

#[test]
fn example_is_valid_and_states_defaults() {
    let house = config_dir();
    let as_it_is = load(&house, EXAMPLE, &variables).unwrap();
    let is_default =
        |line: &str| line.strip_prefix('#').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_lowercase()));
    let said = EXAMPLE.lines().map(|line| if is_default(line) { line.trim_start_matches('#') } else { line });
    let said = said.collect::<Vec<_>>().join("\n");
    assert!(said.matches("lifetime = 300").count() == 2, "the defaults are there");
    assert_eq!(format!("{as_it_is:?}"), format!("{:?}", load(&house, &said, &variables).unwrap()));
    insta::assert_snapshot!(summarize(&as_it_is), @r#"
    Errand at https://sts.example.com
      trust domain    example.com
      listens         127.0.0.1:8080 (plain HTTP, for a proxy that ends TLS)
      health, metrics 127.0.0.1:9090
      store           postgres://errand:***@db.example.com/errand (10 connections)
      keys            ES256; a new one every 30 d, published 15 min ahead, kept 1 h after
      tokens          5 min; API tokens 15 min; chain of 4 agents; leeway 30 s; assertions 5 min
      tasks           1 h, at most 1 d
      audit           introspections: changes
      log             json, info
      replicas        named as the machine; answers from memory for 2000 ms, renewed every 500 ms
      requests        10 s, 1024 at once
      memory          32768 verified tokens, 128 MiB of them at most
      status lists    every token has a place; read again every 10 s

    issuer https://login.example.com
      keys            by discovery; RS256
      takes           access tokens for https://sts.example.com
      scope           what the user's token has in scope is the ceiling
      entitles        `groups` has `files-readers`: files:read at files
      entitles        `groups` has `files-editors`: files:read, files:write, tool delete_file with path {"prefix":"/drafts/"} at files

    agent planner
      proves itself   private_key_jwt, 1 key, ES256, EdDSA, RS256, PS256
      known as        planner-web, planner-mobile at https://login.example.com
      may have        files:read, tool write_file with path {"prefix":"/reports/"}, text {"any":true} at files
      may hand on to  reader: files:read, tool write_file with path {"prefix":"/reports/q3/"}, text {"any":true} at files, and no further

    agent reader
      proves itself   client_secret_basic, secret by file or environment
      may have        files:read at files

    resource files at https://files.example.com/mcp
      proves itself   client_secret_basic, secret by file or environment
      offers          files:delete: delete_file (DESTROYS)
      offers          files:read: read_file (reads)
      offers          files:write: write_file (writes)
      offers          files:list: to list its tools and resources
      is asked        for its tools every 3600 s

    admin ops
      may             operator: changes the registry, revokes, rotates keys, reads everything
      proves itself   private_key_jwt, 1 key, ES256, EdDSA, RS256, PS256

    admin auditor
      may             auditor: reads everything, changes nothing
      proves itself   client_secret_basic, secret by file or environment

    NOTICE: chosen in this file, and worth a second look
      ! the store is asked without TLS being required: add `?sslmode=verify-full` to its URL
    "#);
}

#[test]
fn example_has_every_key() {
    let house = config_dir();
    // Between them they go through every branch.
    let other = format!("{}\n[tls]\n", GOOD.replace("\"discovery\"", "{}"));
    let asked = [EXAMPLE, &other].into_iter().flat_map(|text| {
        let document = Document::new("errand.example.toml", house.path(), text, &variables);
        parse_document(&document);
        document.requested_keys()
    });
    // What stands under `[agents.authentication]` holds for the other clients too.
    let alike = |key: String| {
        key.replace("resources.authentication", "agents.authentication")
            .replace("admins.authentication", "agents.authentication")
    };
    let asked = asked.map(alike).collect::<BTreeSet<_>>();
    let said = example_keys().into_iter().map(alike).collect::<BTreeSet<_>>();
    assert!(asked.len() > 80, "{}", asked.len());
    let missing = asked.difference(&said).collect::<Vec<_>>();
    assert!(missing.is_empty(), "errand.example.toml does not have {missing:?}");
}

/// The keys of the example, those in comments included.
fn example_keys() -> BTreeSet<String> {
    fn collect_keys(path: &str, value: &toml::Value, said: &mut BTreeSet<String>) {
        said.insert(path.to_owned());
        match value {
            toml::Value::Table(table) => {
                for (key, value) in table {
                    collect_keys(&format!("{path}.{key}"), value, said);
                }
            }
            toml::Value::Array(items) => items.iter().for_each(|item| collect_keys(path, item, said)),
            _ => {}
        }
    }
    let (mut said, mut header) = (BTreeSet::new(), String::new());
    for line in EXAMPLE.lines() {
        let line = line.trim_start_matches('#').trim();
        if line.starts_with('[') {
            header = format!("{}.", line.trim_matches(['[', ']']));
            said.insert(line.trim_matches(['[', ']']).to_owned());
        } else if let Ok(table) = line.parse::<toml::Table>() {
            table.iter().for_each(|(key, value)| collect_keys(&format!("{header}{key}"), value, &mut said));
        }
    }
    said
}

#[test]
fn risky_settings_are_warned_about() {
    let house = config_dir();
    let text = GOOD
        .replace("trust_domain =", "listen = \"0.0.0.0:80\"\ntrust_domain =")
        .replace("sqlite:errand.db", "postgres://errand@db/errand")
        .replace("planner.jwks.json\"", "planner.jwks.json\", assertion_audience = \"token_endpoint_too\"");
    let more = r#"keys = "discovery"
other_audiences = "accept"
subject_scopes = "ignore"
allowed_networks = ["10.0.0.0/8"]
entitlements = [{ to = "everyone", resource = "files", scopes = ["files:read", "files:raed"] }]"#;
    let text = text.replace("keys = \"discovery\"", more);
    let text = text.replace("id = \"files\"", "id = \"files\"\nallowed_networks = [\"10.1.0.0/16\"]");
    let config = load(&house, &text, &|_| None).unwrap();
    let notices = warnings(&config);
    assert!(notices.iter().all(|notice| summarize(&config).contains(notice)));
    insta::assert_snapshot!(notices.join("\n"), @r#"
    0.0.0.0:80 is plain HTTP: only a proxy that ends TLS may reach it
    health and metrics are where the clients are: `operations_listen` is not set
    the store is asked without TLS being required: add `?sslmode=verify-full` to its URL
    https://login.example.com: subject_scopes = "ignore": the scope of its users' tokens limits nothing; entitlement rules and the agents' ceilings decide
    https://login.example.com: other_audiences = "accept": a token that its user gave to somebody else can be exchanged here too
    https://login.example.com: allowed_networks: its keys may be fetched from 10.0.0.0/8
    https://login.example.com: every user of it is entitled to files:read, files:raed at files
    https://login.example.com: entitlements: files:raed is at no resource of this file
    planner: assertion_audience = "token_endpoint_too": an assertion that another server tricked it into making could be used here
    files: it may be asked for its tools at 10.1.0.0/16
    "#);
}

#[test]
fn dangling_edges_are_warned_about() {
    let house = config_dir();
    let text = GOOD
        .replace(
            "may_delegate_to = [\"reader\"]",
            "may_delegate_to = [{ agent = \"reader\", depth = 3, access = [{ resource = \"files\", scopes = [\"files:read\"] }] }]",
        );
    let gateway = "[[agents]]\nid = \"gateway\"\nkind = \"broker\"\nauthentication = { method = \"client_secret_basic\" }\n\n[[resources]]";
    let config = load(&house, &text.replace("[[resources]]", gateway), &|_| None).unwrap();
    insta::assert_snapshot!(warnings(&config).join("\n"), @r#"
    planner: may_delegate_to reader: reader has no access to files, so nothing of it can go there
    gateway: is a broker, and no agent of this file may delegate to it
    "#);
    let told = summarize(&config);
    assert!(told.contains("may hand on to  reader: files:read at files, and on to at most 2 more\n"), "{told}");
    assert!(told.contains("\nbroker gateway\n"), "{told}");
}

/// What goes over REST is what stands in the file.
#[test]
fn file_accepts_api_object_form() {
    let house = config_dir();
    let objects = load(&house, EXAMPLE, &variables).unwrap().objects;
    let server = GOOD.split_once("keys.").unwrap().0;
    let mut table = server.parse::<toml::Table>().unwrap();
    for object in &objects {
        let body = serde_json::to_value(object).unwrap()["body"].take();
        let list = table.entry(format!("{}s", object.kind())).or_insert(toml::Value::Array(Vec::new()));
        list.as_array_mut().unwrap().push(toml::Value::try_from(body).unwrap());
    }
    let set = |name: &str| (name == "ERRAND_ENCRYPTION_KEY").then(|| KEY.to_owned());
    assert_eq!(load(&house, &toml::to_string(&table).unwrap(), &set).unwrap().objects, objects);
}

struct FixedEntropy;

impl Entropy for FixedEntropy {
    fn random_bytes32(&self) -> Result<[u8; 32], Outage> {
        static THROWS: std::sync::atomic::AtomicU8 = std::sync::atomic::AtomicU8::new(1);
        let throw = THROWS.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Ok(std::array::from_fn(|n| throw.wrapping_mul(31).wrapping_add(n.to_le_bytes()[0])))
    }

    fn new_uuid(&self) -> uuid::Uuid {
        uuid::Uuid::nil()
    }
}

#[test]
fn dev_server_needs_no_file() {
    let house = tempfile::tempdir().unwrap();
    let config = Config::dev(house.path(), DEV_LISTEN, &FixedEntropy).unwrap();
    assert_eq!(config.issuer.as_str(), "http://127.0.0.1:8080");
    assert_eq!(config.secrets.len(), 5);
    assert!(config.store.url.expose().ends_with("/errand-dev.db"));
    assert_eq!(warnings(&config), Vec::<String>::new());
    let entries = config.objects.iter().map(|object| Entry { object: object.clone(), source: Source::File }).collect();
    let registry = Registry::build(1, entries, std::collections::BTreeMap::new()).unwrap();
    #[cfg(unix)]
    for entry in fs::read_dir(dev_folder(house.path())).unwrap() {
        use std::os::unix::fs::PermissionsExt;
        let entry = entry.unwrap();
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{:?}", entry.path());
    }

    let user = dev_idp::UserTokenClaims { sub: "alice", scope: Some("files:read"), client: "planner" };
    let now = Timestamp::from_unix(1_795_200_000);
    let token = dev_idp::issue_user_token(&dev_folder(house.path()), user, now, FixedEntropy.new_uuid()).unwrap();
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

    let again = Config::dev(house.path(), "127.0.0.1:8081".parse().unwrap(), &FixedEntropy).unwrap();
    assert_eq!(again.issuer.as_str(), "http://127.0.0.1:8081");
    assert_eq!(config.keys.encryption_key.expose(), again.keys.encryption_key.expose());
    let secrets = |config: &Config| config.secrets.iter().map(|(_, s)| s.expose().to_owned()).collect::<Vec<_>>();
    assert_eq!(secrets(&config), secrets(&again));

    let open = Config::dev(house.path(), "0.0.0.0:8080".parse().unwrap(), &FixedEntropy).unwrap_err().to_string();
    assert_eq!(
        open,
        "--dev: listen: `0.0.0.0:8080` is not a loopback address with a port (--dev is for this machine only: write a configuration file for others)"
    );
}
