//! Every configuration error with its exact text.

use super::{EXAMPLE, GOOD, config_dir, load, variables};

/// Checks the errors after one replacement in [`GOOD`]: old text, new text, all errors.
fn check(cases: &[(&str, &str, &str)]) {
    let dir = config_dir();
    for (old, new, expected) in cases {
        assert!(GOOD.contains(old), "{old}");
        let errors = load(&dir, &GOOD.replacen(old, new, 1), &|_| None).expect_err(new);
        assert_eq!(errors, *expected, "\n--- {new}");
    }
}

#[test]
fn syntax_error_has_its_position() {
    check(&[
        (
            "\"discovery\"",
            "\"discovery",
            r#"errand.toml:8:18: invalid basic string, expected `"` (fix the TOML syntax: https://toml.io)"#,
        ),
        (
            "keys = \"discovery\"",
            "issuer = \"https://login.example.com\"",
            "errand.toml:8:1: duplicate key (fix the TOML syntax: https://toml.io)",
        ),
    ]);
}

#[test]
fn unknown_keys_are_rejected() {
    check(&[
        (
            "trust_domain =",
            "lisen = \"127.0.0.1:1\"\ntrust_domain =",
            "errand.toml:2:1: lisen: unknown key (did you mean `listen`?)",
        ),
        (
            "store.url",
            "tokens.livetime = 5\nstore.url",
            "errand.toml:3:8: tokens.livetime: unknown key (did you mean `lifetime`?)",
        ),
        (
            "store.url",
            "keys.rotation.often = 5\nstore.url",
            "errand.toml:3:15: keys.rotation.often: unknown key (known keys: publish_ahead, keep_retired, every)",
        ),
        (
            "keys = \"discovery\"",
            "keys = \"discovery\"\nclaims = { user = \"sub\" }",
            "errand.toml:9:12: issuers[0].claims.user of `https://login.example.com`: unknown key (known keys: client, scope)",
        ),
        (
            "keys = \"discovery\"",
            "keys = { jwks_url = \"https://login.example.com/keys\" }",
            "errand.toml:8:8: issuers[0].keys of `https://login.example.com`: does not name a key source (write `\"discovery\"`, `{ jwks_uri = \"https://…\" }` or `{ jwks_file = \"….json\" }`)\nerrand.toml:8:10: issuers[0].keys.jwks_url of `https://login.example.com`: unknown key (did you mean `jwks_uri`?)",
        ),
        (
            "id = \"planner\"",
            "id = \"planner\"\nscopes = [\"files:read\"]",
            "errand.toml:15:1: agents[0].scopes of `planner`: unknown key (known keys: id, name, kind, authentication, known_as, access, may_delegate_to, max_token_lifetime, disabled)",
        ),
        (
            "effect = \"read\"",
            "effect = \"read\", approval = true",
            "errand.toml:27:71: resources[0].tools[0].approval of `files`: unknown key (known keys: name, scope, effect, risk, data_class)",
        ),
        (
            "scopes = [\"files:read\"]",
            "scopes = [\"files:read\"], path = \"/tmp\"",
            "errand.toml:17:58: agents[0].access[0].path of `planner`: unknown key (known keys: resource, scopes, tools)",
        ),
        (
            "jwks_file = \"clients/planner",
            "secret_env = \"X\", jwks_file = \"clients/planner",
            "errand.toml:15:48: agents[0].authentication.secret_env of `planner`: unknown key (known keys: method, jwks_file, jwks, algorithms, assertion_audience)",
        ),
    ]);
}

#[test]
fn wrong_kind_of_value_is_explained() {
    check(&[
        (
            "store.url",
            "tokens.lifetime = \"2m\"\nstore.url",
            "errand.toml:3:19: tokens.lifetime: `2m` is a string (write 120 without quotes: seconds; the maximum is 15 minutes)",
        ),
        (
            "store.url",
            "tokens.lifetime = \"soon\"\nstore.url",
            "errand.toml:3:19: tokens.lifetime: found a string (write a whole number, for example `lifetime = 300`: seconds; the maximum is 15 minutes)",
        ),
        (
            "store.url",
            "tokens.lifetime = 2.5\nstore.url",
            "errand.toml:3:19: tokens.lifetime: found a float (write a whole number, for example `lifetime = 300`: seconds; the maximum is 15 minutes)",
        ),
        (
            "store.url",
            "status_list.enabled = \"true\"\nstore.url",
            "errand.toml:3:23: status_list.enabled: found a string (write true or false without quotes, for example `enabled = true`)",
        ),
        (
            "[\"RS256\"]",
            "\"RS256\"",
            "errand.toml:10:14: issuers[0].algorithms of `https://login.example.com`: found a string (write an array in brackets, for example `algorithms = [\"RS256\"]`)",
        ),
        (
            "[[issuers]]",
            "[issuers]",
            "errand.toml:6:1: issuers: found a table (write an array of tables, for example `[[issuers]]`, then keys such as `issuer = \"https://login.example.com\"`)",
        ),
        (
            "keys = \"discovery\"",
            "keys = \"https://login.example.com/keys\"",
            "errand.toml:8:8: issuers[0].keys of `https://login.example.com`: the string does not name a key source (write the URL into a table: `keys = { jwks_uri = \"https://…\" }`)",
        ),
        (
            "keys = \"discovery\"",
            "keys = \"https://login.example.com/.well-known/openid-configuration\"",
            "errand.toml:8:8: issuers[0].keys of `https://login.example.com`: the string does not name a key source (write `keys = \"discovery\"`: the URL of the metadata follows from `issuer`)",
        ),
        (
            "keys = \"discovery\"",
            "keys = \"login.jwks.json\"",
            "errand.toml:8:8: issuers[0].keys of `https://login.example.com`: the string does not name a key source (write the file into a table: `keys = { jwks_file = \"….json\" }`)",
        ),
        (
            "keys = \"discovery\"",
            "keys = \"jwks_uri\"",
            "errand.toml:8:8: issuers[0].keys of `https://login.example.com`: the string does not name a key source (write `\"discovery\"`, `{ jwks_uri = \"https://…\" }` or `{ jwks_file = \"….json\" }`)",
        ),
        (
            "https://sts.example.com\"\ntrust",
            "https://sts.example.com/\"\ntrust",
            "errand.toml:1:10: issuer: ends in a slash, and clients compare the issuer as a string (RFC 8414 section 2) (write `https://sts.example.com`)",
        ),
    ]);
}

