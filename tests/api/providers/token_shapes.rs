//! Access tokens and ID tokens in the shapes of identity providers: with the settings of
//! `docs/guides/identity-providers.md` they are exchanged, and without them the error names the
//! setting.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::{
    providers::provider::{Provider, RsaKey},
    server::{ACCESS_TOKEN, FILES, ID_TOKEN, JWT, Server, TOKEN_EXCHANGE, decode_claims, form},
    support::TestStore,
};

/// A token of a provider, and what becomes of it.
struct Shape {
    name: &'static str,
    /// `iss`, and the settings of its entry besides its keys.
    iss: String,
    settings: String,
    declared_type: &'static str,
    header: Value,
    claims: Value,
    /// `sub` of the issued token, or a part of the error.
    want: Result<&'static str, &'static str>,
}

/// The settings that accept what a provider sends as access tokens without a `typ`.
const JWT_ACCESS: &str = "token_types = [\"jwt\"]\naudiences = [\"https://sts.example.com\"]";
/// All users may read files: the scopes of these tokens are not those of the tools.
const ALL_USERS: &str = "subject_scopes = \"ignore\"\nentitlements = [{ to = \"everyone\", resource = \"files\", scopes = [\"files:read\"] }]";

fn roles(matcher: &str) -> String {
    format!(
        "subject_scopes = \"ignore\"\nentitlements = [{{ to = {{ claim = {matcher} }}, resource = \"files\", scopes = [\"files:read\"] }}]"
    )
}

/// Returns a row whose token is accepted.
fn accepted(name: &'static str, settings: &[&str], declared_type: &'static str, header: Value, claims: Value) -> Shape {
    let iss = format!("https://{name}.example/issuer");
    Shape { name, iss, settings: settings.join("\n"), declared_type, header, claims, want: Ok("user-1") }
}

/// Returns a row whose token is refused with this text.
fn refused(
    name: &'static str,
    settings: &[&str],
    declared_type: &'static str,
    header: Value,
    claims: Value,
    text: &'static str,
) -> Shape {
    Shape { want: Err(text), ..accepted(name, settings, declared_type, header, claims) }
}

