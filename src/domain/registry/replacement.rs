//! Replacement of a registry object: which tokens end when another version takes its place.
//!
//! Introspection refuses a token as soon as the registry does not support it any more. Offline
//! verifiers know the log alone, and a later version of the object may support the token again. So
//! whatever a version takes away ends by an entry of the log.

use super::{RegistryObject, client::Client, policy::BreakGlassRule};
use crate::domain::revocation::Target;

/// Returns the targets that end when `new` replaces `old`, each with the reason. Both have the same
/// kind and id.
#[must_use]
pub fn targets_ended_by_replacement(old: &RegistryObject, new: &RegistryObject) -> Vec<(Target, &'static str)> {
    let mut ended = Vec::new();
    if new.is_disabled() && !old.is_disabled() {
        ended.extend(old.revocation_targets().into_iter().map(|target| (target, "disabled in the registry")));
    }
    if let (Some(old), Some(new)) = (old.client(), new.client()) {
        if old.authentication() != new.authentication() {
            ended.push((Target::Credentials(old.id().clone()), "the credentials of the client changed"));
        }
        // A scope that is taken away is missing in the registry. A token that had it must not get
        // it back.
        if !new.api_scopes().is_subset_of(&old.api_scopes()) {
            ended.push((Target::Credentials(old.id().clone()), "the client has more scopes of the API"));
        }
        if let (Client::Resource(old), Client::Resource(new)) = (old, new) {
            if old.uri != new.uri {
                ended.push((Target::Resource(old.uri.clone()), "the URI of the resource changed"));
            }
            if old.break_glass.is_allow() && new.break_glass == BreakGlassRule::Refuse {
                ended.push((Target::BreakGlass(old.uri.clone()), "the resource refuses break-glass grants"));
            }
            let removed = old.tools.iter().filter(|tool| new.tools.iter().all(|kept| kept.name != tool.name));
            let removed = removed.map(|tool| Target::Tool(old.uri.clone(), tool.name.clone()));
            ended.extend(removed.map(|target| (target, "the tool was removed from the resource")));
        }
    }
    ended
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// One object of each kind, with every member set.
    fn objects() -> [Value; 4] {
        let secret = json!({"method": "client_secret_basic"});
        let tool = |name: &str| json!({"name": name, "scope": "files:read", "effect": "read", "risk": "low", "data_class": "x"});
        [
            json!({"kind": "issuer", "body": {"issuer": "https://login.example.com", "keys": "discovery",
                "audiences": ["https://sts.example.com"], "other_audiences": "refuse", "audience_from": "client_id",
                "required_claims": {"token_use": "access"}, "optional_claims": ["iat"], "algorithms": ["RS256"],
                "token_types": ["access_token"], "claims": {"client": ["azp"], "scope": "scp"}, "subject_prefix": "x:",
                "subject_scopes": "ceiling", "entitlements": [{"to": "everyone", "scopes": ["files:read"], "tools": []}],
                "allowed_networks": ["10.0.0.0/8"], "allow_http": true, "ca_pem": "-----BEGIN CERTIFICATE-----",
                "key_refresh": 60, "key_max_age": 120, "consent": "required", "api_audiences": ["https://a.example"],
                "portal_clients": ["portal"], "disabled": false}}),
            json!({"kind": "agent", "body": {"id": "planner", "name": "Planner", "kind": "agent", "authentication": secret,
                "known_as": {"https://login.example.com": ["planner-app"]},
                "access": [{"resource": "files", "scopes": ["files:read"], "tools": []}],
                "may_delegate_to": ["reader"], "max_token_lifetime": 60, "disabled": false}}),
            json!({"kind": "resource", "body": {"id": "files", "uri": "https://files.example.com/mcp",
                "uri_aliases": ["https://files.example.com/mcp/"], "allow_http": true, "name": "Files",
                "authentication": secret, "tools": [tool("read_file"), tool("list_files")], "discovery_scope": "files:list",
                "allowed_networks": ["10.0.0.0/8"], "catalogue_refresh": 60, "max_token_lifetime": 60,
                "signing_algorithm": "RS256", "consent": "required", "break_glass": "allow", "disabled": false}}),
            json!({"kind": "admin", "body": {"id": "ops", "role": "operator", "authentication": secret, "disabled": false}}),
        ]
    }

    fn parse(object: &Value) -> RegistryObject {
        serde_json::from_value(object.clone()).unwrap_or_else(|error| panic!("{error}: {object}"))
    }

    fn ended(old: &Value, new: &Value) -> Vec<String> {
        let targets = targets_ended_by_replacement(&parse(old), &parse(new));
        targets.iter().map(|(target, _)| format!("{} {}", target.kind(), target.key())).collect()
    }

    #[test]
    fn each_member_ends_what_it_takes_away() {
        let files = "https://files.example.com/mcp";
        let tool = |name: &str| format!("tool {files} {name}");
        let all_tools = [tool("read_file"), tool("list_files")];
        for object in objects() {
            let kind = object["kind"].as_str().unwrap();
            for member in object["body"].as_object().unwrap().keys().map(String::as_str) {
                let with = |value: Value| {
                    let mut changed = object.clone();
                    changed["body"][member] = value;
                    changed
                };
                // Another value of the member, and what it ends.
                let (value, want): (Value, Vec<String>) = match (kind, member) {
                    ("issuer", "disabled") => (json!(true), vec!["issuer https://login.example.com".into()]),
                    ("agent", "disabled") => (json!(true), vec!["agent planner".into()]),
                    ("admin", "disabled") => (json!(true), vec!["agent ops".into()]),
                    ("resource", "disabled") => (json!(true), vec!["agent files".into(), format!("resource {files}")]),
                    (_, "authentication") => {
                        let key = json!({"method": "private_key_jwt", "jwks": {"keys": [{"kty": "EC"}]}, "algorithms": ["ES256"]});
                        (key, vec![format!("credentials {}", object["body"]["id"].as_str().unwrap())])
                    }
                    ("admin", "role") => (json!("auditor"), vec![]),
                    ("resource", "uri") => (json!("https://new.example.com/mcp"), vec![format!("resource {files}")]),
                    ("resource", "tools") => (json!([]), all_tools.to_vec()),
                    ("resource", "break_glass") => (json!("refuse"), vec![format!("break_glass {files}")]),
                    ("issuer", "keys") => (json!({"jwks_uri": "https://login.example.com/keys"}), vec![]),
                    ("issuer", "other_audiences") => (json!("accept"), vec![]),
                    ("issuer", "audience_from") => (json!("aud"), vec![]),
                    ("issuer", "key_refresh" | "key_max_age") => (json!(90), vec![]),
                    ("issuer" | "resource", "allow_http") => (json!(false), vec![]),
                    ("issuer", "algorithms") => (json!(["ES256"]), vec![]),
                    ("issuer", "token_types") => (json!(["jwt"]), vec![]),
                    ("issuer", "claims") => (json!({"client": ["client_id"], "scope": "scope"}), vec![]),
                    ("issuer", "subject_scopes") => (json!("ignore"), vec![]),
                    (
                        "issuer",
                        "audiences" | "optional_claims" | "entitlements" | "allowed_networks" | "api_audiences"
                        | "portal_clients",
                    )
                    | ("agent", "access" | "may_delegate_to")
                    | ("resource", "uri_aliases" | "allowed_networks") => (json!([]), vec![]),
                    ("agent", "known_as") | ("issuer", "required_claims") => (json!({}), vec![]),
                    ("agent", "kind") => (json!("broker"), vec![]),
                    ("issuer" | "resource", "consent") => (json!("none"), vec![]),
                    ("issuer", "subject_prefix" | "ca_pem")
                    | ("agent" | "resource", "name" | "max_token_lifetime")
                    | ("resource", "discovery_scope" | "catalogue_refresh" | "signing_algorithm") => {
                        (json!(null), vec![])
                    }
                    // Another id is another object.
                    (_, "id" | "issuer") => continue,
                    other => panic!("{other:?}: say what another value of this member ends"),
                };
                assert_eq!(ended(&object, &with(value.clone())), want, "{kind} {member}");
                // The way back ends nothing but the credentials and the location. API tokens of an
                // admin who gets a role back are from before, or have no scope of it.
                let back = ended(&with(value), &object);
                let is_symmetric = matches!(member, "authentication" | "uri" | "role");
                assert_eq!(back.is_empty(), !is_symmetric, "{kind} {member}: {back:?}");
            }
        }
    }

    #[test]
    fn tables_name_every_member() {
        for object in objects() {
            let parsed = serde_json::to_value(parse(&object)).unwrap();
            let named = |value: &Value| value["body"].as_object().unwrap().keys().cloned().collect::<Vec<_>>();
            // The default of this member is left out.
            let explicit = named(&object).into_iter().filter(|member| member != "break_glass").collect::<Vec<_>>();
            assert_eq!(named(&parsed), explicit);
        }
    }

    #[test]
    fn disabled_object_ends_under_its_old_location() {
        let [_, _, old, _] = objects();
        let mut new = old.clone();
        (new["body"]["disabled"], new["body"]["uri"]) = (json!(true), json!("https://new.example.com/mcp"));
        let files = "resource https://files.example.com/mcp";
        assert_eq!(ended(&old, &new), ["agent files", files, files]);
        assert!(ended(&new, &new).is_empty(), "it was disabled before");
    }
}