#[test]
fn single_keys_and_pem_files_are_explained() {
    let dir = config_dir();
    let public = r#"{"kty": "EC", "crv": "P-256", "x": "a", "y": "b"}"#;
    let private = r#"{"kty": "EC", "crv": "P-256", "x": "a", "y": "b", "d": "s3cret"}"#;
    for (content, reason) in [
        (public, "a single key (JWK), not a JWK set; wrap the key as `{\"keys\": [ … ]}` (RFC 7517 section 5)"),
        (private, "a single private or symmetric key (JWK), not a set of public keys; provide only its public part"),
        ("-----BEGIN PUBLIC KEY-----", "the file is PEM, not a JWK set"),
        ("\n-----BEGIN CERTIFICATE-----", "the file is PEM, not a JWK set"),
    ] {
        std::fs::write(dir.path().join("clients/planner.jwks.json"), content).unwrap();
        let errors = load(&dir, GOOD, &|_| None).unwrap_err();
        let expected = format!("errand.toml:15:60: agents[0].authentication.jwks_file of `planner`: {reason}");
        assert!(errors.starts_with(&expected) && !errors.contains("s3cret"), "{errors}");
    }
}

#[test]
fn entitlement_to_what_a_declared_resource_lacks_is_rejected() {
    let rule = |rule: &str| format!("keys = \"discovery\"\nentitlements = [{{ to = \"everyone\", {rule} }}]");
    for (entitlement, reason) in [
        ("resource = \"files\", scopes = [\"files:raed\"]", "no tool of `files` has the scope `files:raed`"),
        ("resource = \"files\", tools = [\"raed_file\"]", "`files` has no tool `raed_file`"),
    ] {
        let expected = format!(
            "errand.toml:9:16: issuers[0].entitlements of `https://login.example.com`: {reason} (name declared scopes or tools in each rule, and a declared resource or none)"
        );
        check(&[("keys = \"discovery\"", &rule(entitlement), &expected)]);
    }
}

#[test]
fn environment_overrides_what_differs_between_replicas() {
    let dir = config_dir();
    let set =
        |name: &'static str, value: &'static str| move |variable: &str| (variable == name).then(|| value.to_owned());
    let config = load(&dir, GOOD, &set("ERRAND_LISTEN", "127.0.0.1:9000")).unwrap();
    assert_eq!(config.listen.address.port(), 9000);
    let config = load(&dir, GOOD, &set("ERRAND_OPERATIONS_LISTEN", "127.0.0.1:9001")).unwrap();
    assert_eq!(config.operations_listen.map(|address| address.port()), Some(9001));
    let config = load(&dir, GOOD, &set("ERRAND_REPLICA_NAME", "second")).unwrap();
    assert_eq!(config.replicas.name.as_deref(), Some("second"));
    for (name, value, reason) in [
        ("ERRAND_LISTEN", "9000", "`9000`: invalid socket address syntax"),
        ("ERRAND_REPLICA_NAME", "a\nb", "must be 1 to 100 characters without control characters"),
    ] {
        let errors = load(&dir, GOOD, &set(name, value)).unwrap_err();
        assert!(errors.starts_with(&format!("environment: {name}: {reason} (")), "{errors}");
    }
}

#[test]
fn inline_secret_is_rejected_and_not_echoed() {
    check(&[
        (
            "secret_file = \"secrets/reader\"",
            "secret = \"s3cret\"",
            "errand.toml:21:52: agents[1].authentication.secret of `reader`: secrets must not be in this file (name a file or an environment variable that holds the secret, and treat this one as leaked)",
        ),
        (
            "secret_file = \"secrets/reader\"",
            "secret_env = \"s3cret!\"",
            "errand.toml:21:65: agents[1].authentication.secret_env of `reader`: is not the name of an environment variable (name a variable of A-Z, 0-9 and _ that holds the secret)",
        ),
        (
            "{ method = \"client_secret_basic\" }",
            "\"s3cret\"",
            "errand.toml:26:18: resources[0].authentication of `files`: found a string (write a table, for example `authentication = { method = \"client_secret_basic\", secret_file = \"secrets/files\" }`)",
        ),
        (
            "keys.encryption_key_file = \"secrets/encryption-key\"",
            "keys.encryption_key = \"s3cret\"",
            "errand.toml:4:1: keys: the key-encryption key is missing (name a file with `encryption_key_file` or set ERRAND_ENCRYPTION_KEY; generate one with `openssl rand -base64 32`)\nerrand.toml:4:6: keys.encryption_key: secrets must not be in this file (name a file or an environment variable that holds the secret, and treat this one as leaked)",
        ),
        (
            "sqlite:errand.db",
            "postgres://errand:s3cret@db/errand",
            "errand.toml:3:13: store.url: secrets must not be in this file (put the URL into a file that `url_file` names, or into ERRAND_STORE_URL, and treat this password as leaked)",
        ),
        (
            "jwks_file = \"clients/planner.jwks.json\"",
            "jwks = { keys = [{ kty = \"EC\", d = \"s3cret\" }] }",
            r#"errand.toml:15:55: agents[0].authentication.jwks of `planner`: the JWK set contains a private or symmetric key; publish public keys only, and treat that key as leaked (write `{"keys": [{"kty": …}]}` with public keys only)"#,
        ),
    ]);
}