#[expect(clippy::too_many_lines, reason = "a table with a row for each provider")]
fn shapes() -> Vec<Shape> {
    let (jwt, none, at) = (json!({"typ": "JWT"}), json!({}), json!({"typ": "at+jwt"}));
    let keycloak = json!({"typ": "Bearer", "azp": "assistant-client", "sid": "s", "acr": "1", "jti": "onrtac:1",
        "aud": ["https://sts.example.com", "account"], "scope": "openid profile email",
        "allowed-origins": ["https://app.example"], "realm_access": {"roles": ["offline_access", "reader"]},
        "resource_access": {"account": {"roles": ["manage-account"]}}, "preferred_username": "alice"});
    let keycloak_settings = [
        JWT_ACCESS,
        "other_audiences = \"accept\"",
        &roles("{ path = [\"realm_access\", \"roles\"], value = \"reader\" }"),
    ];
    let entra = json!({"aud": "https://sts.example.com", "azp": "assistant-client", "azpacr": "1", "oid": "o", "tid": "t",
        "uti": "u", "ver": "2.0", "scp": "Files.Read", "roles": ["reader"], "xms_ftd": "x", "acct": 0});
    let entra_settings = [
        JWT_ACCESS,
        "claims = { client = [\"azp\", \"appid\"], scope = \"scp\" }",
        &roles("{ name = \"roles\", value = \"reader\" }"),
    ];
    let cognito = json!({"aud": null, "client_id": "assistant-client", "token_use": "access", "version": 2, "username": "u",
        "scope": "openid aws.cognito.signin.user.admin", "cognito:groups": ["reader"], "event_id": "e",
        "origin_jti": "o", "auth_time": 1_700_000_000});
    let cognito_settings = [
        "token_types = [\"jwt\"]\naudience_from = \"client_id\"\nrequired_claims = { token_use = \"access\" }",
        &roles("{ name = \"cognito:groups\", value = \"reader\" }"),
    ];
    let with = |base: &Value, changes: Value| {
        let mut claims = base.clone();
        claims.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        claims
    };
    let standard = json!({"aud": "https://sts.example.com", "client_id": "assistant-client", "scope": "files:read"});
    let at_settings = ["token_types = [\"access_token\"]\naudiences = [\"https://sts.example.com\"]"];
    let overage = json!({"roles": null, "_claim_names": {"groups": "src1"},
        "_claim_sources": {"src1": {"endpoint": "https://graph.windows.net/t/users/o/getMemberObjects"}}});
    let by_groups = [
        JWT_ACCESS,
        "claims = { client = [\"azp\"], scope = \"scp\" }",
        &roles("{ name = \"groups\", value = \"reader\" }"),
    ];
    vec![
        accepted("keycloak", &keycloak_settings, JWT, jwt.clone(), keycloak.clone()),
        accepted("keycloak-as-access-token", &keycloak_settings, ACCESS_TOKEN, jwt.clone(), keycloak.clone()),
        refused(
            "keycloak-without-jwt",
            &[&keycloak_settings[0].replace("jwt", "access_token"), keycloak_settings[1], keycloak_settings[2]],
            ACCESS_TOKEN,
            jwt.clone(),
            keycloak.clone(),
            "add 'jwt' to the issuer's `token_types`",
        ),
        refused(
            "keycloak-with-jwt-missing",
            &[&keycloak_settings[0].replace("jwt", "access_token"), keycloak_settings[1], keycloak_settings[2]],
            JWT,
            jwt.clone(),
            keycloak.clone(),
            "add 'jwt' to the issuer's `token_types`",
        ),
        refused(
            "keycloak-one-audience",
            &[keycloak_settings[0], keycloak_settings[2]],
            JWT,
            jwt.clone(),
            keycloak.clone(),
            "other_audiences = 'accept'",
        ),
        refused(
            "keycloak-other-audience",
            &keycloak_settings,
            JWT,
            jwt.clone(),
            with(&keycloak, json!({"aud": ["account"]})),
            "the issuer's `audiences`",
        ),
        refused(
            "keycloak-flat-path",
            &[
                keycloak_settings[0],
                keycloak_settings[1],
                &roles("{ name = \"realm_access.roles\", value = \"reader\" }"),
            ],
            JWT,
            jwt.clone(),
            keycloak.clone(),
            "exceeds what the requester may have",
        ),
        accepted(
            "keycloak-client-roles",
            &[
                keycloak_settings[0],
                keycloak_settings[1],
                &roles("{ path = [\"resource_access\", \"account\", \"roles\"], value = \"manage-account\" }"),
            ],
            JWT,
            jwt.clone(),
            keycloak,
        ),
        accepted("entra-v2", &entra_settings, JWT, json!({"typ": "JWT", "x5t": "key-1", "nonce": "n"}), entra.clone()),
        accepted(
            "entra-v1",
            &["token_types = [\"jwt\"]\naudiences = [\"api://errand\"]", entra_settings[1], entra_settings[2]],
            JWT,
            json!({"typ": "JWT", "x5t": "key-1"}),
            with(
                &entra,
                json!({"aud": "api://errand", "azp": null, "appid": "assistant-client", "ver": "1.0", "acr": "1",
                    "amr": ["pwd", "mfa"], "aio": "x", "ipaddr": "192.0.2.1", "onprem_sid": null}),
            ),
        ),
        refused(
            "entra-overage",
            &by_groups,
            JWT,
            jwt.clone(),
            with(&entra, overage),
            "left groups out of it because there are too many",
        ),
        refused(
            "entra-no-group",
            &by_groups,
            JWT,
            jwt.clone(),
            with(&entra, json!({"groups": ["other"]})),
            "exceeds what the requester may have",
        ),
        accepted(
            "okta",
            &[JWT_ACCESS, "claims = { client = [\"cid\"], scope = \"scp\" }"],
            JWT,
            none.clone(),
            json!({"ver": 1, "aud": "https://sts.example.com", "cid": "assistant-client", "uid": "00u1",
                "scp": ["files:read", "openid"], "auth_time": 1_700_000_000}),
        ),
        accepted(
            "okta-at-jwt",
            &[
                "token_types = [\"access_token\"]\naudiences = [\"https://sts.example.com\"]\nclaims = { client = [\"cid\"], scope = \"scp\" }",
            ],
            ACCESS_TOKEN,
            json!({"typ": "application/at+jwt"}),
            json!({"aud": "https://sts.example.com", "cid": "assistant-client", "scp": ["files:read"]}),
        ),
        accepted(
            "auth0",
            &[JWT_ACCESS, "other_audiences = \"accept\""],
            JWT,
            jwt.clone(),
            json!({"aud": ["https://sts.example.com", "https://tenant.auth0.example/userinfo"], "azp": "assistant-client",
                "scope": "openid files:read", "permissions": ["files:read"]}),
        ),
        accepted(
            "google-id-token",
            &["token_types = [\"id_token\"]", ALL_USERS],
            ID_TOKEN,
            jwt.clone(),
            json!({"aud": "assistant-client", "azp": "assistant-client", "email": "alice@example.com", "email_verified": true,
                "at_hash": "x", "hd": "example.com", "jti": null}),
        ),
        refused(
            "google-other-client",
            &["token_types = [\"id_token\"]", ALL_USERS],
            ID_TOKEN,
            jwt.clone(),
            json!({"aud": "other-client", "azp": "other-client"}),
            "the agent's `known_as`",
        ),
        accepted("cognito", &cognito_settings, JWT, none.clone(), cognito.clone()),
        refused(
            "cognito-id-token",
            &cognito_settings,
            JWT,
            none.clone(),
            with(&cognito, json!({"aud": "assistant-client", "token_use": "id"})),
            "the issuer's `audiences`",
        ),
        refused(
            "cognito-other-use",
            &cognito_settings,
            JWT,
            none.clone(),
            with(&cognito, json!({"token_use": "id"})),
            "`token_use` is missing or does not have the value in the issuer's `required_claims`",
        ),
        refused(
            "cognito-other-client",
            &cognito_settings,
            JWT,
            none.clone(),
            with(&cognito, json!({"client_id": "other-client"})),
            "add the client id to the agent's `known_as`",
        ),
        refused("cognito-unset", &[JWT_ACCESS, ALL_USERS], JWT, none.clone(), cognito, "audience_from = 'client_id'"),
        accepted(
            "zitadel",
            &[
                JWT_ACCESS,
                "other_audiences = \"accept\"",
                &roles("{ name = \"urn:zitadel:iam:org:project:roles\", value = \"reader\", mode = \"key\" }"),
            ],
            JWT,
            json!({"typ": "JWT"}),
            json!({"aud": ["https://sts.example.com", "248124"], "client_id": "assistant-client", "jti": "V2_1-at_1",
                "urn:zitadel:iam:org:project:roles": {"reader": {"2481": "example.zitadel.cloud"}}}),
        ),
        Shape {
            iss: "http://adfs.example/adfs/services/trust".into(),
            ..accepted(
                "adfs",
                &[
                    "token_types = [\"jwt\"]\naudiences = [\"microsoft:identityserver:https://sts.example.com\"]",
                    "claims = { client = [\"appid\"], scope = \"scp\" }",
                    &roles("{ name = \"role\", value = \"reader\" }"),
                ],
                JWT,
                json!({"typ": "JWT", "x5t": "key-1"}),
                json!({"aud": "microsoft:identityserver:https://sts.example.com", "appid": "assistant-client",
                    "apptype": "Confidential", "authmethod": "urn:oasis:names:tc:SAML:2.0:ac:classes:PasswordProtectedTransport",
                    "auth_time": "2026-11-20T10:00:00.123Z", "ver": "1.0", "scp": "openid", "role": "reader", "jti": null}),
            )
        },
        Shape {
            iss: "http://tenant.localhost:8080/uaa/oauth/token".into(),
            ..accepted(
                "xsuaa",
                &[
                    "token_types = [\"jwt\"]\naudiences = [\"sb-errand!t1\"]\nother_audiences = \"accept\"",
                    &roles("{ name = \"scope\", value = \"errand!t1.Read\" }"),
                ],
                JWT,
                json!({"typ": "JWT", "jku": "https://tenant.authentication.example/token_keys"}),
                json!({"aud": ["sb-errand!t1", "openid"], "cid": "assistant-client", "client_id": "assistant-client",
                    "azp": "assistant-client", "scope": ["openid", "errand!t1.Read"], "zid": "z", "origin": "sap.default",
                    "grant_type": "authorization_code", "rev_sig": "abc", "ext_attr": {"enhancer": "XSUAA"},
                    "xs.system.attributes": {"xs.rolecollections": []}}),
            )
        },
        accepted(
            "idcs",
            &[JWT_ACCESS, ALL_USERS],
            JWT,
            json!({"typ": "JWT", "x5t": "t", "x5t#S256": "t", "x5c": ["MIIB"]}),
            json!({"aud": "https://sts.example.com", "client_id": "assistant-client", "scope": "urn:opc:idm:t.user.me",
                "exp_offset": null, "sub_mappingattr": "userName"}),
        ),
        accepted(
            "identityserver",
            &[at_settings[0], "optional_claims = [\"iat\", \"jti\"]"],
            ACCESS_TOKEN,
            at.clone(),
            with(
                &standard,
                json!({"iat": null, "jti": null, "nbf": 1_700_000_000, "scope": ["openid", "files:read"], "amr": ["pwd"],
                "idp": "local"}),
            ),
        ),
        refused(
            "identityserver-strict",
            &at_settings,
            ACCESS_TOKEN,
            at.clone(),
            with(&standard, json!({"iat": null})),
            "add it to the issuer's `optional_claims`",
        ),
        accepted(
            "clerk-session",
            &[
                "token_types = [\"jwt\"]\naudience_from = \"client_id\"\nrequired_claims = { sts = \"active\", v = 2 }",
                "claims = { client = [\"azp\"] }",
                ALL_USERS,
            ],
            JWT,
            jwt.clone(),
            json!({"azp": "assistant-client", "fva": [5, -1], "sid": "sess_1", "sts": "active", "v": 2, "pla": "u:free",
                "nbf": 1_700_000_000}),
        ),
        accepted(
            "clerk-oauth",
            &[
                "token_types = [\"access_token\"]\naudience_from = \"client_id\"\nrequired_claims = { kind = \"oauth\" }",
                ALL_USERS,
            ],
            ACCESS_TOKEN,
            at.clone(),
            json!({"client_id": "assistant-client", "kind": "oauth", "scope": "profile email"}),
        ),
        accepted(
            "dex-id-token",
            &["token_types = [\"id_token\"]", &roles("{ name = \"groups\", value = \"reader\" }")],
            ID_TOKEN,
            none.clone(),
            json!({"aud": "assistant-client", "at_hash": "x", "email": "alice@example.com", "groups": ["reader"], "name": "Alice",
                "federated_claims": {"connector_id": "ldap", "user_id": "alice"}}),
        ),
        // Claims in unusual forms, at any provider.
        accepted(
            "dates-as-floats",
            &at_settings,
            ACCESS_TOKEN,
            at.clone(),
            with(
                &standard,
                json!({"iat": 1.7e9, "nbf": 1_700_000_000.25, "exp": 4_102_444_800.5, "auth_time": 1_700_000_000.75}),
            ),
        ),
        accepted(
            "odd-passed-on-claims",
            &at_settings,
            ACCESS_TOKEN,
            at.clone(),
            with(&standard, json!({"acr": {"value": 2}, "amr": "pwd", "auth_time": "2026-11-20T10:00:00Z"})),
        ),
        accepted(
            "null-members",
            &at_settings,
            ACCESS_TOKEN,
            at.clone(),
            with(
                &standard,
                json!({"acr": null, "amr": null, "auth_time": null, "nbf": null, "act": null, "may_act": null,
                "cnf": null, "azp": null, "events": null}),
            ),
        ),
        accepted(
            "act-without-iss",
            &at_settings,
            ACCESS_TOKEN,
            at.clone(),
            with(
                &standard,
                json!({"act": {"sub": "https://service16.example.com", "act": {"sub": "https://service77.example.com"}}}),
            ),
        ),
        Shape {
            want: Ok("long"),
            ..accepted(
                "long-subject",
                &at_settings,
                ACCESS_TOKEN,
                at.clone(),
                with(&standard, json!({"sub": "x".repeat(310), "jti": "j".repeat(300)})),
            )
        },
        refused(
            "too-long-subject",
            &at_settings,
            ACCESS_TOKEN,
            at.clone(),
            with(&standard, json!({"sub": "x".repeat(600)})),
            "`sub` is longer than 512 bytes",
        ),
        refused(
            "milliseconds",
            &at_settings,
            ACCESS_TOKEN,
            at.clone(),
            with(&standard, json!({"exp": 4_102_444_800_000_i64})),
            "is it in milliseconds",
        ),
        refused(
            "declared-as-jwt",
            &at_settings,
            JWT,
            at,
            standard,
            "send `subject_token_type` urn:ietf:params:oauth:token-type:access_token",
        ),
    ]
}