#[test]
fn unusable_secrets_are_rejected() {
    check(&[
        (
            "secrets/reader",
            "secrets/short",
            "errand.toml:21:66: agents[1].authentication.secret_file of `reader`: the secret has less than 256 bits: 43 characters of base64url, or 64 hexadecimal digits (generate one with `openssl rand -hex 32`)",
        ),
        (
            "secrets/reader",
            "secrets/open",
            "errand.toml:21:66: agents[1].authentication.secret_file of `reader`: secrets/open has mode 0644: users other than its owner can read it (run `chmod 600 secrets/open`, and treat its content as leaked)",
        ),
        (
            "secrets/reader",
            "secrets/none",
            "errand.toml:21:66: agents[1].authentication.secret_file of `reader`: can't read the named file: No such file or directory (os error 2) (name an existing file that Errand may read; relative paths start at the directory of this file)",
        ),
        (
            "secret_file = \"secrets/reader\"",
            "secret_env = \"READER\"",
            "errand.toml:21:65: agents[1].authentication.secret_env of `reader`: the environment variable `READER` is not set (set the variable; generate one with `openssl rand -hex 32`)",
        ),
        (
            "secrets/encryption-key",
            "secrets/open-key",
            "errand.toml:4:28: keys.encryption_key_file: secrets/open-key has mode 0644: users other than its owner can read it (run `chmod 600 secrets/open-key`, and treat its content as leaked)",
        ),
        (
            "secrets/encryption-key",
            "secrets/short-key",
            "errand.toml:4:28: keys.encryption_key_file: the key has 5 bytes instead of 32 (generate one with `openssl rand -base64 32`)",
        ),
        (
            "secrets/encryption-key",
            "secrets/none",
            "errand.toml:4:28: keys.encryption_key_file: can't read the named file: No such file or directory (os error 2) (name an existing file that Errand may read; relative paths start at the directory of this file)",
        ),
        (
            "keys.encryption_key_file = \"secrets/encryption-key\"",
            "",
            "errand.toml: keys: the key-encryption key is missing (name a file with `encryption_key_file` or set ERRAND_ENCRYPTION_KEY; generate one with `openssl rand -base64 32`)",
        ),
        (
            "{ method = \"client_secret_basic\" }",
            "{ method = \"client_secret_basic\", secret_file = \"secrets/reader\" }",
            "errand.toml:26:66: resources[0].authentication.secret_file of `files`: `reader` has the same secret (generate one with `openssl rand -hex 32`)",
        ),
        (
            "clients/planner.jwks.json",
            "clients/private.jwks.json",
            r#"errand.toml:15:60: agents[0].authentication.jwks_file of `planner`: the JWK set contains a private or symmetric key; publish public keys only, and treat that key as leaked (write `{"keys": [{"kty": …}]}` with public keys only)"#,
        ),
        (
            "clients/planner.jwks.json",
            "clients/twice.jwks.json",
            r#"errand.toml:15:60: agents[0].authentication.jwks_file of `planner`: invalid JSON, a duplicate member, or nested too deeply (write `{"keys": [{"kty": …}]}` with public keys only)"#,
        ),
        (
            "jwks_file = \"clients/planner.jwks.json\"",
            "jwks = { keys = [{ kty = \"OKP\", crv = \"Ed25519\", x = \"AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\" }] }",
            "errand.toml:15:55: agents[0].authentication.jwks of `planner`: `keys[0]`: the point has a small order, so that signatures can be made without a private key (replace the key)",
        ),
        (
            "clients/planner.jwks.json",
            "clients/weak.jwks.json",
            "errand.toml:15:60: agents[0].authentication.jwks_file of `planner`: `keys[1]`: the modulus `n` must have at least 2048 bits (replace the key)",
        ),
        (
            "\"discovery\"",
            "{ jwks_file = \"clients/weak.jwks.json\" }",
            "errand.toml:8:8: issuers[0].keys of `https://login.example.com`: `keys[1]`: the modulus `n` must have at least 2048 bits (replace the key)",
        ),
        (
            "jwks.json\"",
            "jwks.json\", algorithms = [\"RS256\"]",
            "errand.toml:15:60: agents[0].authentication.jwks_file of `planner`: no key fits `algorithms` (list the algorithms of these keys in `algorithms`)",
        ),
    ]);
}

#[test]
fn insecure_urls_are_rejected() {
    check(&[
        (
            "issuer = \"https://sts",
            "issuer = \"http://sts",
            "errand.toml:1:10: issuer: `http://sts.example.com`: https is required; http is allowed for loopback addresses only (write the URL at which clients reach Errand: https, or http on a loopback address)",
        ),
        (
            "issuer = \"https://login",
            "issuer = \"http://login",
            "errand.toml:8:8: issuers[0].keys of `http://login.example.com`: the name of the issuer is http, and metadata is fetched over https (name the https URL of its keys: `keys = { jwks_uri = \"https://…\" }`)",
        ),
        (
            "issuer = \"https://login.example.com\"",
            "issuer = \"https://sts.example.com/\"",
            "errand.toml:7:10: issuers[0].issuer of `https://sts.example.com/`: is Errand's own issuer (remove the entry: Errand accepts its own tokens without one)",
        ),
        (
            "issuer = \"https://login.example.com\"",
            "issuer = \"http://127.0.0.1:9000\"",
            r#"errand.toml:8:8: issuers[0].keys of `http://127.0.0.1:9000`: the keys would be fetched from a loopback address, which is not allowed (add `allowed_networks = ["127.0.0.0/8"]` if the identity provider runs on this machine)"#,
        ),
        (
            "uri = \"https",
            "uri = \"http",
            "errand.toml:25:7: resources[0].uri of `files`: https is required; http needs `allow_http = true`, because tokens are sent without encryption (write the https URL; inside a network that you trust, add `allow_http = true`)",
        ),
        (
            "https://files.example.com/mcp",
            "https://sts.example.com",
            "errand.toml:25:7: resources[0].uri of `files`: is Errand's own URL (give the MCP server its own URL: its tokens must not be valid at Errand)",
        ),
        (
            "\"discovery\"",
            "{ jwks_uri = \"http://login.example.com/keys\" }",
            "errand.toml:8:8: issuers[0].keys of `https://login.example.com`: https is required; http is allowed for loopback addresses only (write the https URL of the keys; inside a network that you trust, add `allow_http = true`, and name the network in `allowed_networks`)",
        ),
        (
            "\"discovery\"",
            "{ jwks_uri = \"http://login.example.com/keys\" }\nallow_http = true",
            "errand.toml:8:8: issuers[0].keys of `https://login.example.com`: http is used within `allowed_networks` only (name the network of the keys in `allowed_networks`)",
        ),
        (
            "\"discovery\"",
            "{ jwks_uri = \"http://localhost/keys\" }\nallowed_networks = [\"10.0.0.0/8\"]",
            r#"errand.toml:8:8: issuers[0].keys of `https://login.example.com`: the keys would be fetched from a loopback address, which is not allowed (add `allowed_networks = ["127.0.0.0/8"]` if the identity provider runs on this machine)"#,
        ),
        (
            "\"discovery\"",
            "{ jwks_uri = \"https://a\", jwks_file = \"clients/planner.jwks.json\" }",
            "errand.toml:8:8: issuers[0].keys of `https://login.example.com`: `jwks_uri` and `jwks_file` are mutually exclusive (keep one of them)",
        ),
        (
            "\"discovery\"",
            "{ jwks_file = \"clients/planner.jwks.json\" }",
            "errand.toml:8:8: issuers[0].keys of `https://login.example.com`: no key fits `algorithms` (list the algorithms of these keys in `algorithms`)",
        ),
        (
            "\"discovery\"",
            "\"discovery\"\nallowed_networks = [\"10.0.0.1/40\"]",
            "errand.toml:9:21: issuers[0].allowed_networks[0] of `https://login.example.com`: `10.0.0.1/40`: invalid IP address syntax (write a network in CIDR notation, such as `10.0.0.0/8`)",
        ),
    ]);
}

#[test]
fn unusable_addresses_and_stores_are_rejected() {
    check(&[
        (
            "\"example.com\"",
            "\"https://files.example.com/mcp\"",
            "errand.toml:2:16: trust_domain: `https://files.example.com/mcp` is already the audience of other tokens (name a domain, such as `example.com`: a token for all of it must not pass for one for this URL)",
        ),
        (
            "\"example.com\"",
            "\"\"",
            "errand.toml:2:16: trust_domain: must be 1 to 255 visible ASCII characters (name the domain whose services trust each other, such as `example.com`)",
        ),
        (
            "sqlite:errand.db",
            "mysql://db/errand",
            "errand.toml:3:13: store.url: must be a URL that begins with `postgres:`, `postgresql:` or `sqlite:` (for example, `postgres://errand@db.example.com/errand` or `sqlite:./errand.db`)",
        ),
        (
            "sqlite:errand.db",
            "sqlite::memory:",
            "errand.toml:3:13: store.url: an in-memory store loses revocations (name a file, such as `sqlite:./errand.db`)",
        ),
        (
            "store.url",
            "store.url_file",
            "errand.toml:3:18: store.url_file: can't read the named file: No such file or directory (os error 2) (name an existing file that Errand may read; relative paths start at the directory of this file)",
        ),
        (
            "store.url = \"sqlite:errand.db\"",
            "",
            "errand.toml: store: the store URL is missing (set `url`, `url_file` or ERRAND_STORE_URL)",
        ),
    ]);
}

#[test]
fn invalid_rules_for_identity_providers_and_fetches_are_rejected() {
    check(&[
        (
            "token_types",
            "audience_from = \"client_id\"\ntoken_types",
            "errand.toml:11:17: issuers[0].audience_from of `https://login.example.com`: \"client_id\" needs `required_claims` that only access tokens have, such as `token_use = \"access\"` (look up the claims that its access tokens have and its ID tokens lack, such as `{ token_use = \"access\" }`)",
        ),
        (
            "token_types",
            "required_claims = { v = 1.5 }\ntoken_types",
            "errand.toml:11:25: issuers[0].required_claims.\"v\" of `https://login.example.com`: found a float (write a string, a whole number, or true or false, for example `required_claims = { token_use = \"access\" }`)",
        ),
        (
            "token_types",
            "optional_claims = [\"sub\"]\ntoken_types",
            "errand.toml:11:20: issuers[0].optional_claims[0] of `https://login.example.com`: unknown value `sub` (write one of `iat`, `jti`, `client_id`)",
        ),
        (
            "token_types",
            "key_refresh = 600\nkey_max_age = 300\ntoken_types",
            "errand.toml:12:15: issuers[0].key_max_age of `https://login.example.com`: must be at least `key_refresh` and at most 604800 seconds (write a number of seconds from `key_refresh` to a week)",
        ),
        (
            "token_types",
            "entitlements = [{ to = { claim = { name = \"a\", path = [\"a\"], value = \"x\" } }, scopes = [\"files:read\"] }]\ntoken_types",
            "errand.toml:11:34: issuers[0].entitlements[0].to.claim of `https://login.example.com`: `name` and `path` are mutually exclusive (keep one of them)",
        ),
        (
            "token_types",
            "entitlements = [{ to = { claim = { path = [], value = \"x\" } }, scopes = [\"files:read\"] }]\ntoken_types",
            "errand.toml:11:43: issuers[0].entitlements[0].to.claim.path of `https://login.example.com`: must be 1 to 8 names (write the claim, then the member below it, such as `[\"realm_access\", \"roles\"]`)",
        ),
        (
            "[[issuers]]",
            "fetch.no_proxy = [\"a\"]\n[[issuers]]",
            "errand.toml:6:18: fetch.no_proxy: has no effect without `proxy` (set `proxy`, or remove this key)",
        ),
        (
            "[[issuers]]",
            "fetch.proxy = \"http://a:s3cret@proxy.example.com\"\n[[issuers]]",
            "errand.toml:6:15: fetch.proxy: secrets must not be in this file (name a file with `user:password` in `proxy_credentials_file`)",
        ),
        (
            "[[issuers]]",
            "fetch.proxy = \"socks5://proxy.example.com\"\n[[issuers]]",
            "errand.toml:6:15: fetch.proxy: is not the URL of an HTTP proxy (write the URL of an HTTP proxy, such as `http://proxy.example.com:3128`)",
        ),
        (
            "[[issuers]]",
            "fetch.networks = [\"10.0.0.0/33\"]\n[[issuers]]",
            "errand.toml:6:19: fetch.networks[0]: `10.0.0.0/33`: invalid IP address syntax (write a network in CIDR notation, such as `10.0.0.0/8`)",
        ),
    ]);
}

#[test]
fn invalid_addresses_of_listeners_are_rejected() {
    check(&[
        (
            "trust_domain =",
            "listen = \"localhost:80\"\ntrust_domain =",
            "errand.toml:2:10: listen: `localhost:80`: invalid socket address syntax (write an IP address and a port, such as `127.0.0.1:8080`)",
        ),
        (
            "trust_domain =",
            "listen = { trusted_proxies = [\"10.0.0.1/40\"] }\ntrust_domain =",
            "errand.toml:2:31: listen.trusted_proxies[0]: `10.0.0.1/40`: invalid IP address syntax (write a network in CIDR notation, such as `10.0.0.0/8` or `192.0.2.1/32`)",
        ),
        (
            "trust_domain =",
            "listen = { forwarded_header = \"x-real-ip\" }\ntrust_domain =",
            "errand.toml:2:31: listen.forwarded_header: unknown value `x-real-ip` (write `x_forwarded_for` or `forwarded`)",
        ),
    ]);
}