/// The agent that presents the tokens. Its client ids at the providers follow.
const ASSISTANT: &str = r#"
[[agents]]
id = "assistant"
authentication = { method = "client_secret_basic", secret_file = "assistant.secret" }
access = [{ resource = "files", scopes = ["files:read"] }]
[agents.known_as]
"#;

async fn tokens_of_providers_are_exchanged(store: TestStore) {
    let (provider, key) = (Provider::start().await, RsaKey::shared(0, "key-1"));
    provider.publish("/keys", &[key.public(&json!({"use": "sig", "x5c": ["MIIB"]}))]);
    let shapes = shapes();
    let mut more = ASSISTANT.to_owned();
    for shape in &shapes {
        writeln!(more, "\"{}\" = [\"assistant-client\"]", shape.iss).unwrap();
    }
    for (n, shape) in shapes.iter().enumerate() {
        write!(
            more,
            "[[issuers]]\nissuer = \"{}\"\nkeys = {{ jwks_uri = \"{}/keys\" }}\nallowed_networks = [\"127.0.0.0/8\"]\n\
             algorithms = [\"RS256\"]\nsubject_prefix = \"p{n:02}:\"\n{}\n",
            shape.iss, provider.url, shape.settings
        )
        .unwrap();
    }
    let server = Server::start_with(store, &more).await;
    for (n, Shape { name, iss, declared_type, header, claims, want, .. }) in shapes.iter().enumerate() {
        let now = Server::now();
        let base = json!({"iss": iss, "sub": "user-1", "iat": now, "exp": now + 600, "jti": "t-1"});
        let mut all = base.as_object().unwrap().clone();
        for (name, value) in claims.as_object().unwrap() {
            // Only members of the base are removed; others stay `null`, as providers send them.
            match value {
                Value::Null if base.get(name).is_some() || name == "aud" => drop(all.remove(name)),
                value => drop(all.insert(name.clone(), value.clone())),
            }
        }
        let token = key.sign(header, &Value::Object(all));
        let request = form(&[
            ("grant_type", TOKEN_EXCHANGE),
            ("subject_token", &token),
            ("subject_token_type", declared_type),
            ("resource", FILES),
            ("scope", "files:read"),
            ("purpose", "the quarterly report"),
        ]);
        let (status, body) = server.post_as("assistant", "/oauth2/token", &request).await;
        let description = body["error_description"].as_str().unwrap_or_default();
        match want {
            Ok(sub) => {
                assert_eq!(status, 200, "{name}: {body}");
                let issued = decode_claims(body["access_token"].as_str().unwrap());
                let sub = if *sub == "long" { "x".repeat(310) } else { (*sub).to_owned() };
                assert_eq!(issued["sub"], format!("p{n:02}:{sub}"), "{name}");
                assert_eq!(issued["sub_iss"], *iss, "{name}");
                assert!(server.is_active(body["access_token"].as_str().unwrap()).await, "{name}");
            }
            Err(text) => {
                assert_eq!(status, 400, "{name}: {body}");
                assert!(description.contains(text), "{name}: {description}");
            }
        }
    }
    let (status, metrics) =
        crate::server::read_response(server.request(reqwest::Method::GET, "/metrics").send().await.unwrap()).await;
    assert_eq!(status, 200);
    let metrics = metrics.as_str().unwrap();
    let count = |iss: &str, rule: u32| {
        let line = format!("errand_entitlement_rule_matches_total{{issuer=\"{iss}\",rule=\"{rule}\"}} ");
        metrics.lines().find_map(|found| found.strip_prefix(line.as_str())).map(str::to_owned)
    };
    assert_eq!(count("https://entra-v2.example/issuer", 0).as_deref(), Some("1"), "{metrics}");
    // A rule that looks for a claim which the tokens do not have is seen.
    assert_eq!(count("https://keycloak-flat-path.example/issuer", 0).as_deref(), Some("0"), "{metrics}");
    server.stop().await;
}

mod sqlite {
    #[tokio::test(flavor = "multi_thread")]
    async fn tokens_of_providers_are_exchanged() {
        super::tokens_of_providers_are_exchanged(crate::support::TestStore::sqlite().await).await;
    }
}

mod postgres {
    #[tokio::test(flavor = "multi_thread")]
    async fn tokens_of_providers_are_exchanged() {
        super::tokens_of_providers_are_exchanged(crate::support::TestStore::postgres().await).await;
    }
}