#[test]
fn values_above_caps_are_rejected() {
    check(&[
        (
            "store.url",
            "tokens.lifetime = 901\nstore.url",
            "errand.toml:3:19: tokens.lifetime: `901` is not between 10 and 900 (seconds; the maximum is 15 minutes)",
        ),
        (
            "store.url",
            "tokens.api_token_lifetime = 3600\nstore.url",
            "errand.toml:3:29: tokens.api_token_lifetime: `3600` is not between 10 and 900 (seconds; the maximum is 15 minutes)",
        ),
        (
            "store.url",
            "tokens.max_chain = 0\nstore.url",
            "errand.toml:3:20: tokens.max_chain: `0` is not between 1 and 8 (maximum number of agents in `act`; usually 4)",
        ),
        (
            "store.url",
            "tokens.max_chain = 9\nstore.url",
            "errand.toml:3:20: tokens.max_chain: `9` is not between 1 and 8 (maximum number of agents in `act`; usually 4)",
        ),
        (
            "store.url",
            "tokens.leeway = 61\nstore.url",
            "errand.toml:3:17: tokens.leeway: `61` is not between 0 and 60 (seconds; synchronize the clocks if they differ by more)",
        ),
        (
            "store.url",
            "tokens.leeway = -1\nstore.url",
            "errand.toml:3:17: tokens.leeway: `-1` is not between 0 and 60 (seconds; synchronize the clocks if they differ by more)",
        ),
        (
            "store.url",
            "tokens.lifetime = \"5m\"\nstore.url",
            "errand.toml:3:19: tokens.lifetime: `5m` is a string (write 300 without quotes: seconds; the maximum is 15 minutes)",
        ),
        (
            "store.url",
            "tasks.max_lifetime = 86401\nstore.url",
            "errand.toml:3:22: tasks.max_lifetime: `86401` is not between 10 and 86400 (seconds; the maximum is 24 hours)",
        ),
        (
            "store.url",
            "tasks.max_lifetime = 600\ntasks.lifetime = 601\nstore.url",
            "errand.toml:4:18: tasks.lifetime: `601` is not between 10 and 600 (seconds; at most `max_lifetime`)",
        ),
        (
            "store.url",
            "keys.rotation.keep_retired = 930\nstore.url",
            "errand.toml:3:30: keys.rotation.keep_retired: `930` is not between 931 and 7776000 (seconds; longer than the maximum token lifetime (15 minutes) plus the leeway)",
        ),
        (
            "store.url",
            "keys.rotation = { every = 86400, publish_ahead = 86400 }\nstore.url",
            "errand.toml:3:27: keys.rotation.every: `86400` is not between 86401 and 34560000 (seconds; longer than `publish_ahead`, and at least an hour)",
        ),
        (
            "store.url",
            "log.level = \"loud\"\nstore.url",
            "errand.toml:3:13: log.level: `loud` is not a log level (write off, error, warn, info, debug or trace, optionally followed by `target=level`, such as `info,errand=debug`)",
        ),
        (
            "store.url",
            "log.format = \"xml\"\nstore.url",
            "errand.toml:3:14: log.format: unknown value `xml` (write `json` or `pretty`)",
        ),
        (
            "store.url",
            "audit.introspections = false\nstore.url",
            "errand.toml:3:24: audit.introspections: found a boolean (write a string, for example `introspections = \"changes\"`)",
        ),
        (
            "store.url",
            "requests.write_queue = 0\nstore.url",
            "errand.toml:3:24: requests.write_queue: `0` is not between 1 and 65536 (maximum queued writes of clients)",
        ),
        (
            "id = \"planner\"",
            "id = \"planner\"\nmax_token_lifetime = 3600",
            "errand.toml:15:22: agents[0].max_token_lifetime of `planner`: `3600` is not between 10 and 900 (seconds; the maximum is 15 minutes)",
        ),
    ]);
}

#[test]
fn inconsistent_objects_are_rejected() {
    check(&[
        (
            "id = \"planner\"",
            "id = \"Errand-planner\"",
            "errand.toml:14:6: agents[0].id of `Errand-planner`: ids that begin with `errand` are reserved (choose another id)",
        ),
        (
            "id = \"planner\"",
            "id = \"the planner\"",
            "errand.toml:14:6: agents[0].id of `the planner`: `the planner`: not a valid client id: 1 to 128 characters of A-Z a-z 0-9 . _ ~ - (choose a short name, such as `planner`)",
        ),
        ("id = \"planner\"\n", "", r#"errand.toml:13:1: agents[0].id: is missing (for example, `id = "planner"`)"#),
        (
            "id = \"planner\"",
            "id = \"reader\"",
            "errand.toml:16:19: agents[0].may_delegate_to of `reader`: an agent can't delegate to itself (name other `[[agents]]`, and in `access` what `[[resources]]` declares)\nerrand.toml:20:6: agents[1].id of `reader`: duplicate client id; agents, resources and admins share one namespace (rename or remove one of the two)",
        ),
        (
            "id = \"files\"",
            "id = \"reader\"",
            "errand.toml:17:10: agents[0].access of `planner`: resource `files` does not exist (name resources, scopes and tools that `[[resources]]` declares, or declare them there)\nerrand.toml:24:6: resources[0].id of `reader`: duplicate client id; agents, resources and admins share one namespace (rename or remove one of the two)",
        ),
        (
            "[\"reader\"]",
            "[\"writer\"]",
            "errand.toml:16:19: agents[0].may_delegate_to of `planner`: agent `writer` does not exist (name other `[[agents]]`, and in `access` what `[[resources]]` declares)",
        ),
        (
            "scopes = [\"files:read\"]",
            "scopes = [\"files:raed\"]",
            "errand.toml:17:10: agents[0].access of `planner`: no tool of `files` has the scope `files:raed` (name resources, scopes and tools that `[[resources]]` declares, or declare them there)",
        ),
        (
            "resource = \"files\"",
            "resource = \"mails\"",
            "errand.toml:17:10: agents[0].access of `planner`: resource `mails` does not exist (name resources, scopes and tools that `[[resources]]` declares, or declare them there)",
        ),
        (
            "scopes = [\"files:read\"]",
            "tools = []",
            "errand.toml:17:10: agents[0].access of `planner`: names neither scopes nor tools of `files` (name resources, scopes and tools that `[[resources]]` declares, or declare them there)",
        ),
    ]);
}

#[test]
fn invalid_objects_are_rejected() {
    check(&[
        (
            "uri = \"https://files.example.com/mcp\"",
            "uri = \"https://files.example.com/mcp\"\ndiscovery_scope = \"files:read\"",
            "errand.toml:26:19: resources[0].discovery_scope of `files`: is also the scope of a tool; listing must not permit calling (write a separate scope, such as `files:list`)",
        ),
        (
            "uri = \"https://files.example.com/mcp\"",
            "uri = \"https://files.example.com/mcp\"\ncatalogue_refresh = 59\nallowed_networks = [\"10.0.0.1/40\"]\ncatalogue_token_file = \"secrets/open\"",
            "errand.toml:26:21: resources[0].catalogue_refresh of `files`: `59` is not between 60 and 86400 (seconds; at least a minute, at most a day)\nerrand.toml:27:21: resources[0].allowed_networks[0] of `files`: `10.0.0.1/40`: invalid IP address syntax (write a network in CIDR notation, such as `10.0.0.0/8`)\nerrand.toml:28:24: resources[0].catalogue_token_file of `files`: secrets/open has mode 0644: users other than its owner can read it (run `chmod 600 secrets/open`, and treat its content as leaked)",
        ),
        (
            "uri = \"https://files.example.com/mcp\"",
            "uri = \"https://files.example.com/mcp\"\ncatalogue_token_file = \"a\"\ncatalogue_token_env = \"Hunter2\"",
            "errand.toml:23:1: resources[0] of `files`: `catalogue_token_file` and `catalogue_token_env` are mutually exclusive (keep one of them)\nerrand.toml:26:24: resources[0].catalogue_token_file of `files`: can't read the named file: No such file or directory (os error 2) (name an existing file that Errand may read; relative paths start at the directory of this file)",
        ),
        (
            "uri = \"https://files.example.com/mcp\"",
            "uri = \"https://files.example.com/mcp\"\ncatalogue_token_env = \"Hunter2\"",
            "errand.toml:26:23: resources[0].catalogue_token_env of `files`: is not the name of an environment variable (name a variable of A-Z, 0-9 and _ that holds the secret)",
        ),
        (
            "uri = \"https://files.example.com/mcp\"",
            "uri = \"https://files.example.com/mcp\"\ncatalogue_token_env = \"NOT_SET\"",
            "errand.toml:26:23: resources[0].catalogue_token_env of `files`: the environment variable `NOT_SET` is not set (set the variable to the token)",
        ),
        (
            "effect = \"read\"",
            "effect = \"look\"",
            "errand.toml:27:63: resources[0].tools[0].effect of `files`: unknown value `look` (write one of `read`, `write`, `destructive`)",
        ),
        (
            "\"private_key_jwt\"",
            "\"none\"",
            "errand.toml:15:29: agents[0].authentication.method of `planner`: unknown value `none` (write `private_key_jwt`, `client_secret_basic` or `client_secret_post`)",
        ),
        (
            "may_delegate_to =",
            "known_as = { \"https://login.example.com/\" = [\"x\"] }\nmay_delegate_to =",
            "errand.toml:16:12: agents[0].known_as of `planner`: issuer `https://login.example.com/` does not exist; did you mean `https://login.example.com`? Issuers are compared character by character (list, by `issuer` of the `[[issuers]]`, the client ids that identify this agent alone)",
        ),
        (
            "may_delegate_to =",
            "known_as = { \"https://elsewhere.example\" = [\"x\"] }\nmay_delegate_to =",
            "errand.toml:16:12: agents[0].known_as of `planner`: issuer `https://elsewhere.example` does not exist (list, by `issuer` of the `[[issuers]]`, the client ids that identify this agent alone)",
        ),
        (
            "id = \"reader\"\n",
            "id = \"writer\"\nauthentication = { method = \"client_secret_basic\" }\nknown_as = { \"https://login.example.com\" = [\"x\"] }\n[[agents]]\nid = \"reader\"\nknown_as = { \"https://login.example.com\" = [\"x\"] }\n",
            "errand.toml:22:12: agents[1].known_as of `writer`: `x` at `https://login.example.com` already identifies `reader` (list, by `issuer` of the `[[issuers]]`, the client ids that identify this agent alone)",
        ),
        (
            "may_delegate_to =",
            "known_as = { \"https://login.example.com\" = [] }\nmay_delegate_to =",
            r#"errand.toml:16:44: agents[0].known_as."https://login.example.com" of `planner`: is empty (list the client ids of the agent at this issuer)"#,
        ),
        (
            "algorithms = [\"RS256\"]",
            "algorithms = [\"HS256\"]",
            "errand.toml:10:15: issuers[0].algorithms[0] of `https://login.example.com`: unknown value `HS256` (write one of `RS256`, `RS384`, `RS512`, `PS256`, `PS384`, `PS512`, `ES256`, `ES384`, `ES512`, `EdDSA`)",
        ),
        (
            "algorithms = [\"RS256\"]\n",
            "",
            r#"errand.toml:6:1: issuers[0].algorithms of `https://login.example.com`: is missing (for example, `algorithms = ["RS256"]`)"#,
        ),
        (
            "audiences = [\"https://sts.example.com\"]",
            "subject_scopes = \"ignore\"",
            "errand.toml:6:1: issuers[0].audiences of `https://login.example.com`: name the `aud` of access tokens for this server (look up `aud` in one of its access tokens)\nerrand.toml:9:18: issuers[0].subject_scopes of `https://login.example.com`: \"ignore\" needs at least one entitlement rule; otherwise nothing defines what its users may have (add `[[issuers.entitlements]]`, or leave `subject_scopes` out)",
        ),
        (
            "keys = \"discovery\"",
            "keys = \"discovery\"\nentitlements = [{ to = \"all\" }, { to = { claim = { name = \"g\" } }, scopes = [\"s\"] }]",
            "errand.toml:9:17: issuers[0].entitlements[0] of `https://login.example.com`: grants nothing (name `scopes` or `tools`)\nerrand.toml:9:24: issuers[0].entitlements[0].to of `https://login.example.com`: unknown value `all` (write `\"everyone\"` or `{ claim = { name = \"groups\", value = \"…\" } }`)\nerrand.toml:9:50: issuers[0].entitlements[1].to.claim.value of `https://login.example.com`: is missing (for example, `value = \"files-readers\"`)",
        ),
        (
            "[[agents]]",
            "[[issuers]]\nissuer = \"https://partner.example\"\nkeys = \"discovery\"\naudiences = [\"a\"]\nalgorithms = [\"ES256\"]\ntoken_types = [\"jwt\"]\n\n[[agents]]",
            r#"errand.toml:13:1: issuers[1].subject_prefix of `https://partner.example`: subjects could collide with those of `https://login.example.com`; give one of the two issuers a prefix that does not begin the other's (for example, `subject_prefix = "partner:"`)"#,
        ),
        (
            "tools = [{",
            "tools = [{ name = \"read_file\", scope = \"files:all\", effect = \"destructive\" }, {",
            "errand.toml:27:9: resources[0].tools of `files`: two tools have the same name (remove one of the two)",
        ),
        (
            "[[agents]]",
            "[[issuers]]\nissuer = \"https://login.example.com\"\nkeys = \"discovery\"\naudiences = [\"a\"]\nalgorithms = [\"ES256\"]\ntoken_types = [\"jwt\"]\n\n[[agents]]",
            "errand.toml:14:10: issuers[1].issuer of `https://login.example.com`: duplicate issuer (rename or remove one of the two)",
        ),
        // An invalid object is reported once, without the errors of the objects that depend on it.
        (
            "uri = \"https",
            "uri = \"ftp",
            "errand.toml:25:7: resources[0].uri of `files`: `ftp://files.example.com/mcp`: https is required, or http where it is allowed (write the URL at which clients reach the MCP server: https, or http on a loopback address or with `allow_http`)",
        ),
    ]);
}

#[test]
fn invalid_rules_and_edges_are_rejected() {
    let tool = "scopes = [\"files:read\"] }]";
    let remedy =
        "(for example, `constraints = { path = { prefix = \"/reports/\" } }`; see docs/reference/authority.md)";
    let with = |rules: &str| format!("tools = [{{ identifier = \"read_file\", {rules} }}] }}]");
    let edge = "may_delegate_to = [\"reader\"]";
    let rows = [
        (tool, with("constraints = { path = { regex = \".*\" } }"), format!("errand.toml:17:84: agents[0].access[0].tools[0].constraints of `planner`: path: unknown constraint; use `equals`, `one_of`, `not_one_of`, `min`, `max`, `prefix`, `subset`, `max_length` or `any` {remedy}")),
        (tool, with("constraints = { path = { prefix = \"/a/../b\" } }"), format!("errand.toml:17:84: agents[0].access[0].tools[0].constraints of `planner`: path.prefix: must be a string without dot segments, empty segments, backslashes or other spellings of these {remedy}")),
        (tool, with("constraints = 1"), "errand.toml:17:84: agents[0].access[0].tools[0].constraints of `planner`: found an integer (write a table, for example `constraints = { path = { prefix = \"/reports/\" }, text = { any = true } }`)".into()),
        (tool, with("constraints = { n = { max = 1e400 } }"), format!("errand.toml:17:84: agents[0].access[0].tools[0].constraints of `planner`: n.max: contains a number that a double can't represent exactly (RFC 8785); use a string {remedy}")),
        (tool, with("constraints = { n = { max = 50.00000000000000001 } }"), format!("errand.toml:17:84: agents[0].access[0].tools[0].constraints of `planner`: n.max: contains a number that a double can't represent exactly (RFC 8785); use a string {remedy}")),
        (tool, with("constraints = { n = { max = inf } }"), "errand.toml:17:98: agents[0].access[0].tools[0].constraints.n.max of `planner`: `inf` and `nan` are not valid JSON numbers (write a finite number, or a string)".into()),
        (tool, with("constraint = {}"), "errand.toml:17:70: agents[0].access[0].tools[0].constraint of `planner`: unknown key (did you mean `constraints`?)".into()),
        (tool, with("constraints = {}, additional_arguments = \"no\""), "errand.toml:17:111: agents[0].access[0].tools[0].additional_arguments of `planner`: found a string (write true or false, for example `additional_arguments = false`)".into()),
        (tool, format!("scopes = [\"files:read\"], {}", with("constraints = { n = { max = 5 } }")), "errand.toml:17:10: agents[0].access of `planner`: the constraints for `read_file` of `files` have no effect; another entry allows every call of it (remove the constraints, or the scope or bare tool name that already allows every call)".into()),
        (edge, "may_delegate_to = [{ agent = \"reader\", depth = 8 }]".into(), "errand.toml:16:48: agents[0].may_delegate_to[0].depth of `planner`: `8` is not between 1 and 7 (maximum number of agents that may follow, this one included)".into()),
        (edge, "may_delegate_to = [{ depth = 1 }]".into(), "errand.toml:16:20: agents[0].may_delegate_to[0].agent of `planner`: is missing (for example, `agent = \"reader\"`)".into()),
        (edge, "may_delegate_to = [\"reader\", { agent = \"reader\" }]".into(), "errand.toml:16:19: agents[0].may_delegate_to of `planner`: duplicate agent `reader` (remove one of the two)".into()),
        (edge, "may_delegate_to = [{ agent = \"reader\", access = [] }]".into(), "errand.toml:16:19: agents[0].may_delegate_to of `planner`: `access` for `reader` is empty (list in `access` what may be delegated, or leave `access` out to delegate whatever the token allows)".into()),
        (edge, "may_delegate_to = [{ agent = \"reader\", access = [{ resource = \"files\", tools = [\"gone\"] }] }]".into(), "errand.toml:16:19: agents[0].may_delegate_to of `planner`: `files` has no tool `gone` (name other `[[agents]]`, and in `access` what `[[resources]]` declares)".into()),
        ("id = \"planner\"", "id = \"planner\"\nkind = \"proxy\"".into(), "errand.toml:15:8: agents[0].kind of `planner`: unknown value `proxy` (write `agent` or `broker`)".into()),
        ("id = \"planner\"", "id = \"planner\"\nkind = \"broker\"\nknown_as = { \"https://login.example.com\" = [\"p\"] }".into(), "errand.toml:16:12: agents[0].known_as of `planner`: a broker opens no tasks and receives no user tokens (remove `known_as`, or remove `kind` if the agent opens tasks)".into()),
    ];
    let rows = rows.iter().map(|(old, new, expected)| (*old, new.as_str(), expected.as_str())).collect::<Vec<_>>();
    check(&rows);
}

/// Each key of the example, in comments or not, gets values of wrong types, among them a date,
/// which no key accepts. The error names the key, what was found and what is wanted, with an
/// example.
#[test]
fn wrong_value_type_is_reported_at_every_key() {
    let dir = config_dir();
    let (mut checked, mut keys) = (0, std::collections::BTreeSet::new());
    for (document, key) in documents() {
        for at in 2.. {
            let Some((path, value)) = nth_value(&document, "", at, &mut 0) else { break };
            // A variant is about one key, and what is in a key set is not configuration.
            let names = path.split(['.', '[']).collect::<Vec<_>>();
            let is_in_key_set = ["jwks.", "inline."].iter().any(|key| path.contains(key));
            if is_in_key_set || key.as_ref().is_some_and(|key| !names.contains(&key.as_str())) {
                continue;
            }
            for wrong in wrong_values(&path, value) {
                let mut changed = document.clone();
                replace_nth_value(&mut changed, at, &mut 0, &wrong);
                let errors = load(&dir, &toml::to_string(&changed).unwrap(), &variables).expect_err(&path);
                let is_about = |line: &&str| [": ", " of "].iter().any(|end| line.contains(&format!(": {path}{end}")));
                let found = errors.lines().filter(is_about).filter(|line| line.contains(": found a"));
                let [found] = found.collect::<Vec<_>>()[..] else { panic!("{path} = {wrong}: {errors}") };
                assert!(found.contains("(write ") && found.contains("for example `"), "{found}");
                checked += 1;
            }
            keys.insert(path);
        }
    }
    assert!(keys.len() > 250 && checked > 500, "{} {checked}", keys.len());
}

/// Returns the example with all defaults, and one variant of it for each key in a comment.
fn documents() -> Vec<(toml::Value, Option<String>)> {
    // Of two keys that exclude each other, the example uses the second.
    const EXCLUSIVE: [(&str, &str); 3] = [("url", "url_file"), ("jwks", "jwks_file"), ("secret_env", "secret_file")];
    let is_default = |rest: &str| rest.starts_with(|c: char| c.is_ascii_lowercase());
    let explicit = |line: &'static str| match line.strip_prefix('#') {
        Some(rest) if is_default(rest) || [" [tls]", " [tracing]"].contains(&rest) => rest.trim(),
        _ => line,
    };
    let lines = EXAMPLE.lines().map(explicit).collect::<Vec<_>>();
    let key_of = |line: &str| {
        let table = line.parse::<toml::Table>().ok()?;
        table.keys().next().filter(|_| table.len() == 1).cloned()
    };
    let parse = |lines: &[&str]| toml::Value::Table(lines.join("\n").parse().unwrap());
    let mut documents = vec![(parse(&lines), None)];
    for (n, line) in lines.iter().enumerate() {
        let Some(text) = line.strip_prefix("# ").filter(|text| is_default(text)) else { continue };
        let Some(key) = key_of(text) else { continue };
        let is_header = |line: &&str| line.starts_with('[');
        let start = lines[..n].iter().rposition(is_header).unwrap_or_default();
        let end = lines[n..].iter().position(is_header).map_or(lines.len(), |length| n + length);
        let mut variant = lines.clone();
        for other in &mut variant[start..end] {
            let other_key = key_of(other);
            let is_excluded = |name: &String| EXCLUSIVE.contains(&(key.as_str(), name.as_str()));
            if other_key.is_some_and(|name| name == key || is_excluded(&name)) {
                *other = "";
            }
        }
        variant[n] = text;
        // `[[agents.may_delegate_to]]` would be a second definition.
        if key == "may_delegate_to" {
            continue;
        }
        documents.push((parse(&variant), Some(key)));
    }
    documents
}

/// Returns values of other types than the one of the key.
fn wrong_values(path: &str, value: &toml::Value) -> Vec<toml::Value> {
    // These keys accept a string too.
    let accepts_string = path == "listen"
        || path.ends_with("].keys")
        || path.ends_with("].to")
        || [".tools[", ".may_delegate_to["].iter().any(|list| {
            let element = path.rsplit_once(list).and_then(|(before, index)| {
                index.strip_suffix(']').filter(|index| !index.contains(']')).map(|_| before)
            });
            element.is_some_and(|before| !before.starts_with("resources"))
        });
    let text = toml::Value::String("true".into());
    let confused = match value {
        toml::Value::String(_) if accepts_string => toml::Value::Integer(1),
        toml::Value::String(_) => toml::Value::Array(vec![value.clone()]),
        toml::Value::Array(items) => items.first().cloned().unwrap_or(text),
        toml::Value::Table(_) if accepts_string => toml::Value::Boolean(true),
        _ => text,
    };
    // A constraint may have any JSON value.
    let is_json = path.contains(".constraints.");
    let date = toml::Value::Datetime("2026-11-20".parse().unwrap());
    if is_json { vec![date] } else { vec![date, confused] }
}

fn nth_value<'a>(value: &'a toml::Value, path: &str, at: usize, seen: &mut usize) -> Option<(String, &'a toml::Value)> {
    *seen += 1;
    if *seen == at {
        return Some((path.to_owned(), value));
    }
    match value {
        toml::Value::Table(table) => table.iter().find_map(|(key, value)| {
            let is_chosen = key.contains(':') || path.ends_with(".required_claims");
            let key = if is_chosen { format!("\"{key}\"") } else { key.clone() };
            nth_value(value, format!("{path}.{key}").trim_start_matches('.'), at, seen)
        }),
        toml::Value::Array(items) => {
            items.iter().enumerate().find_map(|(n, item)| nth_value(item, &format!("{path}[{n}]"), at, seen))
        }
        _ => None,
    }
}

fn replace_nth_value(value: &mut toml::Value, at: usize, seen: &mut usize, by: &toml::Value) -> bool {
    *seen += 1;
    if *seen == at {
        *value = by.clone();
        return true;
    }
    match value {
        toml::Value::Table(table) => table.iter_mut().any(|(_, value)| replace_nth_value(value, at, seen, by)),
        toml::Value::Array(items) => items.iter_mut().any(|item| replace_nth_value(item, at, seen, by)),
        _ => false,
    }
}
